"""Keys and values as the program sees them. The structures are declared in ``program/10_types.h``.

Numbers are in the machine's order, except ports and what a trie compares bit by bit.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from polyplane.ir.cidr import Cidr, Family
from polyplane.ir.program import Direction, PortRange
from polyplane_ebpf.maps import LOGS

_V4_MAPPED: Final = bytes(10) + b"\xff\xff"
_SIDES: Final = {Direction.EGRESS: 0, Direction.INGRESS: 1}
_DIRECTIONS: Final = {side: direction for direction, side in _SIDES.items()}
#: Bits of a key in ``policy`` and ``paths`` in front of what a prefix shortens.
_POLICY_BITS: Final = 144
_PATH_BITS: Final = 64
_ENDPOINT: Final = struct.Struct("=QQQQQI4x")
#: Classes of addresses that are in no set.
FALLBACK: Final = {4: 0, 6: 1}


def number_of(digest: str) -> int:
    """Return the number that 16 hex digits stand for; such digests identify stacks and classes."""
    return int(digest, 16)


def address_bytes(cidr: Cidr) -> bytes:
    """16 bytes; IPv4 as ::ffff:a.b.c.d."""
    return cidr.address.to_bytes(16, "big") if cidr.family == Family.IPV6 else _V4_MAPPED + cidr.address.to_bytes(4, "big")


def address_of(content: bytes, family: int, length: int | None = None) -> Cidr:
    """Return what `address_bytes` was made of; ``length`` None: a host."""
    address = content if family == Family.IPV6 else content[12:]
    return Cidr(family, int.from_bytes(address, "big"), len(address) * 8 if length is None else length)


class Scope(NamedTuple):
    """What stands in front of a classified address: whose tables, which family, which copy."""

    direction: Direction
    family: int
    view: int


def _scope_number(direction: Direction, family: int, view: int) -> int:
    return _SIDES[direction] | family << 8 | view << 16


def _scope_of(number: int) -> Scope:
    return Scope(_DIRECTIONS[number & 0xFF], number >> 8 & 0xFF, number >> 16)


def host_key(direction: Direction, cidr: Cidr, view: int) -> bytes:
    """Return the key in ``hosts``."""
    return struct.pack("=I", _scope_number(direction, cidr.family, view)) + address_bytes(cidr)


def read_host_key(key: bytes) -> tuple[Scope, Cidr]:
    """Return what `host_key` was made of."""
    scope = _scope_of(int.from_bytes(key[:4], sys.byteorder))
    return scope, address_of(key[4:], scope.family)


def prefix_key(direction: Direction, cidr: Cidr, view: int) -> bytes:
    """Return the key in ``prefixes``; the scope is compared in whole, and so always counts."""
    length = cidr.length + (96 if cidr.family == Family.IPV4 else 0)
    return struct.pack("=II", 32 + length, _scope_number(direction, cidr.family, view)) + address_bytes(cidr)


def read_prefix_key(key: bytes) -> tuple[Scope, Cidr]:
    """Return what `prefix_key` was made of."""
    length, number = struct.unpack_from("=II", key)
    scope = _scope_of(number)
    return scope, address_of(key[8:], scope.family, length - 32 - (96 if scope.family == Family.IPV4 else 0))


def class_value(class_id: int) -> bytes:
    """Return the value in ``hosts`` and ``prefixes``."""
    return struct.pack("=Q", class_id)


def read_class(value: bytes) -> int:
    """Return what `class_value` was made of."""
    return int.from_bytes(value, sys.byteorder)


def owner_key(cidr: Cidr) -> bytes:
    """Return the key in ``owners`` and ``node``."""
    return struct.pack("=I", cidr.family) + address_bytes(cidr)


def read_owner_key(key: bytes) -> Cidr:
    """Return what `owner_key` was made of."""
    return address_of(key[4:], int.from_bytes(key[:4], sys.byteorder))


def policy_key(stack: int, class_id: int, protocol: int | None = None, port: int = 0, port_bits: int = 0) -> bytes:
    """Return the key in ``policy``; protocol None is everything no other row speaks of."""
    if protocol is None:
        return struct.pack("=IQQBBH", 128, stack, class_id, 0, 0, 0)
    return struct.pack("=IQQBB", _POLICY_BITS + port_bits, stack, class_id, protocol, 0) + port.to_bytes(2, "big")


def read_policy_key(key: bytes) -> tuple[int, int, int | None, PortRange]:
    """Return stack, class, protocol (None: everything no other row speaks of) and ports of a key in ``policy``."""
    length, stack, class_id, protocol = struct.unpack_from("=IQQB", key)
    if length < _POLICY_BITS:
        return stack, class_id, None, _range(0, 0)
    return stack, class_id, protocol, _range(int.from_bytes(key[22:24], "big"), length - _POLICY_BITS)


def policy_value(*, allow: bool, rule: int, path: int) -> bytes:
    """Return the value in ``policy``; path 0: verdict and rule say it all."""
    return struct.pack("=QIB3x", path, rule, allow)


def read_policy_value(value: bytes) -> tuple[int, int, bool]:
    """Return path, rule and whether it allows."""
    path, rule, allow = struct.unpack("=QIB3x", value)
    return path, rule, bool(allow)


def path_key(path: int, number: int, bits: int) -> bytes:
    """Return the key in ``paths``."""
    return struct.pack("=IQ", _PATH_BITS + bits, path) + number.to_bytes(2, "big") + bytes(2)


def read_path_key(key: bytes) -> tuple[int, PortRange]:
    """Return path and numbers of a key in ``paths``."""
    length, path = struct.unpack_from("=IQ", key)
    return path, _range(int.from_bytes(key[12:14], "big"), length - _PATH_BITS)


def path_value(*, allow: bool, rule: int, logs: Sequence[int]) -> bytes:
    """Return the value in ``paths``: what ends the path, and the log records on the way, of which there is room for `LOGS`."""
    kept = list(logs[:LOGS])
    return struct.pack(f"=IBB2x{LOGS}I", rule, allow, len(kept), *kept, *[0] * (LOGS - len(kept)))


def read_path_value(value: bytes) -> tuple[int, bool, tuple[int, ...]]:
    """Return rule, whether it allows, and what is logged on the way."""
    rule, allow, count, *logs = struct.unpack(f"=IBB2x{LOGS}I", value)
    return rule, bool(allow), tuple(logs[:count])


def _range(first: int, bits: int) -> PortRange:
    return PortRange(first, first + (1 << (16 - bits)) - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointValue:
    """What ``interfaces`` and ``owners`` say about an endpoint. Stack 0: not subject; toward itself: always allowed."""

    id: int
    egress: int = 0
    ingress: int = 0
    self_egress: int = 0
    self_ingress: int = 0
    view: int = 0

    def pack(self) -> bytes:
        """Return the value."""
        return _ENDPOINT.pack(self.id, self.egress, self.ingress, self.self_egress, self.self_ingress, self.view)

    @classmethod
    def unpack(cls, content: bytes) -> EndpointValue:
        """Read a value."""
        number, egress, ingress, self_egress, self_ingress, view = _ENDPOINT.unpack(content)
        return cls(id=number, egress=egress, ingress=ingress, self_egress=self_egress, self_ingress=self_ingress, view=view)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the map ``config`` holds besides the generation: ``events`` is per second and processor."""

    keep: bool = False
    reject: bool = False
    events: int = 100

    def pack(self, generation: int) -> bytes:
        """Return the value."""
        return struct.pack("=QIIII", generation, self.keep, self.reject, self.events, 0)


def unpack_config(content: bytes) -> tuple[int, Settings]:
    """Return the generation and the settings."""
    generation, keep, reject, events, _ = struct.unpack("=QIIII", content)
    return generation, Settings(keep=bool(keep), reject=bool(reject), events=events)
