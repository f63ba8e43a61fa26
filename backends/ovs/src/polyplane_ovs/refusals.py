"""`refusal`: the frame that tells a sender its packet was refused. Pure.

TCP is reset (RFC 9293, section 3.5.2); anything else is told "communication administratively prohibited" (RFC 1812, section 5.2.7.1;
RFC 4443, section 3.1). No error is sent about an error, nor to anybody but a single station (RFC 1122, section 3.2.2; RFC 4443,
section 2.4).
"""

from __future__ import annotations

import struct
from typing import Final

from polyplane.backend_kit.packets import read_headers

_ETHERNET: Final = struct.Struct("!6s6sH")
_IPV4, _IPV6 = 0x0800, 0x86DD
_KINDS: Final = {4: _IPV4, 6: _IPV6}
_TCP, _ICMP, _ICMPV6 = 6, 1, 58
_FIN, _SYN, _RST, _ACK = 1, 2, 4, 16
#: ICMP types that are errors themselves.
_ERRORS: Final = frozenset({3, 4, 5, 11, 12})
_FIRST_INFORMATIONAL: Final = 128
_HOPS: Final = 64
#: Type and code of "administratively prohibited".
_PROHIBITED: Final = {_IPV4: (_ICMP, 3, 13), _IPV6: (_ICMPV6, 1, 1)}


def refusal(frame: bytes) -> bytes | None:
    """Return the frame that goes back to where this one came from, None where there is nothing to say or nobody to say it to.

    Of the frame the beginning is enough: its headers, and what an error shall quote.
    """
    if len(frame) < _ETHERNET.size:
        return None
    target, sender, kind = _ETHERNET.unpack_from(frame)
    packet = frame[_ETHERNET.size :]
    headers = read_headers(packet)
    if headers is None or _KINDS[headers.source.family] != kind or headers.later_fragment or headers.length < 0:
        return None
    source, destination = (end.address.to_bytes(end.bits // 8, "big") for end in (headers.source, headers.destination))
    if not (_is_one_station(kind, source) and _is_one_station(kind, destination)):
        return None
    payload = headers.payload[: headers.length]
    if headers.protocol == _TCP:
        segment = _reset(payload, headers.length)
        if segment is None:
            return None
        answer = _with_checksum(segment, 16, _pseudo(destination, source, _TCP, len(segment)))
        said = _TCP
    else:
        said, number, code = _PROHIBITED[kind]
        if headers.protocol == said and (not payload or _is_error(kind, payload[0])):
            return None
        message = struct.pack("!BBHI", number, code, 0, 0) + packet
        answer = _with_checksum(message, 2, _pseudo(destination, source, said, len(message)) if kind == _IPV6 else b"")
    return _ETHERNET.pack(sender, target, kind) + _header(kind, destination, source, said, len(answer)) + answer


def _is_one_station(kind: int, address: bytes) -> bool:
    if kind == _IPV6:
        return address[0] != 0xFF and any(address)
    return address[0] not in {0, 127} and address[0] < 224


def _is_error(kind: int, number: int) -> bool:
    return number in _ERRORS if kind == _IPV4 else number < _FIRST_INFORMATIONAL


def _reset(segment: bytes, length: int) -> bytes | None:
    if len(segment) < 20:
        return None
    source, destination, sequence, acknowledged, offset, flags = struct.unpack_from("!HHIIBB", segment)
    if flags & _RST:
        return None
    if flags & _ACK:
        numbers, answer = (acknowledged, 0), _RST
    else:
        taken = length - (offset >> 4) * 4 + bool(flags & _SYN) + bool(flags & _FIN)
        numbers, answer = (0, (sequence + taken) & 0xFFFF_FFFF), _RST | _ACK
    return struct.pack("!HHIIBBHHH", destination, source, *numbers, 5 << 4, answer, 0, 0, 0)


def _header(kind: int, source: bytes, destination: bytes, protocol: int, length: int) -> bytes:
    if kind == _IPV6:
        return struct.pack("!IHBB", 6 << 28, length, protocol, _HOPS) + source + destination
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + length, 0, 0x4000, _HOPS, protocol, 0) + source + destination
    return _with_checksum(header, 10, b"")


def _pseudo(source: bytes, destination: bytes, protocol: int, length: int) -> bytes:
    """Return what a checksum covers besides the message itself; zeros between do not count."""
    return source + destination + struct.pack("!II", length, protocol)


def _with_checksum(message: bytes, at: int, pseudo: bytes) -> bytes:
    data = pseudo + message
    total = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return message[:at] + struct.pack("!H", total ^ 0xFFFF) + message[at + 2 :]
