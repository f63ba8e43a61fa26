"""How much work a cold start and a single change are, by the size of the cluster: counts asserted, CPU time recorded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from polyplane import plugins
from polyplane.cluster.model import Change, InSync, ObjectKey, PutObject, RemoveObject, SourceEvent
from polyplane.cluster.store import Store
from polyplane.compile.incremental import Compiler
from polyplane.hookspecs import BACKENDS
from polyplane.ir.delta import ChangeMembers
from polyplane.ir.program import EMPTY, EndpointId, Program
from polyplane.reconcile.diff import diff

NODE = "node-0"
APPS = 10
PODS_PER_NAMESPACE = 100
PODS_PER_NODE = 50


@dataclass(frozen=True)
class Size:
    """A cluster of ``pods`` pods, 50 a node and 100 a namespace, with ``policies`` policies spread evenly over the namespaces."""

    pods: int
    policies: int

    def __str__(self) -> str:
        return f"{self.pods} pods, {self.policies} policies"

    def events(self) -> Iterator[SourceEvent]:
        for number in range(self.pods // PODS_PER_NAMESPACE):
            yield put("v1", "Namespace", "", f"ns-{number}", {})
        for number in range(self.pods):
            yield pod(number)
        for number in range(self.policies):
            yield policy(*divmod(number, self.pods // PODS_PER_NAMESPACE))
        yield InSync()

    @property
    def local_policies(self) -> int:
        """Policies of the namespace ns-0, the only one with pods on the node; each selects one app, and all apps have pods there."""
        return len(range(0, self.policies, self.pods // PODS_PER_NAMESPACE))


def put(api_version: str, kind: str, namespace: str, name: str, content: dict[str, Any]) -> PutObject:
    metadata = {"name": name, **({"namespace": namespace} if namespace else {}), **content.pop("metadata", {})}
    raw = {"apiVersion": api_version, "kind": kind, "metadata": metadata, **content}
    return PutObject(key=ObjectKey(api_version, kind, namespace, name), raw=raw)


def pod(number: int, *, app: str | None = None) -> PutObject:
    metadata = {"labels": {"app": app or f"app-{number % APPS}", "number": str(number)}}
    address = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
    content = {
        "metadata": metadata,
        "spec": {
            "nodeName": f"node-{number // PODS_PER_NODE}",
            "containers": [{"name": "main", "ports": [{"name": "http", "containerPort": 80}]}],
        },
        "status": {"phase": "Running", "podIPs": [{"ip": address}, {"ip": f"fd00::{number:x}"}]},
    }
    return put("v1", "Pod", f"ns-{number // PODS_PER_NAMESPACE}", f"pod-{number}", content)


def policy(number: int, namespace: int) -> PutObject:
    """The number-th policy of a namespace: one app may be called by another, and by app-0 of every namespace, on a port of its own."""
    spec = {
        "podSelector": {"matchLabels": {"app": f"app-{number % APPS}"}},
        "ingress": [
            {
                "from": [
                    {"podSelector": {"matchLabels": {"app": f"app-{(number + 1) % APPS}"}}},
                    {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "app-0"}}},
                ],
                "ports": [{"port": 8000 + number % 1000}],
            }
        ],
    }
    return put("networking.k8s.io/v1", "NetworkPolicy", f"ns-{namespace}", f"policy-{number}", {"spec": spec})


SMALL = [Size(1000, 100)]
LARGE = [Size(1000, 1000), Size(10_000, 100), Size(10_000, 1000)]


@pytest.mark.parametrize(
    "size", [*SMALL, *(pytest.param(size, marks=[pytest.mark.slow, pytest.mark.needs("--benchmarks")]) for size in LARGE)], ids=str
)
def test_work_is_proportional_to_the_change(size: Size, recorder: Any) -> None:  # a fixture
    events = list(size.events())
    store, compiler = Store(plugins.dialects()), Compiler(node=NODE)

    def apply(*wanted: SourceEvent) -> list[Change]:
        return [change for event in wanted for change in store.apply(event)]

    # A cold start: only what this node's pods need reaches the backend.
    changes = recorder.cpu(str(size), "objects into the store", lambda: apply(*events), len)
    program: Program = recorder.cpu(str(size), "cold compile", lambda: compiler.update(changes), lambda program: len(program.policies))
    assert not store.problems
    assert len(program.endpoints) == PODS_PER_NODE
    assert len(program.policies) == size.local_policies
    assert len(program.sets) <= APPS + 1
    delta = recorder.cpu(str(size), "cold diff", lambda: diff(EMPTY, program), lambda delta: len(delta.operations))
    assert len(delta.operations) == len(program.endpoints) + len(program.policies) + len(program.sets)
    for name in sorted(plugin.name for plugin in plugins.list_plugins(BACKENDS)):
        backend = plugins.load_backend(name, {})
        recorder.cpu(str(size), f"cold render, {name}, lines", lambda backend=backend: backend.render(delta), lambda text: text.count("\n"))

    # No change: no work, and the very same program.
    assert compiler.update([]) is program

    # A pod elsewhere that is no peer of any local policy changes nothing here; one that is, is one member of each set it is in.
    far = size.pods - 1
    steps = [
        ("remote pod that is nobody's peer", apply(pod(far, app="other")), 0),
        ("remote pod into a set used by all policies", apply(pod(far, app="app-0")), 1),
        ("remote pod out of it again", apply(RemoveObject(pod(far).key)), 1),
    ]
    for what, change, expected in steps:
        before = compiler.program
        after = recorder.cpu(str(size), what, lambda change=change: compiler.update(change))
        operations = recorder.cpu(
            str(size), "its diff", lambda before=before, after=after: diff(before, after), lambda delta: len(delta.operations)
        ).operations
        assert len(operations) == expected
        assert all(isinstance(operation, ChangeMembers) for operation in operations)

    # A new local pod: itself, and one operation for each set it is in (app-0 everywhere, perhaps app-0 of its namespace).
    before = compiler.program
    born = pod(PODS_PER_NODE - APPS)
    compiler.update(apply(RemoveObject(born.key)))
    without = compiler.program
    after = recorder.cpu(str(size), "new local pod", lambda: compiler.update(apply(born)))
    operations = diff(without, after).operations
    addresses = after.endpoints[EndpointId("ns-0/pod-40")].addresses
    memberships = sum(any(address in entry.members for address in addresses) for entry in after.sets.values())
    assert memberships in (1, 2)
    assert len(operations) == 1 + memberships
    assert after.same_content(before)
