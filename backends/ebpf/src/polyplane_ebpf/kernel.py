"""`Kernel`: one instance in the kernel, its programs and links, and their pins."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Final

from polyplane.backend_kit.namespaces import in_namespace
from polyplane.errors import ApplyError, BackendUnavailable
from polyplane_ebpf import bytecode, namespace, owned, syscall
from polyplane_ebpf.btf import read_types
from polyplane_ebpf.bytecode import Bytecode
from polyplane_ebpf.instance import NAME, Maps
from polyplane_ebpf.maps import KFUNCS, OFFSETS, OPTIONAL_OFFSETS, SPECS, Hook
from polyplane_ebpf.options import EbpfOptions
from polyplane_ebpf.relocate import relocate
from polyplane_ebpf.syscall import AttachType, ProgramType, Refused

#: Which function sits at which hook.
HOOKS: Final[Mapping[Hook, str]] = {
    Hook.FORWARD: "polyplane_filter",
    Hook.LOCAL_IN: "polyplane_filter",
    Hook.POST_ROUTING: "polyplane_origin",
}
#: Those that answer packets that are refused: where they would leave, and where they come in.
ANSWER: Final = "polyplane_answer"
REFUSE: Final = "polyplane_refuse"
_FAMILIES: Final = (4, 6)
_SAID: Final = 600


class Kernel(Maps):
    """A set of maps, the programs that read them, the links that make the kernel ask them."""

    def __init__(self, options: EbpfOptions) -> None:
        super().__init__(options)
        self._bytecode: Bytecode | None = None

    def tag(self) -> str:
        """Return the tag of the bytecode that should be in the kernel."""
        if self._bytecode is None:
            self._bytecode = bytecode.obtain(self.options.bytecode, Path(self.options.state))
        return self._bytecode.tag

    def wanted_links(self) -> dict[str, tuple[int, Hook]]:
        """Return the pins of the links that should be there: family and hook."""
        tag, number = self.tag(), namespace.identity(self.options.netns)
        return {owned.link_pin(family, hook.name.lower(), number, tag): (family, hook) for hook in HOOKS for family in _FAMILIES}

    def missing_links(self, *, probe: bool = False) -> list[str]:
        """Return the names of links that should be there and are not; with ``probe`` also those that were detached by force."""
        directory = self.place.directory
        missing = [name for name in self.wanted_links() if self._fresh or not (directory / name).exists()]
        if probe and len(missing) < len(self.wanted_links()):
            dead = in_namespace(self.options.netns, self._dead_links)
            missing += [name for name in dead if name not in missing]
        return missing

    def _dead_links(self) -> list[str]:
        """Return the names of links that are pinned but not attached any more; called inside the node's namespace.

        A link that was detached (BPF_LINK_DETACH) says of itself what it said before, and few kernels have
        CONFIG_NETFILTER_NETLINK_HOOK to ask the hook instead. But no two BPF programs can have one priority of a hook: whoever
        can take the place of a link has found it empty. It is left at once.
        """
        dead = []
        directory = self.place.directory
        for name, (family, hook) in self.wanted_links().items():
            with contextlib.ExitStack() as stack:
                try:
                    link = syscall.open_pinned(str(directory / name))
                    stack.callback(os.close, link)
                    program = syscall.open_pinned(str(directory / owned.program_pin(HOOKS[hook], self.tag())))
                    stack.callback(os.close, program)
                except FileNotFoundError:
                    continue
                priority = syscall.link_info(link).detail[2]
                try:
                    os.close(syscall.link_netfilter(program, family=family, hook=hook, priority=priority, defragment=True))
                except OSError as error:
                    if error.errno != errno.EBUSY:
                        raise
                else:
                    dead.append(name)
        return dead

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

    def attach(self, *, probe: bool = False) -> int:
        """Attach and pin what is missing, then remove what is surplus; return the number of links that came and went.

        ``probe``: also what was detached by force. New links are there before old ones go: in between both are asked, and both must allow.
        """
        missing = self.missing_links(probe=probe)
        directory = self.place.draft if self._fresh else self.place.directory
        if missing or self._fresh:
            owned.mount(self.place.bpffs)
            if self._fresh:
                owned.remove(directory)
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            if self._fresh:
                # before anything that takes its time: whoever dies now leaves a directory that others can tell from one in use
                name = owned.name_of(namespace.identity(self.options.netns))
                if name is not None:
                    (directory / owned.NAME_PIN).symlink_to(name)
            programs = self._programs(directory)
            if self._fresh:
                for name, descriptor in self._maps.items():
                    syscall.pin(descriptor, str(directory / owned.map_pin(name)))
            wanted = self.wanted_links()
            for name in missing:
                family, hook = wanted[name]
                link = in_namespace(self.options.netns, partial(self._link, programs[HOOKS[hook]], family, hook))
                (directory / name).unlink(missing_ok=True)  # of a link that is attached no more
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
            code = self._bytecode.functions[function]
            try:
                programs[function] = _load(function, relocate(code, numbers, types))
            except Refused as refusal:
                try:  # a kernel in lockdown lets nobody read its memory: then refusals cannot be told before translation
                    programs[function] = _load(function, relocate(code, numbers, types.without(OPTIONAL_OFFSETS)))
                except Refused:
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


def _load(function: str, code: bytes) -> int:
    if function in {ANSWER, REFUSE}:
        return syscall.load_program(ProgramType.SCHED_CLS, code, name=function)
    return syscall.load_program(ProgramType.NETFILTER, code, name=function, attach=AttachType.NETFILTER)


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
