"""`Link`: an OpenFlow connection of our own, for the little that ``ovs-ofctl`` is too slow or too short-lived for.

It is told of packets (`PacketIn`) by flows with the action ``controller`` and our id, and can send some.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

_VERSION: Final = 6  # OpenFlow 1.5
_HELLO: Final = 0
_ECHO_REQUEST: Final = 2
_ECHO_REPLY: Final = 3
_EXPERIMENTER: Final = 4
_SET_CONFIG: Final = 9
_PACKET_IN: Final = 10
_PACKET_OUT: Final = 13
_FLOW_MOD: Final = 14
_HEADER: Final = struct.Struct("!BBHI")
#: cookie, cookie mask, table, command, two timeouts, priority, buffer, port, group, flags, importance; then an empty match
_FLOW_MOD_BODY: Final = struct.Struct("!QQBBHHHIIIHH HH4x")
_DELETE_STRICT: Final = 4
_NONE: Final = 0xFFFF_FFFF
_EMPTY_MATCH: Final = (1, 4)
#: Nicira's extension that says which ``controller(id=…)`` this connection is: experimenter, subtype, id.
_SET_CONTROLLER_ID: Final = struct.Struct("!II6xH")
_NICIRA: Final = (0x2320, 20)
#: flags, how much of a packet to send where a flow does not say; 0, as it is at first, would mean no packets at all
_CONFIG: Final = struct.Struct("!HH")
#: buffer, whole length, reason, table, cookie; then a match
_PACKET_IN_BODY: Final = struct.Struct("!IHBBQ")
#: A match's type and length without padding, and each of its fields: class, field and whether it has a mask, length.
_MATCH: Final = struct.Struct("!HH")
_FIELD: Final = struct.Struct("!HBB")
_IN_PORT: Final = (0x8000, 0)
_WIDE_REGISTERS: Final = 0x8001
_MOST_WIDE_REGISTERS: Final = 8
#: buffer, length of the actions; a match with the port it seems to come from, which is us; the action "output"
_PACKET_OUT_BODY: Final = struct.Struct("!IH2xHHHBBI4xHHIH6x")
_FROM_CONTROLLER: Final = 0xFFFF_FFFD
#: The id of our connection in ``controller(id=…)``: "PP".
CONTROLLER_ID: Final = 0x5050


@dataclass(frozen=True, slots=True)
class PacketIn:
    """A packet that the switch tells us of: the deciding flow's cookie and table, where it came from, and how it begins.

    ``registers`` are 32 bits each; those that are not told are 0.
    """

    cookie: int
    table: int
    port: int
    registers: tuple[int, ...]
    data: bytes


class Link:
    """A connection to a bridge's management socket. It ends when the switch does."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket: Final = connection
        self._buffer = b""

    @classmethod
    def open(cls, path: str) -> Link | None:
        """Connect; None if there is nobody."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(path)
            connection.sendall(_HEADER.pack(_VERSION, _HELLO, _HEADER.size, 1))
        except OSError:
            connection.close()
            return None
        connection.setblocking(False)  # noqa: FBT003 (the standard library's own signature)
        return cls(connection)

    def listen(self) -> None:
        """Ask to be told of packets."""
        config = _CONFIG.pack(0, 0xFFFF)
        identity = _SET_CONTROLLER_ID.pack(*_NICIRA, CONTROLLER_ID)
        self._send(_SET_CONFIG, config)
        self._send(_EXPERIMENTER, identity)

    def emit(self, port: int, frame: bytes) -> None:
        """Send a frame out of a port. It passes no flows, and may get lost if the switch does not read."""
        action = (0, 16, port, 0)
        match = (1, 12, _IN_PORT[0], _IN_PORT[1] << 1, 4, _FROM_CONTROLLER)
        self._send(_PACKET_OUT, _PACKET_OUT_BODY.pack(_NONE, 16, *match, *action) + frame)

    @property
    def descriptor(self) -> int:
        """What to poll."""
        return self._socket.fileno()

    def close(self) -> None:
        """End the connection."""
        self._socket.close()

    def read(self, told: Callable[[PacketIn], None] | None = None) -> bool:
        """Answer what the switch asks, pass on what it tells; False when it has gone."""
        try:
            data = self._socket.recv(65536)
        except BlockingIOError:
            return True
        except OSError:
            return False
        if not data:
            return False
        self._buffer += data
        while len(self._buffer) >= _HEADER.size:
            version, kind, length, serial = _HEADER.unpack_from(self._buffer)
            if length < _HEADER.size:
                return False
            if len(self._buffer) < length:
                break
            body, self._buffer = self._buffer[_HEADER.size : length], self._buffer[length:]
            if kind == _ECHO_REQUEST:
                with contextlib.suppress(OSError):
                    self._socket.sendall(_HEADER.pack(version, _ECHO_REPLY, length, serial) + body)
            elif kind == _PACKET_IN and told is not None:
                told(_packet_in(body))
        return True

    def touch(self, table: int) -> None:
        """Have the switch look through its cached flows, by removing from a table a flow that is not there."""
        body = _FLOW_MOD_BODY.pack(_NONE, (1 << 64) - 1, table, _DELETE_STRICT, 0, 0, 0, _NONE, _NONE, _NONE, 0, 0, *_EMPTY_MATCH)
        self._send(_FLOW_MOD, body)

    def _send(self, kind: int, body: bytes) -> None:
        with contextlib.suppress(OSError):
            self._socket.sendall(_HEADER.pack(_VERSION, kind, _HEADER.size + len(body), 2) + body)


def _packet_in(body: bytes) -> PacketIn:
    _, _, _, table, cookie = _PACKET_IN_BODY.unpack_from(body)
    start = _PACKET_IN_BODY.size
    _, length = _MATCH.unpack_from(body, start)
    port, registers = 0, [0] * (2 * _MOST_WIDE_REGISTERS)
    for kind, field, value in _fields(body[start + _MATCH.size : start + length]):
        if (kind, field) == _IN_PORT:
            port = int.from_bytes(value, "big")
        elif kind == _WIDE_REGISTERS and field < _MOST_WIDE_REGISTERS:
            registers[2 * field : 2 * field + 2] = struct.unpack("!II", value[:8])
    padded = (length + 7) // 8 * 8
    return PacketIn(cookie, table, port, tuple(registers), body[start + padded + 2 :])


def _fields(match: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield class, number and value of each field of a match; a mask follows its value."""
    while len(match) >= _FIELD.size:
        kind, field, length = _FIELD.unpack_from(match)
        yield kind, field >> 1, match[_FIELD.size : _FIELD.size + length]
        match = match[_FIELD.size + length :]
