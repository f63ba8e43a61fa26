"""Who answers: TCP servers that name themselves and echo, UDP servers that answer with their name.

Both can also send of their own accord (`PUSH`): some dataplanes cut a connection only until the server speaks next.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
from collections.abc import Callable

from polyplane_conformance.probe import wire
from polyplane_conformance.probe.loop import Loop
from polyplane_conformance.probe.model import SCTP, TCP, UDP
from polyplane_conformance.probe.place import Place, answer_from, ask_for_destination

#: A push ends by itself after so many packets, should its client be gone without a word.
_LONGEST_PUSH = 20_000


class TcpServer:
    """Accepts, says who it is in one line, then echoes; a first line ``push <milliseconds>`` makes it send instead."""

    def __init__(self, place: Place, family: int, port: int, identity: str) -> None:
        self._place = place
        self._banner = identity.encode() + b"\n"
        self._connections: set[_Connection] = set()
        self._socket = place.open(family, socket.SOCK_STREAM)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == 6:
                self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            self._socket.bind(("", port))
            self._socket.listen(4096)
        except OSError:
            self._socket.close()
            raise
        place.loop.watch(self._socket.fileno(), self._accept)
        place.closers[self] = self.close

    def _accept(self, _events: int) -> None:
        with contextlib.suppress(OSError):  # EAGAIN: none left; ECONNABORTED: gone again before we looked
            for _ in range(64):
                connection, _ = self._socket.accept()
                connection.setblocking(False)  # noqa: FBT003  (the socket module has it so)
                _Connection(self._place.loop, connection, self._banner, self._connections)

    def close(self) -> None:
        """Stop listening and drop all connections."""
        self._place.closers.pop(self, None)
        self._place.loop.forget(self._socket.fileno())
        self._socket.close()
        for connection in list(self._connections):
            connection.close()


class _Connection:
    def __init__(self, loop: Loop, sock: socket.socket, banner: bytes, registry: set[_Connection]) -> None:
        self._loop = loop
        self._socket = sock
        self._registry = registry
        self._first = True
        self._stop_pushing: Callable[[], None] = lambda: None
        registry.add(self)
        loop.watch(sock.fileno(), self._ready)
        self._send(banner)

    def _send(self, data: bytes) -> None:
        with contextlib.suppress(OSError):  # a reset is noticed when reading, a full buffer means that nobody reads
            self._socket.send(data)

    def _ready(self, events: int) -> None:
        try:
            data = self._socket.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data or events & select.EPOLLERR:
            self.close()
            return
        if self._first and data.startswith(b"push "):
            interval = int(data[5 : data.index(b"\n")]) / 1000
            self._stop_pushing = push(self._loop, interval, lambda number: self._send(struct.pack("!Q", number)))
        else:
            self._send(data)
        self._first = False

    def close(self) -> None:
        self._stop_pushing()
        self._registry.discard(self)
        self._loop.forget(self._socket.fileno())
        self._socket.close()


class UdpServer:
    """Answers every datagram with its name, from the address that was asked."""

    def __init__(self, place: Place, family: int, port: int, identity: str) -> None:
        self._place = place
        self._identity = identity
        self._pushes: dict[object, Callable[[], None]] = {}
        self._socket = place.open(family, socket.SOCK_DGRAM)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            if family == 6:
                self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            ask_for_destination(self._socket, family)
            self._socket.bind(("", port))
        except OSError:
            self._socket.close()
            raise
        place.loop.watch(self._socket.fileno(), self._read)
        place.closers[self] = self.close

    def _read(self, _events: int) -> None:
        with contextlib.suppress(BlockingIOError):
            for _ in range(64):
                try:
                    data, ancillary, _, sender = self._socket.recvmsg(2048, 256)
                except BlockingIOError:
                    raise
                except OSError:  # an ICMP error about an earlier answer
                    continue
                message = wire.parse_datagram(data)
                if message is None:
                    continue
                kind, number, _ = message
                origin = answer_from(ancillary)

                def reply(token: int, *, origin: list[tuple[int, int, bytes]] = origin, sender: tuple[str, int] = sender) -> None:
                    with contextlib.suppress(OSError):  # a lost answer; the client asks again
                        self._socket.sendmsg([wire.datagram(wire.ANSWER, token, self._identity)], origin, 0, sender)

                if kind == wire.ASK:
                    reply(number)
                elif kind == wire.PUSH:
                    self._pushes.pop(sender, lambda: None)()
                    self._pushes[sender] = push(self._place.loop, number / 1000, reply)
                elif kind == wire.STOP:
                    self._pushes.pop(sender, lambda: None)()

    def close(self) -> None:
        """Stop answering."""
        self._place.closers.pop(self, None)
        for stop in self._pushes.values():
            stop()
        self._place.loop.forget(self._socket.fileno())
        self._socket.close()


def push(loop: Loop, interval: float, send: Callable[[int], None]) -> Callable[[], None]:
    """Call ``send`` with 0, 1, 2 … every ``interval`` seconds; return what stops it."""
    stopped = False
    number = 0

    def tick() -> None:
        nonlocal number
        if stopped or number > _LONGEST_PUSH:
            return
        send(number)
        number += 1
        loop.later(interval, tick)

    def stop() -> None:
        nonlocal stopped
        stopped = True

    tick()
    return stop


def serve(place: Place, identity: str, ports: list[tuple[int, int]]) -> None:
    """Answer in a place as ``identity``: ports as (protocol number, port), port 0 for protocols without ports.

    :raises OSError: when a port is taken
    """
    for protocol, port in ports:
        for family in (4, 6):
            if protocol == TCP:
                TcpServer(place, family, port, identity)
            elif protocol == UDP:
                UdpServer(place, family, port, identity)
            else:
                place.raw(protocol, family)
        if protocol not in {TCP, UDP}:
            place.served[protocol, port if protocol == SCTP else 0] = identity
