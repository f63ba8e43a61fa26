"""`read_headers`: what an IP packet says in its headers, for backends that are told of packets. Takes whatever comes."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from polyplane.ir.cidr import BITS, Cidr, Family
from polyplane.ir.program import ICMP, ICMPV6, PROTOCOLS_WITH_PORTS, IcmpType

#: IPv6 extension headers that only lead to the next header (RFC 8200, RFC 4302): hop-by-hop, routing, authentication, destination options.
_EXTENSIONS: Final = frozenset({0, 43, 51, 60})
_AUTHENTICATION: Final = 51
_FRAGMENT: Final = 44


@dataclass(frozen=True, slots=True, kw_only=True)
class Headers:
    """Where a packet comes from and goes to, and what follows its last header.

    ``protocol`` and ``payload`` are those behind IPv6's extension headers, as far as these are there. ``payload`` is what is there of
    it, nothing for a ``later_fragment``; ``length`` is how many bytes the packet says that it has, whether they are there or not.
    """

    source: Cidr
    destination: Cidr
    protocol: int
    payload: bytes
    length: int
    later_fragment: bool = False

    @property
    def ports(self) -> tuple[int, int]:
        """Source and destination port, 0 where the protocol has none or they are not there."""
        if self.protocol not in PROTOCOLS_WITH_PORTS or len(self.payload) < 4:
            return 0, 0
        return int.from_bytes(self.payload[:2], "big"), int.from_bytes(self.payload[2:4], "big")

    @property
    def icmp(self) -> IcmpType | None:
        """ICMP type and code, None where the protocol has none or they are not there."""
        return IcmpType(self.payload[0], self.payload[1]) if self.protocol in (ICMP, ICMPV6) and len(self.payload) >= 2 else None


def read_headers(packet: bytes) -> Headers | None:
    """Return what a packet's headers say, None if it is not IP or too short for its addresses; of a packet the beginning is enough."""
    version = packet[0] >> 4 if packet else 0
    if version == Family.IPV4 and len(packet) >= 20 and (size := (packet[0] & 15) * 4) >= 20:
        total, fragment = struct.unpack_from(">H2xH", packet, 2)
        later = bool(fragment & 0x1FFF)
        return Headers(
            source=_host(version, packet[12:16]),
            destination=_host(version, packet[16:20]),
            protocol=packet[9],
            payload=b"" if later else packet[size:],
            length=total - size,
            later_fragment=later,
        )
    if version == Family.IPV6 and len(packet) >= 40:
        protocol, at, later = _last_header(packet)
        return Headers(
            source=_host(version, packet[8:24]),
            destination=_host(version, packet[24:40]),
            protocol=protocol,
            payload=b"" if later else packet[at:],
            length=40 + int.from_bytes(packet[4:6], "big") - at,
            later_fragment=later,
        )
    return None


def _last_header(packet: bytes) -> tuple[int, int, bool]:
    """Follow IPv6's extension headers as far as they are there: protocol, where it begins, whether this is a later fragment."""
    protocol, at = packet[6], 40
    while len(packet) >= at + 8:
        if protocol == _FRAGMENT:
            later = bool(int.from_bytes(packet[at + 2 : at + 4], "big") & 0xFFF8)
            protocol, at = packet[at], at + 8
            if later:
                return protocol, at, True
        elif protocol in _EXTENSIONS:
            size = (packet[at + 1] + 2) * 4 if protocol == _AUTHENTICATION else (packet[at + 1] + 1) * 8
            protocol, at = packet[at], at + size
        else:
            break
    return protocol, at, False


def _host(version: int, address: bytes) -> Cidr:
    return Cidr(version, int.from_bytes(address, "big"), BITS[Family(version)])
