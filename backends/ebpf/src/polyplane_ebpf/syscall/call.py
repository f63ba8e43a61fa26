"""The call itself: attributes packed, errors as `OSError`."""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from enum import IntEnum
from typing import Final

from polyplane.errors import BackendUnavailable

_NUMBERS: Final = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "ppc64le": 361, "s390x": 351}
_libc: Final = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long

#: Size of the largest `union bpf_attr` we pass; the kernel takes a larger one if what it does not know is zero.
_ATTRIBUTES: Final = 144
_NAME: Final = 15


class Command(IntEnum):
    """``enum bpf_cmd``."""

    MAP_CREATE = 0
    MAP_LOOKUP_ELEM = 1
    MAP_UPDATE_ELEM = 2
    MAP_DELETE_ELEM = 3
    MAP_GET_NEXT_KEY = 4
    PROG_LOAD = 5
    OBJ_PIN = 6
    OBJ_GET = 7
    PROG_TEST_RUN = 10
    OBJ_GET_INFO_BY_FD = 15
    MAP_LOOKUP_BATCH = 24
    MAP_UPDATE_BATCH = 26
    MAP_DELETE_BATCH = 27
    LINK_CREATE = 28
    LINK_DETACH = 34


def bpf(command: Command, layout: str, *values: int | bytes) -> int:
    """Make the call with attributes packed like ``layout`` (of `struct.pack`, native order); return what it returns."""
    return bpf_buffer(command, attributes(layout, *values))


def attributes(layout: str, *values: int | bytes) -> ctypes.Array[ctypes.c_char]:
    """Return attributes packed like ``layout`` (of `struct.pack`, native order), zeros behind."""
    packed = struct.pack("=" + layout, *values)
    return ctypes.create_string_buffer(packed.ljust(_ATTRIBUTES, b"\0"), _ATTRIBUTES)


def bpf_buffer(command: Command, attributes: ctypes.Array[ctypes.c_char]) -> int:
    """Call bpf(2) with attributes that the kernel may write to; return what it returns.

    :raises OSError: naming the command
    :raises BackendUnavailable: on a processor whose number for bpf(2) is not known here
    """
    number = _NUMBERS.get(platform.machine())
    if number is None:
        raise BackendUnavailable(f"the ebpf backend does not know bpf(2) on {platform.machine()}; it knows {', '.join(_NUMBERS)}")
    result: int = _libc.syscall(ctypes.c_long(number), ctypes.c_long(command), attributes, ctypes.c_long(len(attributes)))
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"bpf({command.name}): {os.strerror(error)}")
    return result


def address(buffer: ctypes.Array[ctypes.c_char]) -> int:
    """Return where a buffer is; it must outlive the call."""
    return ctypes.addressof(buffer)


def buffer(content: bytes) -> ctypes.Array[ctypes.c_char]:
    """Return a buffer with this content, never an empty one."""
    return ctypes.create_string_buffer(content, max(len(content), 1))


def packed_name(name: str) -> bytes:
    """Return an object's name as the kernel takes it."""
    return name.encode("ascii")[:_NAME].ljust(_NAME + 1, b"\0")
