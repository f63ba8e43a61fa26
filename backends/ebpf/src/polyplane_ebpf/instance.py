"""`Maps`: the maps of one instance in the kernel, found by their pins, read and written."""

from __future__ import annotations

import contextlib
import errno
import os
import struct
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Final

from polyplane.errors import ApplyError
from polyplane_ebpf import encode, namespace, owned, syscall
from polyplane_ebpf.changes import Changes
from polyplane_ebpf.encode import Settings
from polyplane_ebpf.maps import DEFINED, LIFETIME_CLOSING, LIFETIME_OTHER, LIFETIMES, SPECS, MapSpec, MapType
from polyplane_ebpf.options import EbpfOptions
from polyplane_ebpf.owned import Place

NAME: Final = "ebpf"
_BATCH: Final = 16384
_ONLY: Final = bytes(4)
#: Of the map config.
_CONFIG_SIZE: Final = SPECS["config"].value
#: What `Maps.counts` needs of ``struct flow`` (the protocol) and of ``struct connection`` (when it was seen, whether it closes).
_FLOW: Final = struct.Struct("=52xB3x")
_CONNECTION: Final = struct.Struct("=8xQ9xB6x")


class Maps:
    """The maps of one instance, pinned or about to be."""

    def __init__(self, options: EbpfOptions) -> None:
        self._maps: dict[str, int] = {}
        self.options: Final = options
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

    def counts(self) -> dict[str, int]:
        """Return how many entries the maps have that the program fills by itself: connections that live, and counters."""
        now, live, lifetimes = time.monotonic_ns(), 0, LIFETIMES
        for keys, values, count in self._batches("connections"):
            # protocol and closing of `struct flow` and `struct connection`, when it was seen
            for (protocol,), (seen, closing) in islice(zip(_FLOW.iter_unpack(keys), _CONNECTION.iter_unpack(values), strict=True), count):
                live += now - seen <= (LIFETIME_CLOSING if closing else lifetimes.get(protocol, LIFETIME_OTHER))
        return {"connections": live, "counters": sum(count for _, _, count in self._batches("counters"))}

    def _batches(self, name: str) -> Iterator[tuple[bytes, bytes, int]]:
        spec = SPECS[name]
        return syscall.batches_of(self._maps[name], spec.key, spec.value * (syscall.possible_processors() if spec.per_cpu else 1))

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
            raise ApplyError(
                f"map {name} with its {self.entries(name)} entries is full: it must hold what was and what will be for a moment; "
                f"raise [backend.ebpf] {SPECS[name].option}",
                backend=NAME,
                retryable=False,
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
