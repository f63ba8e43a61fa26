"""`Probe`: datagrams from one pod to another that say from when on a way is open, or closed, as seen from outside."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Self

from polyplane_conformance import netns
from polyplane_conformance.sandbox import PodSpec, Sandbox

_PATIENCE: Final = 300.0


class WrongStateError(RuntimeError):
    """A change was to be measured whose effect was there before it."""


class Probe:
    """Sends datagrams from one pod to another and sees which arrive.

    A dataplane may keep datagrams waiting instead of dropping them: Open vSwitch's userspace datapath does while the same thread
    takes in many flows. That none arrives says nothing, then. Whether a way is closed is judged by datagrams sent ``beside``, by a
    way between the same pods that stays open: what was sent before one of those that arrived, and has not arrived itself, never will.
    That is no proof, as a switch whose cache is being revised may drop what it has to look up anew: check again with `expect_closed`.
    """

    #: Seconds between two datagrams, and for how long only those beside must pass before the way counts as closed.
    EVERY = 0.0004
    CLOSED = 0.06

    def __init__(self, sandbox: Sandbox, client: PodSpec, server: PodSpec, port: int, *, beside: Probe | None = None) -> None:
        self._port, self._beside = port, beside
        with netns.inside(sandbox.netns(server.id)):
            self._in = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._in.bind((server.addresses[0], port))
        self._in.settimeout(0)
        with netns.inside(sandbox.netns(client.id)):
            self._out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._out.connect((server.addresses[0], port))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._in.close()
        self._out.close()

    # --- one change and its effect

    def opens(self, change: Callable[[], None], limit: float = _PATIENCE) -> float:
        """Make a change that opens the way; return the seconds until the first datagram arrived.

        :raises WrongStateError: if it was open before
        """
        asked = time.monotonic()
        self.expect_closed(limit)
        began = time.monotonic()
        change()
        return self.until_open(limit, shut=(asked, began)) - began

    def closes(self, change: Callable[[], None], limit: float = _PATIENCE) -> float:
        """Make a change that closes the way, having seen it open; return the seconds until the last datagram arrived.

        :raises WrongStateError: if none has arrived since
        """
        self.until_open(limit)
        began = time.monotonic()
        change()
        closed = self.until_closed(limit)
        if closed is None:
            raise WrongStateError(f"port {self._port} is closed as soon as the change is made that is to close it")
        return closed - began

    # --- the parts of that

    def expect_closed(self, limit: float = _PATIENCE) -> None:
        """Check that no datagram passes that is sent now.

        :raises WrongStateError: if one does: what was taken for the effect of a change was something else
        """
        if self._passes(limit):
            raise WrongStateError(f"port {self._port} is open although it was to be closed")

    def until_open(self, limit: float = _PATIENCE, *, shut: tuple[float, float] = (0.0, 0.0)) -> float:
        """Probe until a datagram arrives; return when it did. None may that was sent while the way was ``shut``; one sent before that
        was held up, as a busy kernel does on one processor and not on the other, and says nothing."""
        end = time.monotonic() + limit
        while time.monotonic() < end:
            self._send()
            if times := [sent for sent in self._received() if sent >= shut[0]]:
                if times[0] < shut[1]:
                    raise WrongStateError(f"port {self._port}: a datagram passes that was sent before the change that is to let it pass")
                return time.monotonic()
            time.sleep(self.EVERY)
        raise RuntimeError(f"port {self._port} does not open")

    def until_closed(self, limit: float = _PATIENCE) -> float | None:
        """Probe until none arrives for a while, though those beside do; return when the last one arrived, None if none did."""
        self._received()
        began = time.monotonic()
        sent, arrived = began, None
        while time.monotonic() < began + limit:
            mine, beside = self._both()
            if mine:
                sent, arrived = mine[-1], time.monotonic()
            if beside and beside[-1] > sent + self.CLOSED:
                return arrived
        raise RuntimeError(f"port {self._port} does not close")

    @contextmanager
    def watching(self) -> Iterator[Counted]:
        """Probe in the background while the body runs; yield what is sent and what arrives, complete at the end."""
        counted, stop = Counted(), threading.Event()

        def work() -> None:
            while not stop.is_set():
                self._send()
                counted.sent += 1
                counted.arrived += len(self._received())
                time.sleep(0.001)
            time.sleep(0.2)
            counted.arrived += len(self._received())

        self._received()
        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield counted
        finally:
            stop.set()
            thread.join()

    def _passes(self, limit: float) -> bool:
        """Whether a datagram sent from now on arrives by the time one beside does that was sent after it."""
        began = time.monotonic()
        while time.monotonic() < began + limit:
            mine, beside = ([sent for sent in times if sent >= began] for times in self._both())
            if mine or beside:
                return bool(mine)
        raise RuntimeError(f"port {self._port}: nothing passes beside it")

    def _both(self) -> tuple[list[float], list[float]]:
        """Send one datagram, and one beside; return when those that have arrived were sent: none of the first is still to come
        that was sent before one of the second."""
        assert self._beside is not None, "a way closes only beside one that stays open"
        self._send()
        self._beside._send()
        time.sleep(self.EVERY)
        beside = self._beside._received()
        return self._received(), beside

    def _send(self) -> None:
        """Send one datagram with the time in it."""
        self._out.send(struct.pack("d", time.monotonic()))

    def _received(self) -> list[float]:
        """Return when the datagrams that have arrived meanwhile were sent."""
        times: list[float] = []
        try:
            while True:
                times.append(struct.unpack("d", self._in.recv(64))[0])
        except BlockingIOError:
            return times


@dataclass(slots=True)
class Counted:
    """Datagrams sent and arrived."""

    sent: int = 0
    arrived: int = 0
