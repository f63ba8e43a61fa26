"""Echo requests, and what ICMP errors say about the packet that caused them."""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass
from typing import Final

from polyplane_conformance.probe.model import ICMP, ICMPV6

#: "Destination unreachable" codes by which somebody says "I will not", rather than "I cannot" (RFC 792, 1812).
_V4_REFUSALS: Final = {2: "protocol unreachable", 3: "port unreachable", 9: "network prohibited", 10: "host prohibited", 13: "prohibited"}
#: The same in RFC 4443.
_V6_REFUSALS: Final = {1: "prohibited", 4: "port unreachable", 5: "failed policy", 6: "reject route"}

#: What our echo requests begin with, after their header.
_MARK: Final = b"polyplane"
_V4_UNREACHABLE: Final = 3
_V6_UNREACHABLE: Final = 1


@dataclass(frozen=True, slots=True)
class IcmpError:
    """An error message: ``refused`` when it means policy (or a closed port), and of which packet it speaks.

    ``key`` identifies the packet at its sender: the source port of TCP, UDP and SCTP, the identifier of an echo, the bytes 4
    to 8 of anything else (where our raw probes have their token).
    """

    refused: bool
    text: str
    protocol: int
    key: int


@dataclass(frozen=True, slots=True)
class EchoReply:
    """An answer to an echo request, which repeats the request's nonce (None: it was none of ours)."""

    identifier: int
    nonce: int | None


def echo_request(family: int, identifier: int, sequence: int, nonce: int) -> bytes:
    """Return an echo request; the kernel fills in ICMPv6's checksum, since that covers addresses."""
    body = struct.pack("!HH", identifier, sequence) + _MARK + struct.pack("!I", nonce)
    if family == 6:
        return struct.pack("!BBH", 128, 0, 0) + body
    return struct.pack("!BBH", 8, 0, _checksum(struct.pack("!BBH", 8, 0, 0) + body)) + body


def _checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2 + len(data) % 2}H", data + bytes(len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def decode(family: int, data: bytes, sender: str) -> EchoReply | IcmpError | None:
    """Read an ICMP message (IPv4: without its IP header); None for everything that concerns no probe."""
    if len(data) < 8:
        return None
    kind, code = data[0], data[1]
    if kind == (0 if family == 4 else 129):
        payload = data[8:]
        ours = payload.startswith(_MARK) and len(payload) >= len(_MARK) + 4
        return EchoReply(struct.unpack_from("!H", data, 4)[0], struct.unpack_from("!I", payload, len(_MARK))[0] if ours else None)
    if kind != (_V4_UNREACHABLE if family == 4 else _V6_UNREACHABLE):
        return None
    quoted = data[8:]
    if family == 4:
        if len(quoted) < 28:
            return None
        protocol, payload = quoted[9], quoted[(quoted[0] & 15) * 4 :]
    else:
        if len(quoted) < 48:
            return None
        protocol, payload = quoted[6], quoted[40:]
    if protocol in {ICMP, ICMPV6}:
        (key,) = struct.unpack_from("!H", payload, 4)
    elif protocol in {6, 17, 132}:
        (key,) = struct.unpack_from("!H", payload)
    else:
        (key,) = struct.unpack_from("!I", payload, 4)
    refusals = _V4_REFUSALS if family == 4 else _V6_REFUSALS
    text = f"ICMP {refusals.get(code, f'unreachable, code {code},')} from {ipaddress.ip_address(sender.partition('%')[0])}"
    return IcmpError(code in refusals, text, protocol, key)
