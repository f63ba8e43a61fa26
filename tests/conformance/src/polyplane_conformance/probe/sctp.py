"""The few SCTP packets a probe needs (RFC 9260), made by hand: many kernels are built without SCTP sockets.

A probe is the first half of the handshake: INIT, answered by INIT ACK (allowed) or ABORT (nobody serves the port). The
identity of whoever answers travels in the INIT ACK's state cookie, a parameter the sender may fill as it likes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

INIT: Final = 1
INIT_ACK: Final = 2
ABORT: Final = 6

_STATE_COOKIE: Final = 7


def _table() -> tuple[int, ...]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F6_3B78 if value & 1 else 0)  # noqa: PLW2901  (a shift register is what it is)
        table.append(value)
    return tuple(table)


_CRC_TABLE: Final = _table()


def crc32c(data: bytes) -> int:
    """Castagnoli's checksum, which conntrack verifies before it accepts an SCTP packet."""
    crc = 0xFFFF_FFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC_TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFF_FFFF


@dataclass(frozen=True, slots=True)
class SctpPacket:
    """A packet with one chunk. ``tag`` is the verification tag, ``initiate_tag`` and ``cookie`` belong to INIT and INIT ACK."""

    source_port: int
    destination_port: int
    tag: int
    chunk: int
    initiate_tag: int = 0
    cookie: bytes = b""

    def encode(self) -> bytes:
        """Return the packet as it goes into an IP packet, checksum included."""
        body = b""
        if self.chunk in {INIT, INIT_ACK}:
            body = struct.pack("!IIHHI", self.initiate_tag, 65535, 1, 1, 1)
        if self.chunk == INIT_ACK:
            body += struct.pack("!HH", _STATE_COOKIE, 4 + len(self.cookie)) + self.cookie
        chunk = struct.pack("!BBH", self.chunk, 0, 4 + len(body)) + body + bytes(-len(body) % 4)
        header = struct.pack("!HHI", self.source_port, self.destination_port, self.tag)
        return header + struct.pack("<I", crc32c(header + bytes(4) + chunk)) + chunk


def decode(data: bytes) -> SctpPacket | None:
    """Read the packet's first chunk; None when it is too short or not one of ours. The kernel's peers here are our own, so the checksum is not verified."""
    if len(data) < 16:
        return None
    source_port, destination_port, tag = struct.unpack_from("!HHI", data)
    chunk, _, length = struct.unpack_from("!BBH", data, 12)
    initiate_tag, cookie = 0, b""
    if chunk in {INIT, INIT_ACK}:
        if len(data) < 32:
            return None
        (initiate_tag,) = struct.unpack_from("!I", data, 16)
        if chunk == INIT_ACK and len(data) >= 36:
            parameter, size = struct.unpack_from("!HH", data, 32)
            cookie = data[36 : 32 + size] if parameter == _STATE_COOKIE and size <= length else b""
    return SctpPacket(source_port, destination_port, tag, chunk, initiate_tag, cookie)
