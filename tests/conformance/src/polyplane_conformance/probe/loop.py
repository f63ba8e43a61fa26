"""The prober's event loop: packets before clocks.

A busy machine may not run us for half a second. When it does again, answers wait in the sockets and timers are overdue: a
loop that fired the timers first would call an allowed path denied. So timers fire only once no socket has anything left, a
few at a time, and the loop knows how late it was (`Loop.lag`).
"""

from __future__ import annotations

import heapq
import select
import time
from collections.abc import Callable
from typing import Final

#: Timers fired between two looks at the sockets; a burst of new probes so never overruns a server's receive buffer.
_TIMERS_PER_TURN: Final = 24
#: Looks at the sockets before timers get their turn even though packets keep coming.
_TURNS_WITHOUT_TIMERS: Final = 64
_HEARTBEAT: Final = 0.02


class Loop:
    """Watches file descriptors and fires timers; one thread, no locks."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[int], None]] = {}
        #: When, in which order, what.
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._serial = 0
        self._running = True
        self._late: list[tuple[float, float]] = []

    def watch(self, descriptor: int, handler: Callable[[int], None], events: int = select.EPOLLIN) -> None:
        """Call ``handler`` with the epoll event mask whenever the descriptor is ready."""
        self._epoll.register(descriptor, events)
        self._handlers[descriptor] = handler

    def rewatch(self, descriptor: int, events: int) -> None:
        """Watch for other events from now on."""
        self._epoll.modify(descriptor, events)

    def forget(self, descriptor: int) -> None:
        """Stop watching; call it before the descriptor is closed."""
        if self._handlers.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    def later(self, delay: float, callback: Callable[[], None]) -> None:
        """Call ``callback`` in ``delay`` seconds."""
        self._serial += 1
        heapq.heappush(self._timers, (time.monotonic() + delay, self._serial, callback))

    def lag(self, since: float) -> float:
        """How many seconds the loop was behind its own clock, in all, since that moment of `time.monotonic`."""
        return sum(late for when, late in self._late if when >= since)

    def stop(self) -> None:
        """Leave `run` after this turn."""
        self._running = False

    def run(self) -> None:
        """Serve until `stop`."""
        self._beat()
        while self._running:
            self._turn(max(0.0, self._timers[0][0] - time.monotonic()))
            for _ in range(_TURNS_WITHOUT_TIMERS):
                if not self._turn(0):
                    break
            self._fire()

    def _turn(self, patience: float) -> bool:
        ready = self._epoll.poll(patience, 256)
        for descriptor, events in ready:
            handler = self._handlers.get(descriptor)
            if handler is not None:  # an earlier handler of this turn may have closed it
                handler(events)
        return bool(ready)

    def _fire(self) -> None:
        now = time.monotonic()
        for _ in range(_TIMERS_PER_TURN):
            if not self._timers or self._timers[0][0] > now:
                return
            heapq.heappop(self._timers)[2]()

    def _beat(self) -> None:
        due = time.monotonic() + _HEARTBEAT

        def beat() -> None:
            now = time.monotonic()
            if now - due > _HEARTBEAT:
                self._late = [entry for entry in self._late if entry[0] > now - 60] + [(now, now - due)]
            self._beat()

        self.later(_HEARTBEAT, beat)
