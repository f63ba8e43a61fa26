"""`relocate`: put this kernel's numbers where the bytecode has placeholders. Pure."""

from __future__ import annotations

import struct
from collections.abc import Mapping

from polyplane.errors import BackendUnavailable
from polyplane_ebpf.btf import KernelTypes
from polyplane_ebpf.maps import KFUNCS, NOWHERE, OFFSETS, OPTIONAL_OFFSETS, PLACEHOLDER_KFUNC, PLACEHOLDER_MAP, PLACEHOLDER_OFFSET

_LOAD_IMMEDIATE, _CALL = 0x18, 0x85
_PSEUDO_MAP, _PSEUDO_KFUNC = 1, 2


def relocate(code: bytes, maps: Mapping[int, int], types: KernelTypes) -> bytes:
    """Return the code with descriptors of maps (by number), offsets of fields and numbers of kernel functions in it.

    :raises BackendUnavailable: this kernel lacks a field or function
    """
    result = bytearray(code)
    at = 0
    while at < len(result):
        opcode, registers, _, value = struct.unpack_from("=BBhi", result, at)
        if opcode == _LOAD_IMMEDIATE:
            upper = struct.unpack_from("=I", result, at + 12)[0]
            if upper == PLACEHOLDER_MAP >> 32:
                _replace(result, at, registers & 15 | _PSEUDO_MAP << 4, maps[value])
            elif upper == PLACEHOLDER_OFFSET >> 32:
                _replace(result, at, registers, _offset(types, OFFSETS[value]))
            at += 16
            continue
        if opcode == _CALL and value >> 16 == PLACEHOLDER_KFUNC >> 16:
            name = KFUNCS[value & 0xFFFF]
            if name not in types.functions:
                raise BackendUnavailable(f"this kernel has no function {name} for BPF programs; it came with Linux 6.4")
            struct.pack_into("=Bhi", result, at + 1, registers & 15 | _PSEUDO_KFUNC << 4, 0, types.functions[name])
        at += 8
    return bytes(result)


def _replace(code: bytearray, at: int, registers: int, value: int) -> None:
    struct.pack_into("=B", code, at + 1, registers)
    struct.pack_into("=i", code, at + 4, value)
    struct.pack_into("=i", code, at + 12, 0)


def _offset(types: KernelTypes, field: tuple[str, str]) -> int:
    if field not in types.offsets:
        if field in OPTIONAL_OFFSETS:
            return NOWHERE
        raise BackendUnavailable(f"this kernel's {field[0]} has no field {field[1]}; polyplane-ebpf does not know it")
    return types.offsets[field]
