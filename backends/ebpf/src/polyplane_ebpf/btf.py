"""Where fields and functions of the running kernel are, read from its own type information (BTF)."""

from __future__ import annotations

import functools
import struct
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from polyplane.errors import BackendUnavailable

#: The running kernel's types; there with CONFIG_DEBUG_INFO_BTF.
KERNEL: Final = Path("/sys/kernel/btf/vmlinux")
#: Where types of conntrack are, if it is a module.
MODULES: Final = ("nf_conntrack",)

_MAGIC: Final = 0xEB9F
_STRUCT, _FUNC = 4, 12
#: Bytes that follow a type's 12, by kind: fixed, or for each of its members (Documentation/bpf/btf.rst).
_FIXED: Final = {1: 4, 3: 12, 14: 4, 17: 4}
_EACH: Final = {4: 12, 5: 12, 6: 8, 13: 8, 15: 12, 19: 12}


@dataclass(frozen=True, slots=True)
class KernelTypes:
    """``offsets`` in bytes by (structure, field), ``functions`` by name: their type's number. What is not there is left out."""

    offsets: Mapping[tuple[str, str], int]
    functions: Mapping[str, int]

    def without(self, fields: Collection[tuple[str, str]]) -> KernelTypes:
        """Return the same but for these fields, as if they were not there."""
        return KernelTypes({field: offset for field, offset in self.offsets.items() if field not in fields}, self.functions)


@dataclass(frozen=True, slots=True)
class _Section:
    """Types and strings of one file."""

    types: bytes
    strings: bytes


@functools.cache  # a kernel's types stay what they are
def read_types(fields: tuple[tuple[str, str], ...], functions: tuple[str, ...], source: Path = KERNEL) -> KernelTypes:
    """Look up fields of structures and functions; takes about 0.2 s for 125,000 types, once in a process.

    Structures that the kernel itself does not have are looked for in the files of `MODULES` beside ``source``.

    :raises BackendUnavailable: the kernel tells nothing about its types, or not in a way we understand
    """
    wanted: dict[str, set[str]] = {}
    for struct_name, field in fields:
        wanted.setdefault(struct_name, set()).add(field)
    kernel = _read(source)
    offsets, numbers = _look_up(kernel, wanted, functions)
    for module in MODULES:
        missing = {name: names for name, names in wanted.items() if not any(name == known for known, _ in offsets)}
        if missing and (path := source.with_name(module)).exists():
            own = _read(path)
            # a module's strings go on where the kernel's end (Documentation/bpf/btf.rst)
            offsets |= _look_up(_Section(own.types, kernel.strings + own.strings), missing, ())[0]
    return KernelTypes(offsets, {name: numbers[name] for name in functions if name in numbers})


def _read(source: Path) -> _Section:
    try:
        content = source.read_bytes()
    except OSError as error:
        raise BackendUnavailable(f"{source}: {error.strerror}; the kernel needs CONFIG_DEBUG_INFO_BTF=y") from error
    magic, _, _, header, type_at, type_size, string_at, string_size = struct.unpack_from("=HBBIIIII", content)
    if magic != _MAGIC:
        raise BackendUnavailable(f"{source}: not in BTF format (starts with {magic:#x})")
    return _Section(
        content[header + type_at : header + type_at + type_size], content[header + string_at : header + string_at + string_size]
    )


def _look_up(
    section: _Section, wanted: Mapping[str, set[str]], functions: Iterable[str]
) -> tuple[dict[tuple[str, str], int], dict[str, int]]:
    types, strings = section.types, section.strings
    names = {offset: name for name in (*wanted, *functions) for offset in _places(strings, name)}
    offsets: dict[tuple[str, str], int] = {}
    numbers: dict[str, int] = {}
    position = number = 0
    unpack = struct.Struct("=III").unpack_from
    while position < len(types):
        number += 1
        name_at, info, _ = unpack(types, position)
        kind, members = info >> 24 & 31, info & 0xFFFF
        name = names.get(name_at)
        if name is not None:
            if kind == _FUNC:
                numbers.setdefault(name, number)
            elif kind == _STRUCT:
                offsets |= {
                    (name, field): offset
                    for field, offset in _members(types, strings, position + 12, members)
                    if field in wanted.get(name, ())
                }
        position += 12 + (_EACH[kind] * members if kind in _EACH else _FIXED.get(kind, 0))
    return offsets, numbers


def _members(types: bytes, strings: bytes, position: int, count: int) -> Iterable[tuple[str, int]]:
    for at in range(position, position + 12 * count, 12):
        name_at, _, offset = struct.unpack_from("=III", types, at)
        # the upper byte is the size of a bit field; ours are none
        yield strings[name_at : strings.index(b"\0", name_at)].decode(), (offset & 0xFFFFFF) // 8


def _places(strings: bytes, name: str) -> Iterable[int]:
    """Yield where the name begins in the string table: as a string of its own, or as the end of a longer one."""
    needle, at = name.encode() + b"\0", -1
    while (at := strings.find(needle, at + 1)) >= 0:
        yield at
