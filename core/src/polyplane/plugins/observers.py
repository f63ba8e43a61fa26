"""`Observers`: who is told what happened, behind typed calls."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import structlog

from polyplane.hookspecs import Applied, Drift, Fill, Followed, ObserverHooks, PacketEvent, RuleCount
from polyplane.ir.delta import Delta
from polyplane.ir.program import Program
from polyplane.plugins.managers import make_manager

_log: Final[structlog.stdlib.BoundLogger] = structlog.get_logger("polyplane.plugins")


class Observers:
    """Plugins that are told what happened. One that raises is logged; the others hear of it all the same, and so it goes on."""

    def __init__(self, plugins: Iterable[tuple[str, object]] = ()) -> None:
        """Register and check each.

        :raises PluginContractError: hooks that are misspelt or take unknown arguments
        """
        # One manager each: in a shared one, a raising plugin would keep the call from those registered before it.
        self._managers = [(name, make_manager(ObserverHooks, name, plugin)) for name, plugin in plugins]

    def applied(self, delta: Delta, result: Applied, seconds: float) -> None:
        """Tell them that a delta is in force."""
        self._tell("polyplane_applied", delta=delta, result=result, seconds=seconds)

    def failed(self, delta: Delta, error: Exception, attempt: int) -> None:
        """Tell them that a delta could not be applied."""
        self._tell("polyplane_failed", delta=delta, error=error, attempt=attempt)

    def followed(self, followed: Followed) -> None:
        """Tell them what a batch of events led to."""
        self._tell("polyplane_followed", followed=followed)

    def counted(self, program: Program, counts: Sequence[RuleCount]) -> None:
        """Tell them the counters."""
        self._tell("polyplane_counted", program=program, counts=counts)

    def filled(self, fills: Sequence[Fill]) -> None:
        """Tell them how full the tables are."""
        self._tell("polyplane_filled", fills=fills)

    def seen(self, program: Program, events: Sequence[PacketEvent]) -> None:
        """Tell them about packets."""
        self._tell("polyplane_seen", program=program, events=events)

    def wants(self, hook: str) -> bool:
        """Whether any of them implements the hook, for facts that are costly to gather."""
        return any(getattr(manager.hook, hook).get_hookimpls() for _, manager in self._managers)

    def drifted(self, drifts: Sequence[Drift]) -> None:
        """Tell them that somebody else changed our state."""
        self._tell("polyplane_drifted", drifts=drifts)

    def _tell(self, hook: str, **facts: object) -> None:
        for name, manager in self._managers:
            try:
                getattr(manager.hook, hook)(**facts)
            except Exception:  # noqa: BLE001  # whatever it is, an observer must never disturb enforcement
                _log.exception("observer failed", observer=name, hook=hook)
