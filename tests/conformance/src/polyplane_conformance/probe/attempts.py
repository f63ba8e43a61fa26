"""One probe's packets: open, ask again, close. Each protocol has its way; all tell one `Answer` or stay silent.

Every attempt uses a source port or identifier of its own (`polyplane_conformance.probe.numbers`), so that conntrack never takes
a new question for part of an old, established conversation; and a nonce, which a late answer to another question lacks.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import select
import socket
import struct
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Final

from polyplane_conformance.probe import icmp, sctp, wire
from polyplane_conformance.probe.model import ICMP, ICMPV6, SCTP, TCP, UDP, Outcome
from polyplane_conformance.probe.place import Answer, Place, Waiting
from polyplane_conformance.probe.wire import Order

Report = Callable[[Answer], None]

#: Closing sends a reset: neither side keeps a TIME_WAIT, conntrack forgets the connection within seconds.
RESET_ON_CLOSE: Final = struct.pack("@ii", 1, 0)

#: A local firewall dropped our packet on its way out, or a buffer was full: the same as a packet lost on the way.
_LOST: Final = {errno.EPERM, errno.ENOBUFS, errno.EAGAIN}


class Attempt(ABC):
    """One probe on the wire. ``report`` may be called more than once; the first call counts."""

    def __init__(self, place: Place, order: Order, report: Report) -> None:
        self.place = place
        self.order = order
        self._report = report
        self._answered = False

    def report(self, answer: Answer) -> None:
        """Pass an answer on."""
        self._answered = True
        self._report(answer)

    @abstractmethod
    def send(self) -> None:
        """Ask, or ask again. Failures are reported, never raised."""

    @abstractmethod
    def close(self) -> None:
        """Release everything."""

    def failed(self, error: OSError) -> None:
        """Report what the kernel says about a socket: lost, refused by somebody, or broken."""
        if error.errno in _LOST:
            return
        # the errno alone cannot tell "prohibited" from "no route": both are EHOSTUNREACH; the ICMP message can
        with contextlib.suppress(OSError):
            self.place.read_errors(self.order.family)
        if self._answered:
            return
        if error.errno in {errno.ECONNREFUSED, errno.ECONNRESET}:
            self.report(Answer(Outcome.REJECTED, "", "TCP reset" if self.order.protocol == TCP else "refused"))
        else:
            self.report(Answer(Outcome.BROKEN, "", os.strerror(error.errno) if error.errno else str(error)))


class UdpAttempt(Attempt):
    """One connected socket; every `send` is a datagram from the same port."""

    def __init__(self, place: Place, order: Order, report: Report) -> None:
        super().__init__(place, order, report)
        self._socket: socket.socket | None = None
        self._port = 0
        self._token = random.getrandbits(32)

    def send(self) -> None:
        """Send a datagram."""
        try:
            sock = self._socket or self._open()
            sock.send(wire.datagram(wire.ASK, self._token))
        except OSError as error:
            self.failed(error)

    def _open(self) -> socket.socket:
        sock = self._socket = self.place.open(self.order.family, socket.SOCK_DGRAM)
        self._port = bind(self.place, sock, self.order)
        sock.connect((self.order.address, self.order.port))
        self.place.expected[UDP, self.order.family, self._port] = Waiting(self.report, self._token)
        self.place.loop.watch(sock.fileno(), self._ready)
        return sock

    def _ready(self, _events: int) -> None:
        assert self._socket is not None
        try:
            message = wire.parse_datagram(self._socket.recv(2048))
        except BlockingIOError:
            return
        except OSError as error:
            self.failed(error)
            return
        if message is not None and message[:2] == (wire.ANSWER, self._token):
            self.report(Answer(Outcome.ALLOWED, message[2]))

    def close(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            self.place.expected.pop((UDP, self.order.family, self._port), None)
            self.place.loop.forget(self._socket.fileno())
            self._socket.close()
            self._socket = None


class TcpAttempt(Attempt):
    """Each `send` dials anew, since the kernel repeats a lost SYN only after a second; whichever gets the banner first counts."""

    def __init__(self, place: Place, order: Order, report: Report) -> None:
        super().__init__(place, order, report)
        self._dials: dict[int, _Dial] = {}

    def send(self) -> None:
        """Dial once more."""
        if self.order.source_port:
            self.close()  # the port can be in use only once
        try:
            dial = _Dial(self)
            self._dials[dial.descriptor] = dial
            dial.connect()
        except OSError as error:
            self.failed(error)

    def close(self) -> None:
        """Reset all connections."""
        for dial in self._dials.values():
            dial.close()
        self._dials.clear()


class _Dial:
    """One connection of a `TcpAttempt`."""

    __slots__ = ("_attempt", "_banner", "_connected", "_port", "_socket", "descriptor")

    def __init__(self, attempt: TcpAttempt) -> None:
        self._attempt = attempt
        self._connected = False
        self._banner = b""
        self._port = 0
        self._socket = attempt.place.open(attempt.order.family, socket.SOCK_STREAM)
        self.descriptor = self._socket.fileno()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)

    def connect(self) -> None:
        """Send the SYN.

        :raises OSError: no route, no address
        """
        order, place = self._attempt.order, self._attempt.place
        place.loop.watch(self.descriptor, self._ready, select.EPOLLOUT)
        self._port = bind(place, self._socket, order)
        error = self._socket.connect_ex((order.address, order.port))
        if error not in {0, errno.EINPROGRESS}:
            raise OSError(error, os.strerror(error))
        # the connection itself is the nonce: its sequence numbers are the kernel's
        place.expected[TCP, order.family, self._port] = Waiting(self._attempt.report, 0)

    def _ready(self, _events: int) -> None:
        try:
            if not self._connected:
                error = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if error:
                    raise OSError(error, os.strerror(error))
                self._connected = True
                self._attempt.place.loop.rewatch(self.descriptor, select.EPOLLIN)
                return
            data = self._socket.recv(256)
        except BlockingIOError:
            return
        except OSError as error:
            self._attempt.place.loop.forget(self.descriptor)
            self._attempt.failed(error)
            return
        self._banner += data
        if b"\n" in self._banner:
            self._attempt.report(Answer(Outcome.ALLOWED, self._banner.partition(b"\n")[0].decode("utf-8", "replace")))
        elif not data:
            self._attempt.place.loop.forget(self.descriptor)
            self._attempt.report(Answer(Outcome.BROKEN, "", "closed before it said who it is"))

    def close(self) -> None:
        """Reset the connection."""
        self._attempt.place.expected.pop((TCP, self._attempt.order.family, self._port), None)
        self._attempt.place.loop.forget(self.descriptor)
        self._socket.close()


class RawAttempt(Attempt):
    """SCTP, ICMP echo, or any other protocol, through the place's shared raw socket; a key of our own finds the answer."""

    def __init__(self, place: Place, order: Order, report: Report) -> None:
        super().__init__(place, order, report)
        self._sent = 0
        self._nonce = random.getrandbits(32) | 1  # SCTP's tag must not be 0
        if order.protocol in {SCTP, ICMP, ICMPV6}:
            key = order.source_port or place.numbers.take(order.protocol, order.family)
        else:
            key = self._nonce
        self._key = order.protocol, order.family, key
        place.expected[self._key] = Waiting(self.report, self._nonce)

    def send(self) -> None:
        """Send the packet (again)."""
        self._sent += 1
        try:
            self.place.raw(self.order.protocol, self.order.family).sendto(self._packet(), (self.order.address, 0))
        except OSError as error:
            self.failed(error)

    def _packet(self) -> bytes:
        protocol, family, key = self._key
        if protocol == SCTP:
            return sctp.SctpPacket(key, self.order.port, 0, sctp.INIT, initiate_tag=self._nonce).encode()
        if protocol in {ICMP, ICMPV6}:
            return icmp.echo_request(family, key, self._sent, self._nonce)
        return wire.datagram(wire.ASK, key)

    def close(self) -> None:
        """Stop listening for the answer."""
        self.place.expected.pop(self._key, None)


def bind(place: Place, sock: socket.socket, order: Order) -> int:
    """Give a socket the source port that is asked for, or the next of the sandbox's; return it.

    :raises OSError: when it is taken
    """
    if not order.source_port:
        return place.numbers.bind(sock, order.protocol, order.family)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("", order.source_port))
    return order.source_port


def attempt(place: Place, order: Order, report: Report) -> Attempt:
    """Return the attempt for the order's protocol; it has sent nothing yet."""
    kinds: dict[int, type[Attempt]] = {TCP: TcpAttempt, UDP: UdpAttempt}
    return kinds.get(order.protocol, RawAttempt)(place, order, report)
