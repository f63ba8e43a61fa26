"""`Prober`: the client's side of the prober process, usable from any thread."""

from __future__ import annotations

import contextlib
import itertools
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from polyplane.errors import PolyplaneError
from polyplane_conformance.probe.model import Outcome, Result
from polyplane_conformance.probe.queues import Queue
from polyplane_conformance.probe.rounds import DEFAULT_SETTINGS, Settings
from polyplane_conformance.probe.wire import Lines, Message, Order, encode

#: Seconds that an answer of the prober may take, beyond what the request itself takes.
_PATIENCE: Final = 60.0


class ProberError(PolyplaneError):
    """The prober process could not do what was asked, or ended."""


class Prober:
    """A prober process and the conversation with it. `close` (or the end of our process) ends it.

    ``prefix``: namespaces whose name begins so are removed by the prober when it ends. ``Prober`` speaks of places and
    addresses; `polyplane_conformance.sandbox.Sandbox` of pods and nodes.
    """

    def __init__(self, prefix: str) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            # A session of its own, or the terminal's Ctrl-C would hit it before it can clean up.
            self._process = subprocess.Popen(
                [sys.executable, "-m", "polyplane_conformance.probe.agent", str(theirs.fileno()), prefix],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        self._control = ours
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._waiting: dict[int, Future[Message]] = {}
        self._ended = False
        self._reader = threading.Thread(target=self._read, name="polyplane prober replies", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Process id of the prober."""
        return self._process.pid

    def close(self) -> None:
        """End the prober; it removes the namespaces of its prefix. Calling it again does nothing."""
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_RDWR)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(10)
        self._control.close()

    def _read(self) -> None:
        lines = Lines()
        while True:
            try:
                data = self._control.recv(1 << 20)
            except OSError:
                data = b""
            if not data:
                break
            for message in lines.feed(data):
                with self._lock:
                    future = self._waiting.pop(message["id"], None)
                if future is not None:
                    future.set_result(message)
        with self._lock:
            self._ended = True
            waiting = list(self._waiting.values())
            self._waiting.clear()
        for future in waiting:
            future.set_exception(ProberError("the prober process ended before it answered; its own output says why"))

    def _begin(self, operation: str, **arguments: object) -> Future[Message]:
        future: Future[Message] = Future()
        with self._lock:
            if self._ended:
                raise ProberError("the prober process has ended; build a new sandbox")
            number = next(self._numbers)
            self._waiting[number] = future
            self._control.sendall(encode({"id": number, "op": operation, "arguments": arguments}))
        return future

    def _ask(self, operation: str, **arguments: object) -> Message:
        return self._finish(self._begin(operation, **arguments))

    @staticmethod
    def _finish(future: Future[Message], patience: float = _PATIENCE) -> Message:
        try:
            message = future.result(patience)
        except TimeoutError as error:
            raise ProberError(f"the prober process did not answer within {patience:.0f} s") from error
        if "error" in message:
            raise ProberError(f"prober: {message['error']}")
        return message

    def enter(self, places: Iterable[tuple[str, Path]]) -> None:
        """Make namespaces known by name; all at once, since one reply at a time would be a round trip each.

        :raises ProberError: when one cannot be entered
        """
        for future in [self._begin("enter", name=name, path=str(path)) for name, path in places]:
            self._finish(future)

    def leave(self, place: str) -> None:
        """Close everything in a namespace."""
        self._ask("leave", name=place)

    def serve(self, servers: Iterable[tuple[str, str, Sequence[tuple[int, int]]]]) -> None:
        """Answer in places under an identity: (place, identity, ports), a port as (protocol number, port or 0).

        :raises ProberError: when a port is taken
        """
        for future in [self._begin("serve", place=place, identity=identity, ports=ports) for place, identity, ports in servers]:
            self._finish(future)

    def run(
        self, orders: Sequence[Order], settings: Settings = DEFAULT_SETTINGS, *, queues: Iterable[Queue] = (), at_once: int = 3000
    ) -> list[Result]:
        """Run probes, up to ``at_once`` at a time, to their verdicts; results in the same order.

        ``queues`` are those that the probes' packets wait in before anybody looks at them.
        """
        patience = _PATIENCE + 0.05 * len(orders)
        asked = [list(order) for order in orders]
        running = self._begin("run", orders=asked, settings=list(settings), queues=[list(queue) for queue in queues], at_once=at_once)
        message = self._finish(running, patience)
        return [
            Result(outcome=Outcome(outcome), answered_by=who, detail=detail, seconds=seconds, packets=packets)
            for outcome, who, detail, seconds, packets in message["results"]
        ]

    def stream(self, order: Order, *, interval: float = 0.05, pushed: bool = False) -> Stream:
        """Open a lasting TCP or UDP conversation; a packet every ``interval`` seconds, by the server alone if ``pushed``.

        :raises ProberError: when there is no route
        """
        message = self._ask("open", order=list(order), interval=interval, pushed=pushed)
        return Stream(self, message["stream"])

    def stream_state(self, number: int, *, close: bool = False) -> StreamState:
        """Look at a stream, and end it if asked."""
        message = self._ask("close" if close else "state", stream=number)
        return StreamState(**message["state"])

    def barrage(self, orders: Sequence[Order], *, rate: float, timeout: float) -> int:
        """Start sending probes continuously; return the barrage's number."""
        message = self._ask("barrage", orders=[list(order) for order in orders], rate=rate, timeout=timeout)
        return int(message["barrage"])

    def cease(self, barrage: int) -> list[tuple[float, int, Result]]:
        """Stop a barrage; return (time sent, index of the order, result) of every probe, by time."""
        message = self._ask("cease", barrage=barrage)
        shots = [
            (when, index, Result(outcome=Outcome(outcome), answered_by=who, detail=detail, seconds=seconds))
            for when, index, outcome, who, detail, seconds in message["shots"]
        ]
        return sorted(shots, key=lambda shot: shot[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamState:
    """A stream at one moment: whether it is open, packets sent and received, when the last one came (`time.monotonic`)."""

    open: bool
    sent: int
    received: int
    last: float
    who: str
    error: str


class Stream:
    """A conversation that stays open. Use it as a context manager, or `close` it."""

    def __init__(self, prober: Prober, number: int) -> None:
        self._prober = prober
        self._number = number

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def state(self) -> StreamState:
        """Return how the stream does now."""
        return self._prober.stream_state(self._number)

    def close(self) -> StreamState:
        """End the stream; return its last state."""
        return self._prober.stream_state(self._number, close=True)

    def flowing(self, timeout: float = 3.0) -> bool:
        """Whether three more packets arrive within ``timeout`` seconds.

        A TCP stream that was cut and allowed again needs the kernel's next retransmission first: give it as long as it was cut.
        """
        deadline = time.monotonic() + timeout
        wanted = self.state().received + 3
        while time.monotonic() < deadline:
            if self.state().received >= wanted:
                return True
            time.sleep(0.02)
        return False

    def silent(self, seconds: float = 0.5, timeout: float = 3.0) -> bool:
        """Whether nothing arrives for ``seconds`` on end, some time within ``timeout`` seconds: the stream is cut."""
        deadline = time.monotonic() + timeout
        received, since = self.state().received, time.monotonic()
        while time.monotonic() < deadline:
            now_received, now = self.state().received, time.monotonic()
            if now_received != received:
                received, since = now_received, now
            elif now - since >= seconds:
                return True
            time.sleep(0.02)
        return False
