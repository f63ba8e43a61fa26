"""bpf(2) through ctypes: maps, programs, links, pins, test runs. Nothing but the calls; errors are `OSError`.

Neither bcc 0.26 nor pyroute2 offers links, information about objects or batches on tries, and libbpf is on few nodes.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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


class ProgramType(IntEnum):
    """``enum bpf_prog_type``."""

    SCHED_CLS = 3
    NETFILTER = 32


class AttachType(IntEnum):
    """``enum bpf_attach_type``."""

    NONE = 0
    NETFILTER = 45
    TCX_INGRESS = 46
    TCX_EGRESS = 47


class Refused(Exception):  # an error is named after what happened
    """The verifier does not accept a program; ``log`` is what it says."""

    def __init__(self, number: int, log: str) -> None:
        super().__init__(os.strerror(number))
        self.number = number
        self.log = log


def _call(command: Command, layout: str, *values: int | bytes) -> int:
    """Call bpf(2) with attributes packed like ``layout`` (of `struct.pack`, native order); return what it returns."""
    return _call_buffer(command, _attributes(layout, *values))


def _attributes(layout: str, *values: int | bytes) -> ctypes.Array[ctypes.c_char]:
    packed = struct.pack("=" + layout, *values)
    return ctypes.create_string_buffer(packed.ljust(_ATTRIBUTES, b"\0"), _ATTRIBUTES)


def _call_buffer(command: Command, attributes: ctypes.Array[ctypes.c_char]) -> int:
    number = _NUMBERS.get(platform.machine())
    if number is None:
        raise BackendUnavailable(f"the ebpf backend does not know bpf(2) on {platform.machine()}; it knows {', '.join(_NUMBERS)}")
    result: int = _libc.syscall(ctypes.c_long(number), ctypes.c_long(command), attributes, ctypes.c_long(len(attributes)))
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"bpf({command.name}): {os.strerror(error)}")
    return result


def _address(buffer: ctypes.Array[ctypes.c_char]) -> int:
    return ctypes.addressof(buffer)


def _buffer(content: bytes) -> ctypes.Array[ctypes.c_char]:
    return ctypes.create_string_buffer(content, max(len(content), 1))


def _name(name: str) -> bytes:
    return name.encode("ascii")[:_NAME].ljust(_NAME + 1, b"\0")


# --- maps ------------------------------------------------------------------------------------------------------------


def create_map(kind: int, *, key: int, value: int, entries: int, flags: int, name: str) -> int:
    """Create a map; return its descriptor."""
    return _call(Command.MAP_CREATE, "IIIIIII16s", kind, key, value, entries, flags, 0, 0, _name(name))


def lookup(descriptor: int, key: bytes, size: int) -> bytes | None:
    """Return the value (``size`` bytes: of all processors, where each has its own), None if there is none."""
    keys, value = _buffer(key), _buffer(bytes(size))
    try:
        _call(Command.MAP_LOOKUP_ELEM, "I4xQQQ", descriptor, _address(keys), _address(value), 0)
    except OSError as error:
        if error.errno == errno.ENOENT:
            return None
        raise
    return value.raw[:size]


def update(descriptor: int, key: bytes, value: bytes) -> None:
    """Write one entry, whether it is there or not."""
    keys, values = _buffer(key), _buffer(value)
    _call(Command.MAP_UPDATE_ELEM, "I4xQQQ", descriptor, _address(keys), _address(values), 0)


def delete(descriptor: int, key: bytes) -> bool:
    """Remove one entry; return whether it was there."""
    keys = _buffer(key)
    try:
        _call(Command.MAP_DELETE_ELEM, "I4xQQQ", descriptor, _address(keys), 0, 0)
    except OSError as error:
        if error.errno == errno.ENOENT:
            return False
        raise
    return True


def update_batch(descriptor: int, keys: Sequence[bytes], values: Sequence[bytes]) -> None:
    """Write many entries with one call."""
    _batch(Command.MAP_UPDATE_BATCH, descriptor, b"".join(keys), b"".join(values), len(keys))


def delete_batch(descriptor: int, keys: Sequence[bytes]) -> None:
    """Remove many entries with one call; those that are not there do not matter."""
    rest = list(keys)
    while rest:
        attributes = _batch_attributes(descriptor, rest_keys := _buffer(b"".join(rest)), None, len(rest))
        try:
            _call_buffer(Command.MAP_DELETE_BATCH, attributes)
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
            done = struct.unpack_from("=I", attributes, 32)[0]
            rest = rest[done + 1 :]
        else:
            return
        del rest_keys


def _batch(command: Command, descriptor: int, keys: bytes, values: bytes, count: int) -> None:
    if count:
        key_buffer, value_buffer = _buffer(keys), _buffer(values)
        _call_buffer(command, _batch_attributes(descriptor, key_buffer, value_buffer, count))


def _batch_attributes(
    descriptor: int, keys: ctypes.Array[ctypes.c_char], values: ctypes.Array[ctypes.c_char] | None, count: int
) -> ctypes.Array[ctypes.c_char]:
    return _attributes("QQQQIIQQ", 0, 0, _address(keys), 0 if values is None else _address(values), count, descriptor, 0, 0)


def keys_of(descriptor: int, size: int) -> Iterator[bytes]:
    """Yield all keys, one call each; an entry that comes or goes meanwhile may be missed or seen twice."""
    following = _buffer(bytes(size))
    previous = 0
    current = _buffer(bytes(size))
    while True:
        try:
            _call(Command.MAP_GET_NEXT_KEY, "I4xQQ", descriptor, previous, _address(following))
        except OSError as error:
            if error.errno == errno.ENOENT:
                return
            raise
        current.raw = following.raw
        previous = _address(current)
        yield current.raw[:size]


def entries_of(descriptor: int, *, key: int, value: int, trie: bool) -> dict[bytes, bytes]:
    """Return all entries of a map whose values are the same for all processors.

    Tries are read one by one: their batches begin again from the start when an entry goes away meanwhile.
    """
    if trie:
        found = {}
        for name in keys_of(descriptor, key):
            content = lookup(descriptor, name, value)
            if content is not None:
                found[name] = content
        return found
    return _read_batches(descriptor, key, value)


def _read_batches(descriptor: int, key: int, value: int, chunk: int = 4096) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    # the kernel keeps a bucket number in the token, whatever the size of the key
    token = _buffer(bytes(max(key, 8)))
    first = True
    while True:
        keys, values = _buffer(bytes(key * chunk)), _buffer(bytes(value * chunk))
        attributes = _attributes(
            "QQQQIIQQ", 0 if first else _address(token), _address(token), _address(keys), _address(values), chunk, descriptor, 0, 0
        )
        last = False
        try:
            _call_buffer(Command.MAP_LOOKUP_BATCH, attributes)
        except OSError as error:
            if error.errno == errno.ENOSPC:  # one bucket alone holds more than a chunk
                chunk *= 4
                continue
            if error.errno != errno.ENOENT:
                raise
            last = True
        count = struct.unpack_from("=I", attributes, 32)[0]
        key_bytes, value_bytes = keys.raw, values.raw
        for at in range(count):
            found[key_bytes[at * key : (at + 1) * key]] = value_bytes[at * value : (at + 1) * value]
        first = False
        if last:
            return found


# --- programs --------------------------------------------------------------------------------------------------------


def load_program(kind: ProgramType, code: bytes, *, name: str, attach: AttachType = AttachType.NONE) -> int:
    """Load bytecode; return its descriptor.

    :raises Refused: the verifier does not accept it
    """
    instructions, license_, log = _buffer(code), _buffer(b"GPL\0"), _buffer(b"")

    def load(level: int, log: ctypes.Array[ctypes.c_char]) -> int:
        return _call(
            Command.PROG_LOAD,
            "IIQQIIQII16sII",
            kind,
            len(code) // 8,
            _address(instructions),
            _address(license_),
            level,
            len(log) if level else 0,
            _address(log) if level else 0,
            0,
            0,
            _name(name),
            0,
            attach,
        )

    try:
        return load(0, log)
    except OSError as refusal:
        if refusal.errno not in {errno.EACCES, errno.EINVAL, errno.E2BIG}:
            raise
        log = _buffer(bytes(1 << 20))
        try:
            return load(1, log)
        except OSError as error:
            raise Refused(error.errno or 0, log.value.decode("utf-8", "replace")) from refusal


@dataclass(frozen=True, slots=True)
class Run:
    """What a test run gave: the program's return value, its duration in nanoseconds (mean), the packet afterwards."""

    value: int
    nanoseconds: int
    packet: bytes


def try_program(descriptor: int, packet: bytes, *, context: bytes = b"", repeat: int = 1) -> Run:
    """Run a loaded program on a packet that begins with its Ethernet header."""
    data, out = _buffer(packet), _buffer(bytes(len(packet) + 256))
    context_buffer = _buffer(context)
    attributes = _attributes(
        "IIIIQQIIIIQQ",
        descriptor,
        0,
        len(packet),
        len(out),
        _address(data),
        _address(out),
        repeat,
        0,
        len(context),
        0,
        _address(context_buffer) if context else 0,
        0,
    )
    _call_buffer(Command.PROG_TEST_RUN, attributes)
    value, size = struct.unpack_from("=I", attributes, 4)[0], struct.unpack_from("=I", attributes, 12)[0]
    return Run(value, struct.unpack_from("=I", attributes, 36)[0], out.raw[:size])


# --- links -----------------------------------------------------------------------------------------------------------


def link_netfilter(program: int, *, family: int, hook: int, priority: int, defragment: bool) -> int:
    """Attach to a hook of netfilter of the calling thread's namespace; ``family`` 4 or 6. Return the link's descriptor."""
    protocol = 2 if family == 4 else 10
    return _call(Command.LINK_CREATE, "IIIIIIiI", program, 0, AttachType.NETFILTER, 0, protocol, hook, priority, int(defragment))


def link_tcx(program: int, ifindex: int, attach: AttachType, *, first: bool = False) -> int:
    """Attach to an interface of the calling thread's namespace, ``first``: before all others; return the link's descriptor."""
    before = 1 << 3
    return _call(Command.LINK_CREATE, "IIII", program, ifindex, attach, before if first else 0)


# --- objects ---------------------------------------------------------------------------------------------------------


def pin(descriptor: int, path: str) -> None:
    """Give an object a name in the BPF file system, which keeps it alive."""
    name = _buffer(os.fsencode(path) + b"\0")
    _call(Command.OBJ_PIN, "QII", _address(name), descriptor, 0)


def open_pinned(path: str) -> int:
    """Return a descriptor of a pinned object."""
    name = _buffer(os.fsencode(path) + b"\0")
    return _call(Command.OBJ_GET, "QII", _address(name), 0, 0)


def _information(descriptor: int, size: int) -> bytes:
    info = _buffer(bytes(size))
    _call(Command.OBJ_GET_INFO_BY_FD, "IIQ", descriptor, size, _address(info))
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


#: ``enum bpf_link_type``.
LINK_NETFILTER: Final = 10
LINK_TCX: Final = 11


def possible_processors() -> int:
    """Return how many values a per-processor map gives for a key."""
    with open("/sys/devices/system/cpu/possible", encoding="ascii") as file:  # noqa: PTH123  # read often, and Path is slower to import
        text = file.read().strip()
    return sum(int(last or first) - int(first) + 1 for first, _, last in (part.partition("-") for part in text.split(",")))
