"""`Reports`: what is read from the dataplane now and then and told to observers: counters, fill levels, events about packets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import structlog

from polyplane.errors import PolyplaneError
from polyplane.hookspecs import Fill
from polyplane.ir.program import Program
from polyplane.plugins import Dataplane, Observers

_log: Final[structlog.stdlib.BoundLogger] = structlog.get_logger("polyplane.loop")

#: A table this full is warned about; the warning is over once it is clearly less full.
NEARLY_FULL: Final = 0.8
RELIEVED: Final = 0.75


class Reports:
    """Asks a dataplane for what it can tell and somebody wants to know. Like the loop, without threads and clocks."""

    def __init__(self, dataplane: Dataplane, observers: Observers, *, count_interval: float, event_interval: float) -> None:
        """Intervals in seconds; nothing is asked before the first `step`."""
        self._dataplane: Final = dataplane
        self._observers: Final = observers
        self._warned: set[str] = set()
        #: What to ask, what an error calls it, how often, and when next.
        self._tasks: list[tuple[Callable[[Program], None], str, float, float | None]] = []
        if observers.wants("polyplane_counted"):
            self._tasks.append((self._count, "the counters", count_interval, None))
        if dataplane.has("polyplane_fill"):
            self._tasks.append((self._fill, "the fill levels", count_interval, None))
        if dataplane.has("polyplane_events") and observers.wants("polyplane_seen"):
            self._tasks.append((self._hear, "the events", event_interval, None))

    @property
    def due(self) -> float | None:
        """When to call `step` again; None: never."""
        return min((0.0 if at is None else at for _, _, _, at in self._tasks), default=None)

    def step(self, now: float, program: Program) -> None:
        """Ask what is due; ``program`` is in force."""
        for index, (task, what, interval, at) in enumerate(self._tasks):
            if at is not None and now < at:
                continue
            self._tasks[index] = (task, what, interval, now + interval)
            try:
                task(program)
            except PolyplaneError as error:
                _log.warning(f"{what} cannot be read, they are tried again", error=str(error))

    def _count(self, program: Program) -> None:
        self._observers.counted(program, self._dataplane.counters())

    def _hear(self, program: Program) -> None:
        if events := self._dataplane.events():
            self._observers.seen(program, events)

    def _fill(self, _program: Program) -> None:
        fills = self._dataplane.fill()
        for fill in fills:
            self._judge(fill)
        self._observers.filled(fills)

    def _judge(self, fill: Fill) -> None:
        """Warn once about a table that has to be made larger soon."""
        share = fill.used / fill.capacity if fill.capacity else 0.0
        if fill.name in self._warned:
            if share < RELIEVED:
                self._warned.discard(fill.name)
                _log.info("there is room again", table=fill.name, used=fill.used, capacity=fill.capacity)
        elif share >= NEARLY_FULL and fill.remedy:
            self._warned.add(fill.name)
            _log.warning(
                "a table is nearly full",
                table=fill.name,
                used=fill.used,
                capacity=fill.capacity,
                remedy=fill.remedy,
            )
