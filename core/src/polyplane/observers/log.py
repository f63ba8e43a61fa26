"""`LogObserver`: one log line for everything an observer is told, within reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import structlog

from polyplane.errors import ConfigError
from polyplane.hookspecs import Applied, Drift, PacketEvent, PacketEventKind, hookimpl
from polyplane.ir.delta import Delta
from polyplane.ir.parse import PROTOCOL_NAMES
from polyplane.ir.program import EMPTY, Program, Rule

#: Drifts that are spelt out at most: an intruder who flushed everything is one event, not ten thousand lines.
MAX_DRIFTS: Final = 10
#: Characters of either side of a drift that are spelt out at most.
MAX_SIDE: Final = 300
#: Packets that are spelt out each time the dataplane is asked (about once a second) at most.
MAX_PACKETS: Final = 10


class LogObserver:
    """Writes to the log of the agent. Successes at info, failures at error, drift at warning."""

    def __init__(self, options: Mapping[str, object]) -> None:
        """Take the options of ``[observer.log]``: ``denied``, whether packets that are denied get a line, too (default false).

        Packets that a policy's own log rule matched always do.

        :raises ConfigError: an unknown option or a bad value
        """
        for name in options:
            if name != "denied":
                raise ConfigError(f"observer.log: unknown option {name!r}; there is denied")
        denied = options.get("denied", False)
        if not isinstance(denied, bool):
            raise ConfigError(f"observer.log: option 'denied' is {denied!r}; write true or false")
        self._denied: Final = denied
        self._log: structlog.stdlib.BoundLogger = structlog.get_logger("polyplane")
        #: What rule ids stand for, and in which program.
        self._origins: dict[int, str] = {}
        self._program = EMPTY

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

    @hookimpl
    def polyplane_seen(self, program: Program, events: Sequence[PacketEvent]) -> None:
        """Log packets with the rule that decided about them."""
        wanted = [event for event in events if self._denied or event.kind is PacketEventKind.LOG]
        for event in wanted[:MAX_PACKETS]:
            self._log.info(
                "packet",
                kind=str(event.kind),
                rule=event.rule_id,
                by=self._origin_of(event.rule_id, program),
                direction=str(event.direction),
                source=event.source.address_text,
                destination=event.destination.address_text,
                traffic=_traffic(event),
            )
        if len(wanted) > MAX_PACKETS:
            self._log.info("more packets", count=len(wanted) - MAX_PACKETS)

    def _origin_of(self, rule_id: int, program: Program) -> str:
        if program is not self._program:
            self._origins = {one.id: str(one.origin if isinstance(one, Rule) else one) for one in program.deciders()}
            self._program = program
        return self._origins.get(rule_id, "")


def _traffic(event: PacketEvent) -> str:
    name = PROTOCOL_NAMES.get(event.protocol, str(event.protocol))
    if event.icmp is not None:
        return f"{name} {event.icmp}"
    return f"{name} {event.source_port} > {event.port}" if event.port or event.source_port else name


def _short(text: str) -> str:
    return text if len(text) <= MAX_SIDE else f"{text[:MAX_SIDE]}…"
