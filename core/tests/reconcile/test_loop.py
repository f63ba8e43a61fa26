"""The loop, driven by hand: events in, time given, the memory backend underneath."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Sequence
from random import Random
from typing import Any

import pytest
from structlog.testing import capture_logs

from polyplane.cluster.model import InSync, ObjectKey, PutObject, RemoveObject, SourceProblem
from polyplane.cluster.store import Store
from polyplane.compile.incremental import Compiler
from polyplane.errors import ApplyError
from polyplane.hookspecs import Applied, Drift, hookimpl
from polyplane.ir.cidr import Cidr
from polyplane.ir.delta import Delta
from polyplane.ir.program import EMPTY, DenyAction, Options
from polyplane.plugins import Dataplane, Observers, dialects
from polyplane.reconcile.loop import Loop, Timing
from polyplane.testing import MemoryBackend


class Faults:
    """Fails the next applies with these errors, and the next audits likewise."""

    def __init__(self) -> None:
        self.apply: deque[Exception] = deque()
        self.audit: deque[Exception] = deque()
        self.audits = 0
        #: Of each apply: whether its base was empty.
        self.bases: list[bool] = []

    @hookimpl(wrapper=True)
    def polyplane_apply(self, delta: Delta) -> Generator[None, Applied, Applied]:
        self.bases.append(delta.base is EMPTY)
        if self.apply:
            raise self.apply.popleft()
        return (yield)

    @hookimpl(wrapper=True)
    def polyplane_audit(self) -> Generator[None, list[Drift], list[Drift]]:
        self.audits += 1
        if self.audit:
            raise self.audit.popleft()
        return (yield)


class Ears:
    def __init__(self) -> None:
        self.heard: list[str] = []

    @hookimpl
    def polyplane_applied(self, result: Applied) -> None:
        self.heard.append(f"applied {result.operations}")

    @hookimpl
    def polyplane_failed(self, error: Exception, attempt: int) -> None:
        self.heard.append(f"failed {attempt}")

    @hookimpl
    def polyplane_drifted(self, drifts: Sequence[Drift]) -> None:
        self.heard.append(f"drifted {len(drifts)}")


class Bench:
    """Everything around one loop."""

    def __init__(self, backend: MemoryBackend | None = None, **timing: float) -> None:
        self.backend = backend or MemoryBackend()
        self.faults, self.ears = Faults(), Ears()
        self.local = {Cidr.parse("192.0.2.1")}
        self.store = Store(dialects())
        self.compiler = Compiler(node="n1", node_addresses=frozenset(self.local))
        self.loop = Loop(
            store=self.store,
            compiler=self.compiler,
            dataplane=Dataplane("memory", self.backend, wrappers=[self.faults]),
            observers=Observers([("ears", self.ears)]),
            timing=Timing(**{"coalesce": 0.1, "coalesce_max": 1.0, "audit_interval": 300, **timing}),  # type: ignore[arg-type]
            detect_addresses=lambda: frozenset(self.local),
            random=Random(7),  # noqa: S311  # jitter is no secret
        )

    def start(self, *events: PutObject) -> None:
        """Deliver the events and get in force at time 0."""
        for event in events:
            self.loop.offer(event, 0)
        self.loop.offer(InSync(), 0)
        self.loop.step(0)
        assert self.loop.in_force
        self.ears.heard.clear()
        self.faults.bases.clear()


def pod(name: str, address: str, node: str = "n1") -> PutObject:
    raw: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"namespace": "shop", "name": name, "labels": {"app": name}},
        "spec": {"nodeName": node},
        "status": {"phase": "Running", "podIPs": [{"ip": address}]},
    }
    return PutObject(key=ObjectKey("v1", "Pod", "shop", name), raw=raw)


def policy(name: str = "p", peer: str = "web", **spec: object) -> PutObject:
    raw: dict[str, Any] = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"namespace": "shop", "name": name},
        "spec": {"podSelector": {}, "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": peer}}}]}], **spec},
    }
    return PutObject(key=ObjectKey("networking.k8s.io/v1", "NetworkPolicy", "shop", name), raw=raw)


#: One set, one policy, two endpoints and the node: five operations.
SHOP = (pod("web", "10.0.0.1"), pod("db", "10.0.0.2"), policy())
BUSY = ApplyError("busy", backend="memory", retryable=True)
REFUSED = ApplyError("refused", backend="memory", retryable=False)


def test_nothing_touches_the_backend_before_every_source_is_in_sync() -> None:
    bench = Bench()
    for event in SHOP:
        bench.loop.offer(event, 0)
    assert bench.loop.step(50) is None
    assert bench.faults.bases == []
    assert not bench.loop.in_force
    bench.loop.offer(InSync(), 60)
    bench.loop.step(60)
    assert bench.ears.heard == ["applied 5"]
    assert bench.loop.in_force
    assert set(bench.backend.program.endpoints) == {"shop/web", "shop/db"}


def test_first_apply_reads_back_even_when_nothing_is_wanted() -> None:
    """What an earlier run left must go, and only the backend knows what that is."""
    backend = MemoryBackend()
    Bench(backend).start(*SHOP)
    bench = Bench(backend)
    bench.loop.offer(InSync(), 0)
    bench.loop.step(0)
    assert bench.ears.heard == ["applied 4"]
    assert backend.program.endpoints == {}


def test_restart_with_the_same_state_changes_nothing() -> None:
    backend = MemoryBackend()
    Bench(backend).start(*SHOP)
    bench = Bench(backend)
    for event in (*SHOP, InSync()):
        bench.loop.offer(event, 0)
    bench.loop.step(0)
    assert bench.ears.heard == ["applied 0"]


def test_bursts_are_coalesced() -> None:
    bench = Bench()
    bench.start(*SHOP)
    for index in range(5):
        now = 10 + index * 0.05
        bench.loop.offer(pod(f"web{index}", f"10.0.1.{index}"), now)
        assert bench.loop.step(now) == pytest.approx(now + 0.1)
        assert not bench.loop.in_force
    bench.loop.step(10.3)
    assert bench.ears.heard == ["applied 5"]


def test_coalescing_is_bounded_in_time() -> None:
    bench = Bench()
    bench.start(*SHOP)
    now = 10.0
    while not bench.ears.heard:
        bench.loop.offer(pod("web", f"10.0.1.{round(now * 100) % 200}"), now)
        bench.loop.step(now)
        now += 0.08
    assert now == pytest.approx(11.12)


def test_coalescing_is_bounded_in_size() -> None:
    bench = Bench(batch=3)
    bench.start(*SHOP)
    for index in range(3):
        bench.loop.offer(pod(f"web{index}", f"10.0.1.{index}"), 10)
    bench.loop.step(10)
    assert bench.ears.heard == ["applied 3"]


def test_change_without_consequence_is_not_applied() -> None:
    bench = Bench()
    bench.start(*SHOP)
    bench.loop.offer(RemoveObject(ObjectKey("v1", "Pod", "shop", "never-was")), 10)
    bench.loop.offer(SHOP[0], 10)
    bench.loop.step(11)
    assert bench.loop.in_force
    assert bench.ears.heard == []


def test_retryable_failures_back_off_with_jitter_and_resume_from_a_read_back() -> None:
    bench = Bench(audit_interval=0)
    bench.start(*SHOP)
    bench.faults.apply.extend([BUSY] * 12)
    bench.loop.offer(policy("p2", "db"), 10)
    now, pauses = 10.2, []
    for _ in range(12):
        due = bench.loop.step(now)
        assert due is not None
        assert bench.loop.step(due - 0.001) == due
        pauses.append(due - now)
        now = due
    longest = [0.5 * 2**attempt for attempt in range(6)] + [30.0] * 6
    assert all(most * 0.5 <= pause <= most for most, pause in zip(longest, pauses, strict=True))
    assert len(set(pauses[6:])) == 6
    assert bench.loop.last_error is BUSY
    bench.loop.step(now)
    assert bench.ears.heard[:-1] == [f"failed {attempt}" for attempt in range(1, 13)]
    assert bench.ears.heard[-1].startswith("applied")
    assert bench.loop.last_error is None
    assert bench.faults.bases == [False] + [True] * 12


def test_new_state_waits_for_the_back_off() -> None:
    bench = Bench()
    bench.start(*SHOP)
    bench.faults.apply.append(BUSY)
    bench.loop.offer(policy("p2", "db"), 10)
    due = bench.loop.step(10.1)
    assert due is not None
    bench.loop.offer(policy("p3", "db"), 10.1)
    bench.loop.step(10.25)
    assert bench.ears.heard == ["failed 1"]
    bench.loop.step(due)
    assert bench.loop.in_force


def test_refused_delta_keeps_the_old_and_is_tried_again_on_the_next_change() -> None:
    bench = Bench()
    bench.start(*SHOP)
    before = bench.backend.program
    bench.faults.apply.append(REFUSED)
    bench.loop.offer(policy("p2", "db"), 10)
    assert bench.loop.step(10.1) == pytest.approx(70.1)
    assert bench.backend.program is before
    bench.loop.step(30)
    assert bench.ears.heard == ["failed 1"]
    bench.loop.offer(policy("p3", "db"), 30)
    bench.loop.step(30.1)
    assert bench.loop.in_force


def test_refused_delta_is_tried_again_after_a_long_pause() -> None:
    bench = Bench()
    bench.start(*SHOP)
    bench.faults.apply.append(REFUSED)
    bench.loop.offer(policy("p2", "db"), 10)
    bench.loop.step(10.1)
    bench.loop.step(70.2)
    assert len(bench.ears.heard) == 2
    assert bench.loop.in_force


def test_attempts_are_counted_anew_after_a_success() -> None:
    bench = Bench()
    bench.start(*SHOP)
    for now in (10.0, 100.0):
        bench.faults.apply.append(BUSY)
        bench.loop.offer(policy(f"p{now}", "db"), now)
        due = bench.loop.step(now + 0.1)
        assert due is not None
        assert due <= now + 0.1 + 0.5
        bench.loop.step(due)
        assert bench.loop.in_force
    assert [said for said in bench.ears.heard if said.startswith("failed")] == ["failed 1", "failed 1"]


def test_audit_finds_and_repairs_drift_on_schedule() -> None:
    bench = Bench()
    bench.start(*SHOP)
    wanted = bench.backend.program
    assert bench.loop.step(1) == 300
    bench.backend.program = EMPTY
    bench.loop.step(299.9)
    assert bench.ears.heard == []
    assert bench.loop.step(300) == 600
    assert bench.ears.heard == ["drifted 5", "applied 5"]
    assert bench.faults.bases == [True]
    assert bench.backend.program.same_content(wanted)
    bench.loop.step(600)
    assert bench.ears.heard == ["drifted 5", "applied 5"]


def test_failed_audit_is_repeated_on_schedule_and_disturbs_nothing() -> None:
    bench = Bench()
    bench.start(*SHOP)
    bench.faults.audit.append(BUSY)
    with capture_logs() as logs:
        assert bench.loop.step(300) == 600
    assert [entry["event"] for entry in logs] == ["audit failed, the next one is on schedule"]
    assert bench.loop.in_force
    bench.loop.step(600)
    assert bench.faults.audits == 2


def test_audit_can_be_turned_off_and_on() -> None:
    bench = Bench(audit_interval=0)
    bench.start(*SHOP)
    assert bench.loop.step(1000) is None
    assert bench.faults.audits == 0
    bench.loop.configure(timing=Timing(audit_interval=10), options=Options())
    assert bench.loop.step(1000) == 1010
    bench.loop.step(1010)
    assert bench.faults.audits == 1


def test_options_change_while_running() -> None:
    bench = Bench()
    bench.start(*SHOP)
    bench.loop.configure(timing=Timing(), options=Options(deny_action=DenyAction.REJECT))
    bench.loop.step(1)
    assert bench.backend.program.options.deny_action is DenyAction.REJECT


def test_new_addresses_of_the_node_are_found_by_the_audit() -> None:
    bench = Bench()
    bench.start(*SHOP)
    bench.local.add(Cidr.parse("192.0.2.9"))
    bench.loop.step(300)
    assert bench.backend.program.node_addresses == bench.local
    assert bench.ears.heard == ["applied 1"]


def test_problems_are_logged_once_and_when_they_are_over() -> None:
    bench = Bench()
    bench.start(*SHOP)
    bad = policy("p2", podSelector={"matchLabels": {"app": "spaces are not allowed"}})
    for event in (bad, SourceProblem(where="web.yaml", problem="no YAML")):
        bench.loop.offer(event, 10)
    with capture_logs() as logs:
        bench.loop.step(11)
        bench.loop.offer(SHOP[0], 12)
        bench.loop.step(13)
    assert sorted(entry["where"] for entry in logs if entry["event"] == "problem") == ["", "web.yaml"]
    for event in (policy("p2"), SourceProblem(where="web.yaml", problem=None)):
        bench.loop.offer(event, 20)
    with capture_logs() as logs:
        bench.loop.step(21)
    assert [entry["event"] for entry in logs] == ["problem is over", "problem is over"]


def test_wrong_node_name_is_noticed() -> None:
    bench = Bench()
    bench.loop.offer(pod("web", "10.0.0.1", node="n2"), 0)
    bench.loop.offer(InSync(), 0)
    with capture_logs() as logs:
        bench.loop.step(0)
    (warning,) = [entry for entry in logs if entry["log_level"] == "warning"]
    assert (warning["node"], warning["pods_are_on"]) == ("n1", ["n2"])
