"""What lasts: streams that stay open across policy changes and restarts, and barrages that watch for a lost or leaked packet."""

from __future__ import annotations

import errno
import itertools
import os
import random
import select
import socket
import struct
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from polyplane_conformance.probe import wire
from polyplane_conformance.probe.attempts import bind
from polyplane_conformance.probe.loop import Loop
from polyplane_conformance.probe.model import TCP, Outcome
from polyplane_conformance.probe.place import Answer, Place
from polyplane_conformance.probe.rounds import Trial
from polyplane_conformance.probe.wire import Order

#: After being late, a barrage catches up by at most so many probes at once.
_MOST_AT_ONCE: Final = 10


class Flow(ABC):
    """A conversation that is kept up. ``pushed``: only the server sends, once the flow is open; otherwise it echoes."""

    def __init__(self, place: Place, order: Order, interval: float, *, pushed: bool) -> None:
        self.place = place
        self.order = order
        self.interval = interval
        self.pushed = pushed
        self.sent = 0
        self.received = 0
        self.last = 0.0
        self.who = ""
        self.error = ""
        self.open = False
        self._socket: socket.socket | None = self.connect()
        place.loop.watch(self._socket.fileno(), self.ready, select.EPOLLIN | (select.EPOLLOUT if order.protocol == TCP else 0))
        place.closers[self] = self.close
        self._tick()

    @abstractmethod
    def connect(self) -> socket.socket:
        """Open the socket."""

    @abstractmethod
    def ready(self, events: int) -> None:
        """Read what has arrived."""

    @abstractmethod
    def tick(self, sock: socket.socket) -> None:
        """Send the next packet."""

    def state(self) -> dict[str, object]:
        """Return what the client shows as `StreamState`."""
        return {name: getattr(self, name) for name in ("open", "sent", "received", "last", "who", "error")}

    def fail(self, error: OSError) -> None:
        """Note why the flow ended."""
        self.error = os.strerror(error.errno) if error.errno else str(error)
        self.close()

    def close(self) -> None:
        """End the flow."""
        self.open = False
        self.place.closers.pop(self, None)
        if self._socket is not None:
            self.place.loop.forget(self._socket.fileno())
            self._socket.close()
            self._socket = None

    def _tick(self) -> None:
        if self._socket is None:
            return
        self.place.loop.later(self.interval, self._tick)
        try:
            self.tick(self._socket)
        except BlockingIOError:
            pass
        except OSError as error:
            if error.errno != errno.EPERM:  # dropped by a local firewall: the same as lost
                self.fail(error)


class TcpFlow(Flow):
    """A TCP connection held open."""

    def connect(self) -> socket.socket:
        """Dial."""
        sock = self.place.open(self.order.family, socket.SOCK_STREAM)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        bind(self.place, sock, self.order)
        error = sock.connect_ex((self.order.address, self.order.port))
        if error not in {0, errno.EINPROGRESS}:
            sock.close()
            raise OSError(error, os.strerror(error))
        self._banner: bytes | None = b""
        self._bytes = 0
        return sock

    def ready(self, events: int) -> None:
        """Read the banner, then echoes or what the server pushes."""
        sock = self._socket
        assert sock is not None
        try:
            if events & select.EPOLLOUT:
                self.place.loop.rewatch(sock.fileno(), select.EPOLLIN)
            data = sock.recv(4096)
        except BlockingIOError:
            return
        except OSError as error:
            self.fail(error)
            return
        if not data:
            self.fail(OSError("closed by the server"))
            return
        if self._banner is not None:
            self._banner += data
            banner, newline, data = self._banner.partition(b"\n")
            if not newline:
                return
            self.who = banner.decode("utf-8", "replace")
            self._banner = None
            self.open = True
            if self.pushed:
                sock.send(f"push {self.interval * 1000:.0f}\n".encode())
        if data:
            self._bytes += len(data)
            self.received = self._bytes // 8
            self.last = time.monotonic()

    def tick(self, sock: socket.socket) -> None:
        """Send the next number, once connected."""
        if self.open and not self.pushed:
            sock.send(struct.pack("!Q", self.sent))
            self.sent += 1


class UdpFlow(Flow):
    """Datagrams from one port to one server; open from the first answer on."""

    def connect(self) -> socket.socket:
        """Open the socket; the first datagram follows at once."""
        sock = self.place.open(self.order.family, socket.SOCK_DGRAM)
        bind(self.place, sock, self.order)
        sock.connect((self.order.address, self.order.port))
        return sock

    def ready(self, _events: int) -> None:
        """Count answers."""
        assert self._socket is not None
        try:
            message = wire.parse_datagram(self._socket.recv(2048))
        except BlockingIOError:
            return
        except OSError as error:  # a refusal ends no UDP flow: the next datagram may pass
            self.error = os.strerror(error.errno) if error.errno else str(error)
            return
        if message is not None and message[0] == wire.ANSWER:
            self.open = True
            self.who = message[2]
            self.received += 1
            self.last = time.monotonic()

    def tick(self, sock: socket.socket) -> None:
        """Send the next datagram; a pushed flow only asks until it is heard."""
        if self.pushed and self.open:
            return
        number = round(self.interval * 1000) if self.pushed else self.sent
        sock.send(wire.datagram(wire.PUSH if self.pushed else wire.ASK, number))
        self.sent += 1

    def close(self) -> None:
        """Have a pushing server stop, as far as it still hears us."""
        if self._socket is not None and self.pushed:
            try:
                self._socket.send(wire.datagram(wire.STOP, 0))
            except OSError:
                self.error = self.error or "could not say goodbye"
        super().close()


def flow(place: Place, order: Order, interval: float, *, pushed: bool) -> Flow:
    """Open a flow.

    :raises OSError: when there is no route
    """
    return (TcpFlow if order.protocol == TCP else UdpFlow)(place, order, interval, pushed=pushed)


@dataclass(frozen=True, slots=True)
class Shot:
    """One probe of a barrage: when it was sent (`time.monotonic`), which order it was, what became of it."""

    when: float
    index: int
    answer: Answer
    seconds: float


class Barrage:
    """Sends single-packet probes round and round at a fixed rate until it is stopped; a probe unanswered after ``timeout`` is lost."""

    def __init__(self, loop: Loop, places: Mapping[str, Place], orders: Sequence[Order], rate: float, timeout: float) -> None:
        self._loop = loop
        self._places = places
        self._order = itertools.cycle(random.sample(list(enumerate(orders)), len(orders)))
        self._rate = rate
        self._timeout = timeout
        self._began = time.monotonic()
        self._fired = 0
        self._flying = 0
        self._stopping = False
        self.shots: list[Shot] = []
        self._tick()

    def stop(self) -> None:
        """Send no more; `idle` says when the last one has landed."""
        self._stopping = True

    @property
    def idle(self) -> bool:
        """Whether it was stopped and every probe has its outcome."""
        return self._stopping and not self._flying

    def _tick(self) -> None:
        if self._stopping:
            return
        due = int((time.monotonic() - self._began) * self._rate) + 1
        for _ in range(min(due - self._fired, _MOST_AT_ONCE)):
            self._fire()
        self._fired = due
        self._loop.later(1 / self._rate, self._tick)

    def _fire(self) -> None:
        index, order = next(self._order)
        trial = Trial(order, lambda trial: self._landed(index, trial))
        self._flying += 1
        # asked before sending: the answer to a probe within one namespace may come at once
        self._loop.later(self._timeout, lambda: trial.settle(Answer(Outcome.DENIED, "", "no answer")))
        trial.send(self._places)

    def _landed(self, index: int, trial: Trial) -> None:
        assert trial.answer is not None
        self._flying -= 1
        self.shots.append(Shot(trial.started, index, trial.answer, trial.finished - trial.started))
