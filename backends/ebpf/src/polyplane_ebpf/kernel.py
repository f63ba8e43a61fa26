"""All I/O: maps, programs and links in the kernel, and their pins."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Final

from polyplane.errors import ApplyError, BackendUnavailable
from polyplane_ebpf import bytecode, encode, namespace, owned, syscall
from polyplane_ebpf.btf import read_types
from polyplane_ebpf.bytecode import Bytecode
from polyplane_ebpf.changes import Changes
from polyplane_ebpf.encode import Settings
from polyplane_ebpf.maps import DEFINED, KFUNCS, OFFSETS, SPECS, Hook, MapSpec, MapType
from polyplane_ebpf.options import EbpfOptions
from polyplane_ebpf.owned import Place
from polyplane_ebpf.relocate import relocate
from polyplane_ebpf.syscall import AttachType, ProgramType, Refused

NAME: Final = "ebpf"

#: Which function sits at which hook.
HOOKS: Final[Mapping[Hook, str]] = {
    Hook.FORWARD: "polyplane_filter",
    Hook.LOCAL_IN: "polyplane_filter",
    Hook.POST_ROUTING: "polyplane_origin",
}
#: The one that sits where packets leave, and answers those that are refused.
ANSWER: Final = "polyplane_answer"
_FAMILIES: Final = (4, 6)
_BATCH: Final = 16384
_ONLY: Final = bytes(4)
#: Of the map config.
_CONFIG_SIZE: Final = SPECS["config"].value
_SAID: Final = 600


class Kernel:
    """One instance in the kernel: a set of maps, the programs that read them, the links that make the kernel ask them."""

    def __init__(self, options: EbpfOptions) -> None:
        self._maps: dict[str, int] = {}
        self.options: Final = options
        self._bytecode: Bytecode | None = None
        self._fresh = False

    @property
    def place(self) -> Place:
        """Where our pins are. Found anew each time: a namespace may be made again under its old name."""
        instance = self.options.instance or owned.instance_of(namespace.identity(self.options.netns))
        return Place(Path(self.options.bpffs), instance)

    def close(self) -> None:
        """Let go of all descriptors; what is pinned stays."""
        for descriptor in self._maps.values():
            os.close(descriptor)
        self._maps = {}

    def __del__(self) -> None:
        # A map lives as long as a descriptor or a pin: whoever makes many backends must not keep the maps of all.
        self.close()

    # --- maps ----------------------------------------------------------------------------------------------------------

    def entries(self, name: str) -> int:
        """Return how many entries a map can have."""
        return self.options.sizes.get(name, SPECS[name].entries)

    def open(self, *, any_size: bool = False) -> bool:
        """Take over the maps that are pinned; return whether there are any, complete and of our shape. Changes nothing.

        ``any_size``: with whatever number of entries.
        """
        if self._maps and not self._fresh:
            if all((self.place.directory / owned.map_pin(name)).exists() for name in self._maps):
                return True
            self.close()
        found: dict[str, int] = {}
        for spec in SPECS.values():
            descriptor = self._open_map(spec, any_size=any_size)
            if descriptor is None:
                for other in found.values():
                    os.close(other)
                return False
            found[spec.name] = descriptor
        self.close()
        self._maps, self._fresh = found, False
        return True

    def _open_map(self, spec: MapSpec, *, any_size: bool) -> int | None:
        try:
            descriptor = syscall.open_pinned(str(self.place.directory / owned.map_pin(spec.name)))
        except FileNotFoundError:
            return None
        info = syscall.map_info(descriptor)
        shape = (info.kind, info.key, info.value, info.flags) == (spec.type, spec.key, spec.value, spec.flags)
        if shape and (any_size or info.entries == self.entries(spec.name)):
            return descriptor
        os.close(descriptor)
        return None

    def create(self) -> None:
        """Make a new set of maps, which nothing uses yet."""
        self.close()
        for spec in SPECS.values():
            self._maps[spec.name] = syscall.create_map(
                spec.type, key=spec.key, value=spec.value, entries=self.entries(spec.name), flags=spec.flags, name=spec.name
            )
        self._fresh = True

    def descriptor(self, name: str) -> int:
        """Return the descriptor of a map in hand."""
        return self._maps[name]

    def fill(self) -> dict[str, tuple[int, int]]:
        """Return how many entries each map has, and how many it can have."""
        names = (*DEFINED, "connections", "counters")
        return {name: (sum(1 for _ in syscall.keys_of(self._maps[name], SPECS[name].key)), self._room(name)) for name in names}

    def _room(self, name: str) -> int:
        return syscall.map_info(self._maps[name]).entries

    def forget(self, name: str) -> None:
        """Empty a map."""
        syscall.delete_batch(self._maps[name], list(syscall.keys_of(self._maps[name], SPECS[name].key)))

    def read(self) -> dict[str, dict[bytes, bytes]]:
        """Return what all maps hold that a program defines."""
        return {name: self._read(name) for name in DEFINED}

    def _read(self, name: str) -> dict[bytes, bytes]:
        spec = SPECS[name]
        trie = spec.type is MapType.LPM_TRIE
        return syscall.entries_of(self._maps[name], key=spec.key, value=spec.value, trie=trie)

    def write(self, changes: Changes) -> None:
        """Bring changes into the maps, in their order."""
        for name, puts, deletes in changes.steps():
            keys = list(puts or deletes)
            for at in range(0, len(keys), _BATCH):
                part = keys[at : at + _BATCH]
                if puts:
                    self._put(name, part, [puts[key] for key in part])
                elif len(part) == 1:
                    syscall.delete(self._maps[name], part[0])
                else:
                    syscall.delete_batch(self._maps[name], part)

    def _put(self, name: str, keys: list[bytes], values: list[bytes]) -> None:
        try:
            if len(keys) == 1:
                syscall.update(self._maps[name], keys[0], values[0])
            else:
                syscall.update_batch(self._maps[name], keys, values)
        except OSError as error:
            if error.errno not in {errno.E2BIG, errno.ENOSPC}:
                raise
            remedy = "it must hold what was and what will be for a moment; "
            remedy += f"raise [backend.ebpf] {SPECS[name].option}" if SPECS[name].option else "this is more than it is made for"
            raise ApplyError(
                f"map {name} with its {self.entries(name)} entries is full: {remedy}", backend=NAME, retryable=False
            ) from error

    def config(self) -> tuple[int, Settings]:
        """Return the generation of the tables and the settings."""
        content = syscall.lookup(self._maps["config"], _ONLY, _CONFIG_SIZE)
        return encode.unpack_config(content or bytes(_CONFIG_SIZE))

    @contextlib.contextmanager
    def changing(self, settings: Settings) -> Iterator[None]:
        """Make the programs ask the tables about every packet while they change, and anew about each connection afterwards.

        An odd generation that an agent left when it died is continued.
        """
        generation = self.config()[0] | 1
        syscall.update(self._maps["config"], _ONLY, settings.pack(generation))
        yield
        syscall.update(self._maps["config"], _ONLY, settings.pack(generation + 1))

    def counters(self) -> dict[int, tuple[int, int]]:
        """Return packets and bytes by rule id, summed over processors."""
        spec, processors = SPECS["counters"], syscall.possible_processors()
        found = {}
        for key, value in syscall.entries_of(self._maps["counters"], key=spec.key, value=spec.value * processors, trie=False).items():
            numbers = memoryview(value).cast("Q")
            found[int.from_bytes(key, sys.byteorder)] = (sum(numbers[::2]), sum(numbers[1::2]))
        return found

    def keep_counters(self, rules: frozenset[int]) -> None:
        """Remove the counters of all other rules, so that there is room for new ones."""
        spec, descriptor = SPECS["counters"], self._maps["counters"]
        gone = [key for key in syscall.keys_of(descriptor, spec.key) if int.from_bytes(key, sys.byteorder) not in rules]
        syscall.delete_batch(descriptor, gone)

    def answering(self) -> set[int]:
        """Return the numbers of the devices whose refused packets are let go to be answered."""
        spec = SPECS["answering"]
        entries = syscall.entries_of(self._maps["answering"], key=spec.key, value=spec.value, trie=False)
        return {int.from_bytes(key, sys.byteorder) for key in entries}

    def set_answering(self, ifindex: int, *, on: bool) -> None:
        """Say whether a device has the program that answers. Only after it is attached, and until it is detached."""
        key = ifindex.to_bytes(4, sys.byteorder)
        if on:
            syscall.update(self._maps["answering"], key, bytes(4))
        else:
            syscall.delete(self._maps["answering"], key)

    def forget_notes(self, before: int) -> None:
        """Remove notes about packets that were lost on their way; ``before`` in nanoseconds of the monotonic clock."""
        spec = SPECS["notes"]
        entries = syscall.entries_of(self._maps["notes"], key=spec.key, value=spec.value, trie=False)
        stale = [key for key, value in entries.items() if int.from_bytes(value[:8], sys.byteorder) < before]
        syscall.delete_batch(self._maps["notes"], stale)

    def inherit(self) -> None:
        """Copy the connections that older sets of maps know, so that none is cut when another set takes over.

        Each is asked about anew: the generation they come with is none of ours.
        """
        spec, no_generation = SPECS["connections"], b"\xff" * 8
        for directory in (self.place.directory, *self.place.others()):
            try:
                old = syscall.open_pinned(str(directory / owned.map_pin("connections")))
            except OSError:
                continue
            try:
                info = syscall.map_info(old)
                if (info.kind, info.key, info.value) != (spec.type, spec.key, spec.value):
                    continue
                known = syscall.entries_of(old, key=spec.key, value=spec.value, trie=False)
            finally:
                os.close(old)
            keys = list(known)
            for at in range(0, len(keys), _BATCH):
                part = keys[at : at + _BATCH]
                syscall.update_batch(self._maps["connections"], part, [no_generation + known[key][8:] for key in part])

    # --- programs and links --------------------------------------------------------------------------------------------

    def tag(self) -> str:
        """Return the tag of the bytecode that should be in the kernel."""
        if self._bytecode is None:
            self._bytecode = bytecode.obtain(self.options.bytecode, Path(self.options.state))
        return self._bytecode.tag

    def wanted_links(self) -> dict[str, tuple[int, Hook]]:
        """Return the pins of the links that should be there: family and hook."""
        tag, number = self.tag(), namespace.identity(self.options.netns)
        return {owned.link_pin(family, hook.name.lower(), number, tag): (family, hook) for hook in HOOKS for family in _FAMILIES}

    def missing_links(self) -> list[str]:
        """Return the names of links that should be there and are not."""
        return [name for name in self.wanted_links() if self._fresh or not (self.place.directory / name).exists()]

    def surplus(self) -> list[Path]:
        """Return pins and directories of ours that should not be there: of other layouts, programs or namespaces."""
        wanted = {owned.map_pin(name) for name in SPECS} | set(self.wanted_links())
        wanted |= {owned.NAME_PIN} | {owned.program_pin(function, self.tag()) for function in bytecode.FUNCTIONS}
        directory = self.place.directory
        inside = (
            [pin for pin in sorted(directory.iterdir()) if pin.name not in wanted and not owned.is_answer(pin.name)]
            if directory.is_dir() and not self._fresh
            else []
        )
        return [*inside, *self.place.others()]

    def attach(self) -> int:
        """Attach and pin what is missing, then remove what is surplus; return the number of links that came and went.

        New links are there before old ones go: in between both are asked, and both must allow.
        """
        missing = self.missing_links()
        directory = self.place.draft if self._fresh else self.place.directory
        if missing or self._fresh:
            owned.mount(self.place.bpffs)
            if self._fresh:
                owned.remove(directory)
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            programs = self._programs(directory)
            if self._fresh:
                name = owned.name_of(namespace.identity(self.options.netns))
                if name is not None:
                    (directory / owned.NAME_PIN).symlink_to(name)
                for name, descriptor in self._maps.items():
                    syscall.pin(descriptor, str(directory / owned.map_pin(name)))
            wanted = self.wanted_links()
            for name in missing:
                family, hook = wanted[name]
                link = namespace.inside(self.options.netns, partial(self._link, programs[HOOKS[hook]], family, hook))
                syscall.pin(link, str(directory / name))
                os.close(link)
            for descriptor in programs.values():
                os.close(descriptor)
        gone = 0
        if self._fresh:
            self.inherit()  # those that have been opened since, before the new links were there
            gone += owned.remove(self.place.directory)
            directory.rename(self.place.directory)
            self._fresh = False
        for path in self.surplus():
            if path.is_dir():
                gone += owned.remove(path)
            else:
                gone += owned.is_link(path.name)
                path.unlink(missing_ok=True)
        return len(missing) + gone

    def _link(self, program: int, family: int, hook: Hook) -> int:
        for priority in range(self.options.priority, self.options.priority + 8):
            try:
                return syscall.link_netfilter(program, family=family, hook=hook, priority=priority, defragment=True)
            except OSError as error:
                if error.errno != errno.EBUSY:  # another BPF program of this priority: our own older one, or somebody else's
                    raise
        raise ApplyError(
            f"the priorities {self.options.priority} to {self.options.priority + 7} of netfilter's {hook.name} are all taken; "
            "set another: [backend.ebpf] priority",
            backend=NAME,
            retryable=False,
        )

    def _programs(self, directory: Path) -> dict[str, int]:
        """Return descriptors of the programs over our maps, pinned; those that are pinned already are taken."""
        programs: dict[str, int] = {}
        for function in bytecode.FUNCTIONS:
            with contextlib.suppress(FileNotFoundError):
                programs[function] = syscall.open_pinned(str(directory / owned.program_pin(function, self.tag())))
        if len(programs) == len(bytecode.FUNCTIONS):
            return programs
        for function, descriptor in self.load().items():
            if function in programs:
                os.close(descriptor)
                continue
            programs[function] = descriptor
            syscall.pin(descriptor, str(directory / owned.program_pin(function, self.tag())))
        return programs

    def load(self) -> dict[str, int]:
        """Load the programs over the maps in hand.

        :raises BackendUnavailable: the verifier refuses one, in its own words
        """
        self.tag()
        assert self._bytecode is not None
        types = read_types(OFFSETS, KFUNCS)
        numbers = {SPECS[name].number: descriptor for name, descriptor in self._maps.items()}
        programs: dict[str, int] = {}
        for function in bytecode.FUNCTIONS:
            code = relocate(self._bytecode.functions[function], numbers, types)
            try:
                if function == ANSWER:
                    programs[function] = syscall.load_program(ProgramType.SCHED_CLS, code, name=function)
                else:
                    programs[function] = syscall.load_program(ProgramType.NETFILTER, code, name=function, attach=AttachType.NETFILTER)
            except Refused as refusal:
                raise BackendUnavailable(explain(function, refusal)) from refusal
        return programs

    # --- the end -------------------------------------------------------------------------------------------------------

    def remove(self) -> int:
        """Remove everything of this instance, of any layout; return how many pins that were."""
        self.close()
        directories = [self.place.draft, self.place.directory, *self.place.others()]
        return sum(owned.remove(directory) for directory in directories)

    def sweep(self) -> int:
        """Remove what instances left whose network namespace is gone."""
        return sum(owned.remove(directory) for directory in list(self.place.abandoned()))


def explain(function: str, refusal: Refused) -> str:
    """Turn the verifier's log into one sentence: what it says last, and at which instruction."""
    lines = [line for line in refusal.log.splitlines() if line.strip() and not line.startswith(("processed ", "verification time"))]
    said = lines[-1].strip() if lines else str(refusal)
    where = next((line.split(":")[0] for line in reversed(lines[:-1]) if line.split(":")[0].isdigit()), "")
    at = f" (instruction {where})" if where else ""
    return (
        f"this kernel's verifier refuses {function}: {said[:_SAID]}{at}; Linux 6.6 with CONFIG_NETFILTER_BPF_LINK and BTF is needed, "
        "and if it is there please report the line"
    )
