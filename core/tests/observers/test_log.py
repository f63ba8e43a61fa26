"""The log observer says everything once, and not too much of it."""

from __future__ import annotations

import io
import json
import sys

import pytest
from structlog.testing import capture_logs

from polyplane import logs
from polyplane.config import LogFormat, LogLevel
from polyplane.errors import ApplyError, ConfigError
from polyplane.hookspecs import Applied, Drift, PacketEvent, PacketEventKind
from polyplane.ir.cidr import Cidr
from polyplane.ir.program import EMPTY, Action, Direction, IcmpType, Origin, Policy, PolicyId, Program, Rule
from polyplane.observers.log import MAX_DRIFTS, MAX_PACKETS, MAX_SIDE, LogObserver
from polyplane.plugins import Observers
from polyplane.reconcile.diff import diff

DELTA = diff(EMPTY, Program(revision=7))


def test_applied_with_details_named_as_they_like() -> None:
    """A backend may count what the line counts already."""
    observers = Observers([("log", LogObserver({}))])
    with capture_logs() as entries:
        observers.applied(DELTA, Applied(operations=3, detail={"sets": 2, "event": 1}), 0.0123)
    (entry,) = entries
    assert (entry["event"], entry["log_level"], entry["revision"], entry["operations"]) == ("applied", "info", 7, 3)
    assert (entry["sets"], entry["native"], entry["milliseconds"]) == (0, {"sets": 2, "event": 1}, 12.3)


def test_failed_and_drifted() -> None:
    observers = Observers([("log", LogObserver({}))])
    with capture_logs() as entries:
        observers.failed(DELTA, ApplyError("busy", backend="memory", retryable=True), 2)
        observers.drifted([Drift(subject="set x", expected="a" * 1000, found="nothing")] * (MAX_DRIFTS + 5))
    assert (entries[0]["log_level"], entries[0]["error"], entries[0]["attempt"]) == ("error", "memory: busy", 2)
    assert len(entries) == 1 + MAX_DRIFTS + 1
    assert entries[1]["log_level"] == "warning"
    assert len(entries[1]["expected"]) == MAX_SIDE + 1
    assert entries[-1]["count"] == 5


def packet(kind: PacketEventKind, **more: object) -> PacketEvent:
    fields = {"protocol": 6, "source_port": 40000, "port": 80, **more}
    source, destination = Cidr.parse("10.0.0.1"), Cidr.parse("10.0.0.2")
    return PacketEvent(kind=kind, rule_id=7, direction=Direction.INGRESS, source=source, destination=destination, **fields)  # type: ignore[arg-type]  # as a caller gives them


def test_packets_with_the_rule_that_decided() -> None:
    origin = Origin(kind="NetworkPolicy", namespace="shop", name="web", direction=Direction.INGRESS, index=0)
    policy = Policy(id=PolicyId("p"), direction=Direction.INGRESS, rules=(Rule(id=7, action=Action.LOG, origin=origin),))
    program = Program(policies={policy.id: policy})
    echo = packet(PacketEventKind.DENY, protocol=1, source_port=0, port=0, icmp=IcmpType(8, 0))
    with capture_logs() as entries:
        Observers([("log", LogObserver({}))]).seen(program, [packet(PacketEventKind.LOG), echo])
    (entry,) = entries
    assert (entry["kind"], entry["rule"], entry["by"]) == ("log", 7, "NetworkPolicy shop/web ingress[0]")
    assert (entry["source"], entry["destination"], entry["traffic"]) == ("10.0.0.1", "10.0.0.2", "tcp 40000 > 80")
    with capture_logs() as entries:
        Observers([("log", LogObserver({"denied": True}))]).seen(EMPTY, [echo] * (MAX_PACKETS + 3))
    assert (entries[0]["kind"], entries[0]["traffic"], entries[0]["by"]) == ("deny", "icmp 8/0", "")
    assert (len(entries), entries[-1]["event"], entries[-1]["count"]) == (MAX_PACKETS + 1, "more packets", 3)


def test_options_are_checked() -> None:
    with pytest.raises(ConfigError, match=r"observer\.log: unknown option 'level'"):
        LogObserver({"level": "debug"})
    with pytest.raises(ConfigError, match="write true or false"):
        LogObserver({"denied": "yes"})


def test_level_and_format(capsys: pytest.CaptureFixture[str]) -> None:
    observers = Observers([("log", LogObserver({}))])
    logs.configure(LogLevel.ERROR, LogFormat.JSON)
    observers.applied(DELTA, Applied(operations=1), 0.1)
    assert capsys.readouterr().err == ""
    logs.configure(LogLevel.INFO, LogFormat.JSON)
    observers.applied(DELTA, Applied(operations=1), 0.1)
    assert json.loads(capsys.readouterr().err)["event"] == "applied"
    logs.configure(LogLevel.INFO, LogFormat.TEXT)
    observers.applied(DELTA, Applied(operations=1), 0.1)
    assert "level=info event=applied revision=7 operations=1" in capsys.readouterr().err


def test_closed_log_does_not_end_the_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    class Pipe(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    logs.configure(LogLevel.INFO, LogFormat.TEXT)
    for broken in (Pipe(), io.StringIO()):
        if not isinstance(broken, Pipe):
            broken.close()
        monkeypatch.setattr(sys, "stderr", broken)
        monkeypatch.setattr(broken, "isatty", lambda: False)
        LogObserver({}).polyplane_applied(DELTA, Applied(operations=1), 0.1)
