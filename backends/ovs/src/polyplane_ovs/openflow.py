"""`Link`: an OpenFlow connection of our own, for the little that ``ovs-ofctl`` is too slow or too short-lived for."""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import Final

_VERSION: Final = 6  # OpenFlow 1.5
_HELLO: Final = 0
_ECHO_REQUEST: Final = 2
_ECHO_REPLY: Final = 3
_FLOW_MOD: Final = 14
_HEADER: Final = struct.Struct("!BBHI")
#: cookie, cookie mask, table, command, two timeouts, priority, buffer, port, group, flags, importance; then an empty match
_FLOW_MOD_BODY: Final = struct.Struct("!QQBBHHHIIIHH HH4x")
_DELETE_STRICT: Final = 4
_NONE: Final = 0xFFFF_FFFF
_EMPTY_MATCH: Final = (1, 4)


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

    @property
    def descriptor(self) -> int:
        """What to poll."""
        return self._socket.fileno()

    def close(self) -> None:
        """End the connection."""
        self._socket.close()

    def read(self) -> bool:
        """Answer what the switch asks; False when it has gone."""
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
        return True

    def touch(self, table: int) -> None:
        """Have the switch look through its cached flows, by removing from a table a flow that is not there."""
        body = _FLOW_MOD_BODY.pack(_NONE, (1 << 64) - 1, table, _DELETE_STRICT, 0, 0, 0, _NONE, _NONE, _NONE, 0, 0, *_EMPTY_MATCH)
        with contextlib.suppress(OSError):
            self._socket.sendall(_HEADER.pack(_VERSION, _FLOW_MOD, _HEADER.size + len(body), 2) + body)
