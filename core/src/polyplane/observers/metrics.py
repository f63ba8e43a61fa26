"""`MetricsObserver`: what an operator watches, for Prometheus. `polyplane.serve` publishes it under ``/metrics``.

Labels name policies but never pods, and of policies only so many: a cluster decides how many there are, not its operator.
"""

from __future__ import annotations

import time
from collections import Counter as Tally
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import Final, NamedTuple

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from polyplane.cluster.problems import Severity
from polyplane.compile.strangers import is_stranger
from polyplane.errors import ConfigError
from polyplane.hookspecs import Applied, Arrival, Drift, Fill, Followed, RuleCount, hookimpl
from polyplane.ir.delta import Delta
from polyplane.ir.program import Action, Origin, Program, Rule

#: Those of the Kubernetes perf-tests, so that their queries and ours add up, and finer ones below: theirs begin at 0.1 s.
_LATENCY: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 3, 5, 10, 30, 60, 300, 600, 1800, 3600)
_WORK: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
#: The policy label of everything beyond the bound.
_OTHERS: Final = "(others)"


class _Decider(NamedTuple):
    """Labels of what decided about packets."""

    kind: str
    namespace: str
    name: str
    direction: str
    verdict: str


class MetricsObserver:
    """Keeps the metrics of one agent. Option: ``policies``, of how many policies packets are counted apart (default 500)."""

    def __init__(self, options: Mapping[str, object], registry: CollectorRegistry = REGISTRY) -> None:
        """Register the metrics.

        :raises ConfigError: an unknown option or a bad value
        """
        for name in options:
            if name != "policies":
                raise ConfigError(f"observer.metrics: unknown option {name!r}; there is policies")
        limit = options.get("policies", 500)
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 0:
            raise ConfigError(f"observer.metrics: option 'policies' is {limit!r}; write a number of policies")
        self._limit = limit
        self._waiting: list[Arrival] = []
        self._counted: dict[int, RuleCount] = {}
        self._named: set[tuple[str, str, str]] = set()
        self._register(registry)

    def _register(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, labels: Sequence[str] = ()) -> Counter:
            return Counter(f"polyplane_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str, labels: Sequence[str] = ()) -> Gauge:
            return Gauge(f"polyplane_{name}", text, labels, registry=registry)

        def seconds(name: str, text: str, buckets: Sequence[float], labels: Sequence[str] = ()) -> Histogram:
            return Histogram(name, text, labels, buckets=buckets, registry=registry)

        gauge("build_info", "Which version this is", ["version"]).labels(version("polyplane")).set(1)
        self._events = counter("events", "Events of the source that were followed")
        self._wait = seconds("polyplane_queue_seconds", "How long the oldest event of a batch lay in the queue", _LATENCY)
        self._compile = seconds("polyplane_compile_duration_seconds", "How long a batch took from objects to a program", _WORK)
        self._apply = seconds("polyplane_apply_duration_seconds", "How long a change took to bring into the kernel", _WORK)
        self._operations = counter("apply_operations", "Native operations that changed the kernel")
        self._native = counter("apply_native", "The same by what they changed, as the backend names it", ["what"])
        self._failures = counter("apply_failures", "Changes that could not be brought into the kernel")
        self._drifts = counter("drifts", "Differences that somebody else made and an audit found")
        self._in_sync = gauge("in_sync", "1 when the source has delivered everything")
        self._in_force = gauge("in_force", "1 while what is wanted is in the kernel")
        self._last = gauge("last_applied_timestamp_seconds", "When the kernel was last brought up to date")
        self._objects = gauge("objects", "Objects of the cluster", ["kind"])
        self._problems = gauge("problems", "Objects and places of the source with something wrong", ["severity"])
        self._unsupported = gauge("unsupported_policies", "Policies that the backend cannot enforce, whose traffic is denied")
        self._endpoints = gauge("endpoints", "Pods of this node")
        self._unknown = gauge("endpoints_unknown", "Addresses and interfaces of this node that are closed because no known pod is there")
        self._isolated = gauge("endpoints_isolated", "Pods of this node that policies isolate", ["direction"])
        self._policies = gauge("policies", "Directions of policies in force on this node")
        self._rules = gauge("rules", "Rules in force on this node")
        self._sets = gauge("sets", "Address sets in force on this node")
        self._entries = gauge("set_entries", "Entries of all address sets")
        self._largest = gauge("set_entries_largest", "Entries of the largest address set")
        self._used = gauge("dataplane_entries", "Entries in a table of the dataplane that has a size", ["table"])
        self._capacity = gauge("dataplane_capacity", "Entries that a table of the dataplane has room for", ["table"])
        labels = ["kind", "policy_namespace", "policy", "direction", "verdict"]
        self._packets = counter("policy_packets", "Packets that a policy decided", labels)
        self._bytes = counter("policy_bytes", "Bytes of the packets that a policy decided", labels)
        self._latency = seconds(
            "polyplane_enforcement_latency_seconds", "From the arrival of a change to its being in the kernel", _LATENCY, ["kind"]
        )
        self._pod_latency = seconds(
            "policy_enforcement_latency_pod_creation_seconds", "From the arrival of a pod's address to policies in the kernel", _LATENCY
        )
        self._policy_latency = seconds(
            "policy_enforcement_latency_policy_creation_seconds", "From the arrival of a new policy to its being in the kernel", _LATENCY
        )

    # --- hooks

    @hookimpl
    def polyplane_followed(self, followed: Followed) -> None:
        """Take over sizes and times, and remember what waits to be in the kernel."""
        self._events.inc(followed.events)
        self._wait.observe(followed.waited)
        self._compile.observe(followed.seconds)
        self._in_sync.set(followed.in_sync)
        for kind, number in followed.objects.items():
            self._objects.labels(kind).set(number)
        severities = Tally(problem.severity for problem in followed.problems.values())
        for severity in Severity:
            self._problems.labels(str(severity)).set(severities[severity])
        self._unsupported.set(len(followed.unsupported))
        self._waiting += followed.arrivals
        if followed.arrivals:
            self._in_force.set(0)

    @hookimpl
    def polyplane_applied(self, delta: Delta, result: Applied, seconds: float) -> None:
        """Note what it took, and for every change that waited how long."""
        now = time.monotonic()
        self._apply.observe(seconds)
        self._operations.inc(result.operations)
        for what, number in result.detail.items():
            self._native.labels(what).inc(max(0, number))
        self._in_force.set(1)
        self._last.set_to_current_time()
        for arrival in self._waiting:
            waited = max(0.0, now - arrival.at)
            self._latency.labels(arrival.key.kind).observe(waited)
            if arrival.new:
                (self._pod_latency if arrival.key.kind == "Pod" else self._policy_latency).observe(waited)
        self._waiting.clear()
        self._measure(delta.target)

    @hookimpl
    def polyplane_failed(self) -> None:
        """Count it."""
        self._failures.inc()
        self._in_force.set(0)

    @hookimpl
    def polyplane_drifted(self, drifts: Sequence[Drift]) -> None:
        """Count them."""
        self._drifts.inc(len(drifts))
        self._in_force.set(0)

    @hookimpl
    def polyplane_counted(self, program: Program, counts: Sequence[RuleCount]) -> None:
        """Add what the rules have decided since the last time to their policies."""
        deciders = dict(_deciders(program))
        fresh = {}
        for count in counts:
            before = self._counted.get(count.rule_id)
            # A counter that went back was created anew and starts from 0.
            known = before is not None and before.packets <= count.packets and before.bytes <= count.bytes
            packets = count.packets - (before.packets if known and before is not None else 0)
            octets = count.bytes - (before.bytes if known and before is not None else 0)
            fresh[count.rule_id] = count
            if (decider := deciders.get(count.rule_id)) is not None and packets:
                labels = self._bounded(decider)
                self._packets.labels(*labels).inc(packets)
                self._bytes.labels(*labels).inc(octets)
        self._counted = fresh

    @hookimpl
    def polyplane_filled(self, fills: Sequence[Fill]) -> None:
        """Show them."""
        for fill in fills:
            self._used.labels(fill.name).set(fill.used)
            self._capacity.labels(fill.name).set(fill.capacity)

    # --- helpers

    def _measure(self, program: Program) -> None:
        known = [endpoint for endpoint in program.endpoints.values() if not is_stranger(endpoint.id)]
        self._endpoints.set(len(known))
        self._unknown.set(len(program.endpoints) - len(known))
        for direction in ("ingress", "egress"):
            isolated = sum(any(tier.isolation for tier in getattr(endpoint, direction)) for endpoint in known)
            self._isolated.labels(direction).set(isolated)
        self._policies.set(len(program.policies))
        self._rules.set(sum(len(policy.rules) for policy in program.policies.values()))
        sizes = [len(one.members) for one in program.sets.values()]
        self._sets.set(len(sizes))
        self._entries.set(sum(sizes))
        self._largest.set(max(sizes, default=0))

    def _bounded(self, decider: _Decider) -> _Decider:
        """Give a policy a label of its own as long as there are few enough."""
        name = decider.kind, decider.namespace, decider.name
        if name not in self._named:
            if len(self._named) >= self._limit:
                return decider._replace(namespace="", name=_OTHERS)
            self._named.add(name)
        return decider


def _deciders(program: Program) -> Iterator[tuple[int, _Decider]]:
    """Yield what each rule id of the program stands for."""
    for one in program.deciders():
        if isinstance(one, Rule):
            verdict = {Action.ALLOW: "allow", Action.DENY: "deny"}.get(one.action, str(one.action))
            yield one.id, _labels(one.origin, verdict)
        elif one.origins:
            # Several policies may isolate a pod: then the first by name answers for all.
            yield one.id, _labels(one.origins[0], "isolate")


def _labels(origin: Origin, verdict: str) -> _Decider:
    return _Decider(origin.kind, origin.namespace, origin.name, str(origin.direction), verdict)
