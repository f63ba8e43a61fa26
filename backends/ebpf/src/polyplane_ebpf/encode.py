"""Keys and values as the program sees them. The structures are declared in ``program/10_types.h``.

Numbers are in the machine's order, except ports and what a trie compares bit by bit.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from polyplane.ir.cidr import Cidr, Family
from polyplane.ir.program import Direction
from polyplane_ebpf.maps import LOGS

_V4_MAPPED: Final = bytes(10) + b"\xff\xff"
_SIDES: Final = {Direction.EGRESS: 0, Direction.INGRESS: 1}
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


def scope(direction: Direction, family: int, view: int) -> int:
    """Return the number in front of a classified address: whose tables, which family, which copy."""
    return _SIDES[direction] | family << 8 | view << 16


def host_key(direction: Direction, cidr: Cidr, view: int) -> bytes:
    """Return the key in ``hosts``."""
    return struct.pack("=I", scope(direction, cidr.family, view)) + address_bytes(cidr)


def prefix_key(direction: Direction, cidr: Cidr, view: int) -> bytes:
    """Return the key in ``prefixes``; the scope is compared in whole, and so always counts."""
    length = cidr.length + (96 if cidr.family == Family.IPV4 else 0)
    return struct.pack("=II", 32 + length, scope(direction, cidr.family, view)) + address_bytes(cidr)


def class_value(class_id: int) -> bytes:
    """Return the value in ``hosts`` and ``prefixes``."""
    return struct.pack("=Q", class_id)


def owner_key(cidr: Cidr) -> bytes:
    """Return the key in ``owners`` and ``node``."""
    return struct.pack("=I", cidr.family) + address_bytes(cidr)


def policy_key(stack: int, class_id: int, protocol: int | None = None, port: int = 0, port_bits: int = 0) -> bytes:
    """Return the key in ``policy``; protocol None is everything no other row speaks of."""
    if protocol is None:
        return struct.pack("=IQQBBH", 128, stack, class_id, 0, 0, 0)
    return struct.pack("=IQQBB", 144 + port_bits, stack, class_id, protocol, 0) + port.to_bytes(2, "big")


def policy_value(*, allow: bool, rule: int, path: int) -> bytes:
    """Return the value in ``policy``; path 0: verdict and rule say it all."""
    return struct.pack("=QIB3x", path, rule, allow)


def path_key(path: int, number: int, bits: int) -> bytes:
    """Return the key in ``paths``."""
    return struct.pack("=IQ", 64 + bits, path) + number.to_bytes(2, "big") + bytes(2)


def path_value(*, allow: bool, rule: int, logs: Sequence[int]) -> bytes:
    """Return the value in ``paths``: what ends the path, and the log records on the way, of which there is room for `LOGS`."""
    kept = list(logs[:LOGS])
    return struct.pack(f"=IBB2x{LOGS}I", rule, allow, len(kept), *kept, *[0] * (LOGS - len(kept)))


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointValue:
    """What ``interfaces`` and ``owners`` say about an endpoint. Stack 0: not subject; toward itself: always allowed."""

    id: int
    egress: int = 0
    ingress: int = 0
    self_egress: int = 0
    self_ingress: int = 0
    view: int = 0
    ifindex: int = 0

    def pack(self) -> bytes:
        """Return the value."""
        return struct.pack("=QQQQQII", self.id, self.egress, self.ingress, self.self_egress, self.self_ingress, self.view, self.ifindex)

    @classmethod
    def unpack(cls, content: bytes) -> EndpointValue:
        """Read a value."""
        number, egress, ingress, self_egress, self_ingress, view, ifindex = struct.unpack("=QQQQQII", content)
        return cls(
            id=number,
            egress=egress,
            ingress=ingress,
            self_egress=self_egress,
            self_ingress=self_ingress,
            view=view,
            ifindex=ifindex,
        )


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
