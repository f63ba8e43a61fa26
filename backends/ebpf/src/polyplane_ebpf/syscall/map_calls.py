"""Entries of maps, one by one and in batches."""

from __future__ import annotations

import ctypes
import errno
import struct
from collections.abc import Iterator, Sequence

from polyplane_ebpf.syscall.call import Command, address, attributes, bpf, bpf_buffer, buffer, packed_name


def create_map(kind: int, *, key: int, value: int, entries: int, flags: int, name: str) -> int:
    """Create a map; return its descriptor."""
    return bpf(Command.MAP_CREATE, "IIIIIII16s", kind, key, value, entries, flags, 0, 0, packed_name(name))


def lookup(descriptor: int, key: bytes, size: int) -> bytes | None:
    """Return the value (``size`` bytes: of all processors, where each has its own), None if there is none."""
    keys, value = buffer(key), buffer(bytes(size))
    try:
        bpf(Command.MAP_LOOKUP_ELEM, "I4xQQQ", descriptor, address(keys), address(value), 0)
    except OSError as error:
        if error.errno == errno.ENOENT:
            return None
        raise
    return value.raw[:size]


def update(descriptor: int, key: bytes, value: bytes) -> None:
    """Write one entry, whether it is there or not."""
    keys, values = buffer(key), buffer(value)
    bpf(Command.MAP_UPDATE_ELEM, "I4xQQQ", descriptor, address(keys), address(values), 0)


def delete(descriptor: int, key: bytes) -> bool:
    """Remove one entry; return whether it was there."""
    keys = buffer(key)
    try:
        bpf(Command.MAP_DELETE_ELEM, "I4xQQQ", descriptor, address(keys), 0, 0)
    except OSError as error:
        if error.errno == errno.ENOENT:
            return False
        raise
    return True


def update_batch(descriptor: int, keys: Sequence[bytes], values: Sequence[bytes]) -> None:
    """Write many entries with one call."""
    if keys:
        key_buffer, value_buffer = buffer(b"".join(keys)), buffer(b"".join(values))
        bpf_buffer(Command.MAP_UPDATE_BATCH, _batch(descriptor, key_buffer, value_buffer, len(keys)))


def delete_batch(descriptor: int, keys: Sequence[bytes]) -> None:
    """Remove many entries with one call; those that are not there do not matter."""
    rest = list(keys)
    while rest:
        key_buffer = buffer(b"".join(rest))
        packed = _batch(descriptor, key_buffer, None, len(rest))
        try:
            bpf_buffer(Command.MAP_DELETE_BATCH, packed)
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
            rest = rest[_count(packed) + 1 :]
        else:
            return


_Buffer = ctypes.Array[ctypes.c_char]


def _batch(descriptor: int, keys: _Buffer, values: _Buffer | None, count: int, *, begin: int = 0, token: int = 0) -> _Buffer:
    """Return the attributes of a batch; ``begin`` and ``token``: where the token is that a read goes on from, and where to put the next."""
    return attributes("QQQQIIQQ", begin, token, address(keys), 0 if values is None else address(values), count, descriptor, 0, 0)


def _count(packed: _Buffer) -> int:
    """Return how many entries the kernel has come to."""
    count: int = struct.unpack_from("=I", packed, 32)[0]
    return count


def keys_of(descriptor: int, size: int) -> Iterator[bytes]:
    """Yield all keys, one call each; an entry that comes or goes meanwhile may be missed or seen twice."""
    following = buffer(bytes(size))
    previous = 0
    current = buffer(bytes(size))
    while True:
        try:
            bpf(Command.MAP_GET_NEXT_KEY, "I4xQQ", descriptor, previous, address(following))
        except OSError as error:
            if error.errno == errno.ENOENT:
                return
            raise
        current.raw = following.raw
        previous = address(current)
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
    return {
        keys[at * key : (at + 1) * key]: values[at * value : (at + 1) * value]
        for keys, values, count in batches_of(descriptor, key, value)
        for at in range(count)
    }


def batches_of(descriptor: int, key: int, value: int, chunk: int = 4096) -> Iterator[tuple[bytes, bytes, int]]:
    """Yield keys, values and their number, many at a time; ``key`` and ``value`` are sizes. Not for tries."""
    # the kernel keeps a bucket number in the token, whatever the size of the key
    token = buffer(bytes(max(key, 8)))
    first, last = True, False
    while not last:
        keys, values = buffer(bytes(key * chunk)), buffer(bytes(value * chunk))
        packed = _batch(descriptor, keys, values, chunk, begin=0 if first else address(token), token=address(token))
        try:
            bpf_buffer(Command.MAP_LOOKUP_BATCH, packed)
        except OSError as error:
            if error.errno == errno.ENOSPC:  # one bucket alone holds more than a chunk
                chunk *= 4
                continue
            if error.errno != errno.ENOENT:
                raise
            last = True
        first = False
        yield keys.raw, values.raw, _count(packed)
