from __future__ import annotations

from structlog.testing import capture_logs

from polyplane.hookspecs import Applied
from polyplane.ir.program import EMPTY
from polyplane.observers.log import LogObserver
from polyplane.reconcile.diff import diff


def test_a_backend_may_count_what_the_observer_counts_too() -> None:
    with capture_logs() as logs:
        LogObserver({}).polyplane_applied(diff(EMPTY, EMPTY), Applied(operations=3, detail={"sets": 2, "revision": 1}), 0.25)
    assert [(entry["sets"], entry["native"], entry["milliseconds"]) for entry in logs] == [(0, {"sets": 2, "revision": 1}, 250.0)]
