"""`LogObserver`: one log line for everything an observer is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import structlog

from polyplane.errors import ConfigError
from polyplane.hookspecs import Applied, Drift, hookimpl
from polyplane.ir.delta import Delta

#: Drifts that are spelt out at most: an intruder who flushed everything is one event, not ten thousand lines.
MAX_DRIFTS: Final = 10
#: Characters of either side of a drift that are spelt out at most.
MAX_SIDE: Final = 300


class LogObserver:
    """Writes to the log of the agent. Successes at info, failures at error, drift at warning."""

    def __init__(self, options: Mapping[str, object]) -> None:
        """Take the options of ``[observer.log]``: there are none.

        :raises ConfigError: for any
        """
        if options:
            raise ConfigError(f"observer.log: unknown option {next(iter(options))!r}; it has none")
        self._log: structlog.stdlib.BoundLogger = structlog.get_logger("polyplane")

    @hookimpl
    def polyplane_applied(self, delta: Delta, result: Applied, seconds: float) -> None:
        """Log a delta that is in force."""
        target = delta.target
        self._log.info(
            "applied",
            revision=target.revision,
            operations=result.operations,
            endpoints=len(target.endpoints),
            policies=len(target.policies),
            sets=len(target.sets),
            milliseconds=round(seconds * 1000, 1),
            native=dict(result.detail),  # as one value: a backend names what it counts as it likes
        )

    @hookimpl
    def polyplane_failed(self, delta: Delta, error: Exception, attempt: int) -> None:
        """Log a delta that could not be applied."""
        self._log.error("apply failed, what was in force stays", revision=delta.target.revision, attempt=attempt, error=str(error))

    @hookimpl
    def polyplane_drifted(self, drifts: Sequence[Drift]) -> None:
        """Log what somebody else changed."""
        for drift in drifts[:MAX_DRIFTS]:
            self._log.warning("drift", subject=drift.subject, expected=_short(drift.expected), found=_short(drift.found))
        if len(drifts) > MAX_DRIFTS:
            self._log.warning("more drift", count=len(drifts) - MAX_DRIFTS)


def _short(text: str) -> str:
    return text if len(text) <= MAX_SIDE else f"{text[:MAX_SIDE]}…"
