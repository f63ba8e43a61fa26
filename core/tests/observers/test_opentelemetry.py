"""Traces, collected by the SDK's exporter for tests."""

from __future__ import annotations

import gzip
import http.server
import os
import subprocess
import sys
import threading
import time
from itertools import pairwise

import pytest

from polyplane.cluster.model import ObjectKey
from polyplane.errors import ApplyError, ConfigError
from polyplane.hookspecs import Applied, Arrival, Followed
from polyplane.ir.program import EMPTY, Program
from polyplane.observers.opentelemetry import MAX_OBJECTS, OpenTelemetryObserver
from polyplane.plugins import Observers, load_observers
from polyplane.reconcile.diff import diff
from polyplane_conformance.needs import require

require("opentelemetry.sdk")

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider  # noqa: E402
from opentelemetry.sdk.trace.export import SimpleSpanProcessor  # noqa: E402
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter  # noqa: E402

TARGET = Program(revision=7)
DELTA = diff(EMPTY, TARGET)


def arrival(name: str, at: float) -> Arrival:
    return Arrival(key=ObjectKey("v1", "Pod", "shop", name), at=at, new=True)


def followed(*arrivals: Arrival, seconds: float = 0.01) -> Followed:
    return Followed(
        program=TARGET,
        in_sync=True,
        events=3,
        waited=0.1,
        seconds=seconds,
        objects={},
        problems={},
        unsupported={},
        arrivals=arrivals,
    )


class Traced:
    """The observer and what it exports."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tell = Observers([("opentelemetry", OpenTelemetryObserver({}, provider))])

    def spans(self) -> dict[str, ReadableSpan]:
        return {span.name: span for span in self.exporter.get_finished_spans()}


def test_one_trace_from_the_event_to_the_kernel() -> None:
    traced = Traced()
    now = time.monotonic()
    traced.tell.followed(followed(arrival("web", now - 0.5), arrival("db", now - 0.2)))
    assert "enforce" not in traced.spans()
    traced.tell.failed(DELTA, ApplyError("busy", backend="memory", retryable=True), 1)
    traced.tell.applied(DELTA, Applied(operations=4), 0.002)
    spans = traced.spans()
    assert spans.keys() == {"enforce", "queue", "compile", "apply"}
    root = spans["enforce"]
    assert root.parent is None
    assert all(span.parent.span_id == root.context.span_id for name, span in spans.items() if name != "enforce")
    assert 0.5 < (root.end_time - root.start_time) / 1e9 < 5
    # One after the other, and inside the whole.
    ordered = [spans[name] for name in ("queue", "compile", "apply")]
    slack = 5_000_000  # each time is converted by itself
    assert all(before.end_time <= after.start_time + slack for before, after in pairwise(ordered))
    assert abs(ordered[0].start_time - root.start_time) < slack
    assert abs(ordered[-1].end_time - root.end_time) < slack
    assert root.attributes == {"polyplane.revision": 7, "polyplane.objects": 2}
    assert spans["apply"].attributes == {"polyplane.operations": 4}
    assert [event.name for event in root.events] == ["arrival", "arrival", "apply failed"]
    assert root.events[0].attributes["polyplane.object"] == "Pod shop/web"


def test_batches_until_the_next_apply_are_one_trace_and_others_none() -> None:
    traced = Traced()
    traced.tell.applied(DELTA, Applied(operations=1), 0.001)  # a repair
    traced.tell.followed(followed())
    assert not traced.spans()
    now = time.monotonic()
    traced.tell.followed(followed(*(arrival(f"p{number}", now) for number in range(MAX_OBJECTS))))
    traced.tell.followed(followed(arrival("late", now)))
    traced.tell.applied(DELTA, Applied(operations=1), 0.001)
    root = traced.spans()["enforce"]
    assert len(root.events) == MAX_OBJECTS
    assert root.attributes["polyplane.objects"] == MAX_OBJECTS + 1
    assert sum(span.name == "enforce" for span in traced.exporter.get_finished_spans()) == 1


def test_it_has_no_options() -> None:
    with pytest.raises(ConfigError, match="OpenTelemetry's variables"):
        load_observers(["opentelemetry"], {"opentelemetry": {"endpoint": "x"}})


SCRIPT = """
import time
from polyplane.cluster.model import ObjectKey
from polyplane.hookspecs import Applied, Arrival, Followed
from polyplane.ir.program import EMPTY, Program
from polyplane.plugins import load_observers
from polyplane.reconcile.diff import diff
tell = load_observers(["opentelemetry"], {})
one = Arrival(key=ObjectKey("v1", "Pod", "shop", "web"), at=time.monotonic(), new=True)
tell.followed(Followed(program=EMPTY, in_sync=True, events=1, waited=0, seconds=0, objects={}, problems={}, unsupported={}, arrivals=(one,)))
tell.applied(diff(EMPTY, Program(revision=7)), Applied(operations=1), 0.001)
"""


def test_it_sends_to_where_the_environment_says() -> None:
    """A collector hears of it by HTTP; without the extra the error says what to install."""
    heard: list[tuple[str, bytes]] = []

    class Collector(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Collector) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        env = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "OTEL_SERVICE_NAME": "edge"}
        try:
            subprocess.run([sys.executable, "-c", SCRIPT], check=True, env={**os.environ, **env}, timeout=60)
        finally:
            server.shutdown()
            thread.join()
    assert heard
    assert {path for path, _ in heard} == {"/v1/traces"}
    body = b"".join(gzip.decompress(one) if one.startswith(b"\x1f\x8b") else one for _, one in heard)
    assert all(word in body for word in (b"edge", b"enforce", b"apply", b"Pod shop/web"))
    blocked = "import sys; sys.modules['opentelemetry'] = None\n" + SCRIPT
    done = subprocess.run([sys.executable, "-c", blocked], capture_output=True, text=True, check=False, timeout=60)
    assert "install polyplane[otel]" in done.stderr
