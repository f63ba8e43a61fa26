"""`refusal`: the frame that tells a sender its packet was refused. Pure.

TCP is reset (RFC 9293, section 3.5.2); anything else is told "communication administratively prohibited" (RFC 1812, section 5.2.7.1;
RFC 4443, section 3.1). No error is sent about an error, nor to anybody but a single station (RFC 1122, section 3.2.2; RFC 4443,
section 2.4).
"""

from __future__ import annotations

import struct
from typing import Final

_ETHERNET: Final = struct.Struct("!6s6sH")
_IPV4, _IPV6 = 0x0800, 0x86DD
_TCP, _ICMP, _ICMPV6 = 6, 1, 58
_FIN, _SYN, _RST, _ACK = 1, 2, 4, 16
#: ICMP types that are errors themselves.
_ERRORS: Final = frozenset({3, 4, 5, 11, 12})
_FIRST_INFORMATIONAL: Final = 128
_LATER_FRAGMENT: Final = 0x1FFF
_FRAGMENT_HEADER: Final = 44
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
    parts = _ipv4(packet) if kind == _IPV4 else _ipv6(packet) if kind == _IPV6 else None
    if parts is None:
        return None
    source, destination, protocol, payload, length = parts
    if protocol == _TCP:
        segment = _reset(payload, length)
        if segment is None:
            return None
        answer = _with_checksum(segment, 16, _pseudo(destination, source, _TCP, len(segment)))
        said = _TCP
    else:
        said, number, code = _PROHIBITED[kind]
        if protocol == said and (not payload or _is_error(kind, payload[0])):
            return None
        message = struct.pack("!BBHI", number, code, 0, 0) + packet
        answer = _with_checksum(message, 2, _pseudo(destination, source, said, len(message)) if kind == _IPV6 else b"")
    return _ETHERNET.pack(sender, target, kind) + _header(kind, destination, source, said, len(answer)) + answer


_Parts = tuple[bytes, bytes, int, bytes, int]


def _ipv4(packet: bytes) -> _Parts | None:
    """Return source, destination, protocol, payload as far as it is there, and how long it is in all."""
    if len(packet) < 20 or packet[0] >> 4 != 4:
        return None
    total, fragment = struct.unpack_from("!H2xH", packet, 2)
    header = (packet[0] & 15) * 4
    source, destination = packet[12:16], packet[16:20]
    if fragment & _LATER_FRAGMENT or header < 20 or total < header:
        return None
    if any(address[0] in {0, 127} or address[0] >= 224 for address in (source, destination)):
        return None
    return source, destination, packet[9], packet[header:total], total - header


def _ipv6(packet: bytes) -> _Parts | None:
    if len(packet) < 40 or packet[0] >> 4 != 6 or packet[6] == _FRAGMENT_HEADER:
        return None
    source, destination = packet[8:24], packet[24:40]
    if any(address[0] == 0xFF or not any(address) for address in (source, destination)):
        return None
    (length,) = struct.unpack_from("!H", packet, 4)
    return source, destination, packet[6], packet[40 : 40 + length], length


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
