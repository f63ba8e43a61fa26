"""What maps, programs and links have in common: pins, and what the kernel says about them."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass

from polyplane_ebpf.syscall.call import Command, address, bpf, buffer


def pin(descriptor: int, path: str) -> None:
    """Give an object a name in the BPF file system, which keeps it alive."""
    name = buffer(os.fsencode(path) + b"\0")
    bpf(Command.OBJ_PIN, "QII", address(name), descriptor, 0)


def open_pinned(path: str) -> int:
    """Return a descriptor of a pinned object."""
    name = buffer(os.fsencode(path) + b"\0")
    return bpf(Command.OBJ_GET, "QII", address(name), 0, 0)


def _information(descriptor: int, size: int) -> bytes:
    info = buffer(bytes(size))
    bpf(Command.OBJ_GET_INFO_BY_FD, "IIQ", descriptor, size, address(info))
    return info.raw


@dataclass(frozen=True, slots=True)
class MapInfo:
    """What the kernel says about a map."""

    kind: int
    key: int
    value: int
    entries: int
    flags: int


def map_info(descriptor: int) -> MapInfo:
    """Return a map's shape."""
    kind, _, key, value, entries, flags = struct.unpack_from("=6I", _information(descriptor, 80))
    return MapInfo(kind, key, value, entries, flags)


@dataclass(frozen=True, slots=True)
class ProgramInfo:
    """What the kernel says about a program; ``tag`` is a digest of its instructions."""

    number: int
    tag: bytes
    name: str


def program_info(descriptor: int) -> ProgramInfo:
    """Return a program's number, tag and name."""
    content = _information(descriptor, 232)
    number, tag = struct.unpack_from("=4xI8s", content)
    return ProgramInfo(number, tag, content[64:80].split(b"\0")[0].decode("ascii", "replace"))


@dataclass(frozen=True, slots=True)
class LinkInfo:
    """What the kernel says about a link: the program, and whether it is still attached to something."""

    kind: int
    program: int
    detail: tuple[int, int, int, int]


def link_info(descriptor: int) -> LinkInfo:
    """Return a link's program and place: (ifindex, attach type, …) of TCX, (family, hook, priority, flags) of netfilter."""
    content = _information(descriptor, 64)
    kind, _, program = struct.unpack_from("=III", content)
    first, second, third, fourth = struct.unpack_from("=IIiI", content, 16)
    return LinkInfo(kind, program, (first, second, third, fourth))


def possible_processors() -> int:
    """Return how many values a per-processor map gives for a key."""
    with open("/sys/devices/system/cpu/possible", encoding="ascii") as file:  # noqa: PTH123  # read often, and Path is slower to import
        text = file.read().strip()
    return sum(int(last or first) - int(first) + 1 for first, _, last in (part.partition("-") for part in text.split(",")))
