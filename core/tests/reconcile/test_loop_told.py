"""What the loop tells observers of events, arrivals and counters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from structlog.testing import capture_logs

from polyplane.cluster.model import InSync, ObjectKey, PutObject, RemoveObject, SourceEvent
from polyplane.cluster.store import Store
from polyplane.compile.incremental import Compiler
from polyplane.compile.places import Places
from polyplane.errors import ApplyError
from polyplane.hookspecs import Fill, Followed, PacketEvent, PacketEventKind, RuleCount, hookimpl
from polyplane.ir.cidr import Cidr
from polyplane.ir.program import Direction, Program
from polyplane.plugins import Dataplane, Observers, dialects
from polyplane.reconcile.loop import Loop, Timing
from polyplane.testing import MemoryBackend


class Ears:
    def __init__(self) -> None:
        self.followed: list[Followed] = []

    @hookimpl
    def polyplane_followed(self, followed: Followed) -> None:
        self.followed.append(followed)


class Counting(Ears):
    def __init__(self) -> None:
        super().__init__()
        self.counted: list[int] = []

    @hookimpl
    def polyplane_counted(self, program: Program, counts: Sequence[RuleCount]) -> None:
        self.counted.append(program.revision)


class Watching(Ears):
    def __init__(self) -> None:
        super().__init__()
        self.fills: list[Sequence[Fill]] = []
        self.events: list[Sequence[PacketEvent]] = []

    @hookimpl
    def polyplane_filled(self, fills: Sequence[Fill]) -> None:
        self.fills.append(fills)

    @hookimpl
    def polyplane_seen(self, program: Program, events: Sequence[PacketEvent]) -> None:
        self.events.append(events)


SEEN = PacketEvent(
    kind=PacketEventKind.DENY,
    rule_id=7,
    direction=Direction.INGRESS,
    source=Cidr.parse("10.0.0.1"),
    destination=Cidr.parse("10.0.0.2"),
    protocol=6,
    source_port=40000,
    port=80,
)


class Telling(MemoryBackend):
    """A dataplane with a table of ten entries, and something to say."""

    def __init__(self) -> None:
        super().__init__()
        self.used = 0
        self.remedy = "raise max_rows"
        self.events: list[PacketEvent] = []
        self.asked_for_events = 0

    @hookimpl
    def polyplane_fill(self) -> Sequence[Fill]:
        if self.used < 0:
            raise ApplyError("busy", backend="memory", retryable=True)
        return (Fill(name="rows", used=self.used, capacity=10, remedy=self.remedy),)

    @hookimpl
    def polyplane_events(self) -> Sequence[PacketEvent]:
        self.asked_for_events += 1
        taken, self.events = self.events, []
        return taken


def loop(ears: Ears, backend: MemoryBackend | None = None) -> Loop:
    return Loop(
        store=Store(dialects()),
        compiler=Compiler(node="n1"),
        dataplane=Dataplane("memory", backend or MemoryBackend()),
        observers=Observers([("ears", ears)]),
        timing=Timing(coalesce=0.1, audit_interval=0, count_interval=10),
    )


def put(kind: str, name: str, *, api_version: str = "v1", **content: Any) -> PutObject:
    raw = {"apiVersion": api_version, "kind": kind, "metadata": {"namespace": "shop", "name": name}, **content}
    return PutObject(key=ObjectKey(api_version, kind, "shop", name), raw=raw)


def pod(name: str, address: str | None, *, node: str = "n1", phase: str = "Running") -> PutObject:
    return put("Pod", name, spec={"nodeName": node}, status={"phase": phase, "podIPs": [{"ip": address}] if address else []})


def policy(name: str, **spec: Any) -> PutObject:
    return put("NetworkPolicy", name, api_version="networking.k8s.io/v1", spec={"podSelector": {}, **spec})


def tell(running: Loop, now: float, *events: SourceEvent) -> None:
    for event in events:
        running.offer(event, now)
    running.step(now + 1)


def test_arrivals_are_what_changed_this_nodes_program() -> None:
    ears = Ears()
    running = loop(ears)
    tell(running, 0, pod("web", "10.0.0.1"), policy("first"), InSync())
    assert (ears.followed[-1].arrivals, ears.followed[-1].in_sync, ears.followed[-1].events) == ((), True, 3)
    assert ears.followed[-1].objects == {"Pod": 1, "Namespace": 1, "Node": 0, "Policy": 1}

    tell(running, 10, policy("second", policyTypes=["Egress"]))
    (arrival,) = ears.followed[-1].arrivals
    assert (arrival.key.name, arrival.at, arrival.new) == ("second", 10, True)
    assert ears.followed[-1].waited == 1

    # A pod without an address is nothing to enforce; getting one is news, losing it is not.
    tell(running, 20, pod("late", None))
    assert ears.followed[-1].arrivals == ()
    tell(running, 30, pod("late", "10.0.0.2"))
    assert [(one.key.name, one.new) for one in ears.followed[-1].arrivals] == [("late", True)]
    tell(running, 40, pod("late", "10.0.0.2", phase="Failed"))
    assert [(one.key.name, one.new) for one in ears.followed[-1].arrivals] == [("late", False)]

    # What another node has to do is no arrival here, and neither is what changes nothing.
    tell(running, 50, pod("elsewhere", "10.0.0.9", node="n2"), policy("first"))
    assert ears.followed[-1].arrivals == ()
    tell(running, 60, RemoveObject(policy("second").key))
    assert [(one.key.name, one.new) for one in ears.followed[-1].arrivals] == [("second", False)]


def test_problems_are_told_with_their_objects() -> None:
    ears = Ears()
    running = loop(ears)
    tell(running, 0, InSync(), policy("bad", ingress=[{"ports": [{"port": 0}]}]))
    (problem,) = ears.followed[-1].problems.values()
    assert problem.key == policy("bad").key


def test_counters_are_read_for_those_who_want_them() -> None:
    ears = Counting()
    running = loop(ears)
    running.offer(InSync(), 0)
    assert running.step(0) == 10
    assert len(ears.counted) == 1
    running.step(9)
    assert len(ears.counted) == 1
    assert running.step(11) == 21
    assert len(ears.counted) == 2

    deaf = loop(Ears())
    deaf.offer(InSync(), 0)
    assert deaf.step(0) is None


def test_a_late_interface_is_applied() -> None:
    running = loop(Ears())
    tell(running, 0, pod("web", "10.0.0.1"), InSync())
    assert running.in_force
    running.locate(Places(interfaces={Cidr.parse("10.0.0.1"): "veth1"}))
    assert not running.in_force
    running.step(5)
    assert running.in_force


def test_a_table_that_is_nearly_full_is_warned_about_once() -> None:
    backend, ears = Telling(), Watching()
    running = loop(ears, backend)
    running.offer(InSync(), 0)
    running.step(0)
    assert ears.fills[-1] == [Fill(name="rows", used=0, capacity=10, remedy="raise max_rows")]
    said = []
    for step, used in enumerate((7, 8, 9, -1, 7, 9), 1):
        backend.used = used
        with capture_logs() as entries:
            running.step(step * 20)
        said.append([(entry["log_level"], entry["event"].partition(",")[0]) for entry in entries])
    assert said == [
        [],
        [("warning", "a table is nearly full")],
        [],
        [("warning", "the fill levels cannot be read")],
        [("info", "there is room again")],
        [("warning", "a table is nearly full")],
    ]
    backend.used, backend.remedy = 0, ""
    running.step(200)
    backend.used = 10
    with capture_logs() as entries:
        running.step(220)
    assert entries == [], "a table that makes room by itself"


def test_events_are_taken_each_second_for_those_who_want_them() -> None:
    backend, ears = Telling(), Watching()
    running = loop(ears, backend)
    running.offer(InSync(), 0)
    assert running.step(0) == 1
    assert ears.events == [], "nothing is no news"
    backend.events = [SEEN]
    running.step(0.5)
    assert ears.events == []
    assert running.step(1) == 2
    assert ears.events == [[SEEN]]

    deaf = Telling()
    running = loop(Ears(), deaf)
    running.offer(InSync(), 0)
    running.step(0)
    assert deaf.asked_for_events == 0
