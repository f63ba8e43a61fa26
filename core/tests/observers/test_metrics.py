"""The metrics observer turns what it is told into numbers that add up."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from prometheus_client import CollectorRegistry

from polyplane.cluster.model import Change, ObjectKey, Pod
from polyplane.cluster.problems import Problem, Severity
from polyplane.compile.incremental import Compiler
from polyplane.compile.places import Places
from polyplane.errors import ConfigError
from polyplane.hookspecs import Applied, Arrival, Drift, Fill, Followed, RuleCount
from polyplane.ir.cidr import Cidr
from polyplane.ir.program import EMPTY, Action, Direction, Origin, Policy, PolicyId, Program, Rule
from polyplane.observers.metrics import MetricsObserver
from polyplane.plugins import Observers
from polyplane.reconcile.diff import diff

Read = Callable[..., float | None]
POLICY = ObjectKey("networking.k8s.io/v1", "NetworkPolicy", "shop", "web")
POD = ObjectKey("v1", "Pod", "shop", "web")


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def read(registry: CollectorRegistry) -> Read:
    return lambda name, **labels: registry.get_sample_value(name, labels)


def observers(registry: CollectorRegistry, **options: object) -> Observers:
    return Observers([("metrics", MetricsObserver(options, registry))])


def program(*names: str) -> Program:
    policies = {}
    for number, name in enumerate(names, 1):
        origin = Origin(kind="NetworkPolicy", namespace="shop", name=name, direction=Direction.INGRESS, index=0)
        rule = Rule(id=number, action=Action.ALLOW, origin=origin)
        policies[PolicyId(name)] = Policy(id=PolicyId(name), direction=Direction.INGRESS, rules=(rule,))
    return Program(revision=1, policies=policies)


def followed(*arrivals: Arrival, problems: dict[str, Problem] | None = None) -> Followed:
    return Followed(
        program=EMPTY,
        in_sync=True,
        events=3,
        waited=0.02,
        seconds=0.001,
        objects={"Pod": 7},
        problems=problems or {},
        unsupported={},
        arrivals=arrivals,
    )


def test_sizes_and_latencies(registry: CollectorRegistry, read: Read) -> None:
    told = observers(registry)
    now = time.monotonic()
    problem = Problem(severity=Severity.ERROR, object="x", where="", message="m")
    told.followed(followed(Arrival(key=POD, at=now - 2, new=True), Arrival(key=POLICY, at=now - 2, new=False), problems={"x": problem}))
    assert (read("polyplane_in_force"), read("polyplane_in_sync"), read("polyplane_objects", kind="Pod")) == (0, 1, 7)
    assert (read("polyplane_problems", severity="error"), read("polyplane_problems", severity="warning")) == (1, 0)
    assert read("polyplane_enforcement_latency_seconds_count", kind="Pod") is None
    told.applied(diff(EMPTY, program("a", "b")), Applied(operations=4, detail={"elements": 4}), 0.1)
    assert (read("polyplane_in_force"), read("polyplane_rules"), read("polyplane_apply_operations_total")) == (1, 2, 4)
    assert read("polyplane_apply_native_total", what="elements") == 4
    assert read("policy_enforcement_latency_pod_creation_seconds_count") == 1
    assert read("policy_enforcement_latency_policy_creation_seconds_count") == 0
    assert read("policy_enforcement_latency_pod_creation_seconds_bucket", le="1.0") == 0
    assert read("policy_enforcement_latency_pod_creation_seconds_bucket", le="3.0") == 1
    assert read("polyplane_enforcement_latency_seconds_count", kind="NetworkPolicy") == 1
    told.applied(diff(EMPTY, program("a")), Applied(operations=1), 0.1)
    assert read("polyplane_enforcement_latency_seconds_count", kind="NetworkPolicy") == 1


def test_failures_and_drift(registry: CollectorRegistry, read: Read) -> None:
    told = observers(registry)
    told.failed(diff(EMPTY, EMPTY), ValueError(), 1)
    told.drifted([Drift(subject="s", expected="e", found="f")] * 3)
    assert (read("polyplane_apply_failures_total"), read("polyplane_drifts_total"), read("polyplane_in_force")) == (1, 3, 0)


def test_packets_by_policy(registry: CollectorRegistry, read: Read) -> None:
    told = observers(registry, policies=1)
    running = program("a", "b", "c")

    def packets(name: str, namespace: str = "shop") -> float | None:
        labels = {"kind": "NetworkPolicy", "policy_namespace": namespace, "policy": name, "direction": "ingress", "verdict": "allow"}
        return read("polyplane_policy_packets_total", **labels)

    told.counted(running, [RuleCount(rule_id=1, packets=10, bytes=100), RuleCount(rule_id=2, packets=5, bytes=50)])
    assert (packets("a"), packets("(others)", "")) == (10, 5)
    told.counted(running, [RuleCount(rule_id=1, packets=12, bytes=120), RuleCount(rule_id=3, packets=1, bytes=50)])
    assert (packets("a"), packets("(others)", "")) == (12, 6)
    # A counter that was created anew, and one of a rule that nobody knows.
    told.counted(running, [RuleCount(rule_id=1, packets=3, bytes=30), RuleCount(rule_id=99, packets=8, bytes=30)])
    assert packets("a") == 15


@pytest.mark.parametrize("options", [{"polices": 3}, {"policies": "many"}, {"policies": -1}, {"policies": True}])
def test_refuses_options(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"observer\.metrics"):
        MetricsObserver(options, CollectorRegistry())


def test_fill_levels(registry: CollectorRegistry, read: Read) -> None:
    observers(registry).filled([Fill(name="rows", used=7, capacity=10)])
    assert (read("polyplane_dataplane_entries", table="rows"), read("polyplane_dataplane_capacity", table="rows")) == (7, 10)


def test_strangers_are_no_pods(registry: CollectorRegistry, read: Read) -> None:
    told = observers(registry)
    compiler = Compiler(node="n1", deny_strangers=True, pod_prefixes=[Cidr.parse("10.0.0.0/30")])
    web = Pod(namespace="shop", name="web", labels={}, node="n1", addresses=(Cidr.parse("10.0.0.1"),))
    compiler.set_places(Places(interfaces={Cidr.parse("10.9.9.9"): "veth9"}))
    told.applied(diff(EMPTY, compiler.update([Change(None, web)])), Applied(operations=1), 0.1)
    assert (read("polyplane_endpoints"), read("polyplane_endpoints_unknown")) == (1, 4)
    assert read("polyplane_endpoints_isolated", direction="ingress") == 0
