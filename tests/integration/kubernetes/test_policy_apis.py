"""Policies for cluster administrators, whose definitions come and go while the agent runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from following import Following, pod

from polyplane.cluster.store import Store
from polyplane.compile.incremental import Compiler
from polyplane.ir.cidr import Cidr
from polyplane.ir.evaluate import Packet, Verdict, evaluate
from polyplane.ir.program import TCP
from polyplane.plugins import dialects
from polyplane_conformance.apiserver import ApiServer, Kind

Follow = Callable[..., Following]
GROUP = "policy.networking.k8s.io"
NEW = Kind(f"{GROUP}/v1alpha2", "ClusterNetworkPolicy", "clusternetworkpolicies", namespaced=False)
OLD = Kind(f"{GROUP}/v1alpha1", "AdminNetworkPolicy", "adminnetworkpolicies", namespaced=False)
OLD_BASELINE = Kind(f"{GROUP}/v1alpha1", "BaselineAdminNetworkPolicy", "baselineadminnetworkpolicies", namespaced=False)


def policy(kind: Kind, name: str, action: str, **spec: Any) -> Any:
    rule = {"action": action, "from": [{"namespaces": {}}]}
    content = {"subject": {"pods": {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "web"}}}}, "ingress": [rule], **spec}
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": name}, "spec": content}


class Node:
    """What a node makes of the events of a source."""

    def __init__(self, following: Following) -> None:
        self._following = following
        self._taken = 0
        self.store = Store(dialects())
        self.compiler = Compiler(node="node-1")

    def lets_in(self) -> bool:
        self._following.take()
        events, self._taken = self._following.events[self._taken :], len(self._following.events)
        program = self.compiler.update([change for event in events for change in self.store.apply(event)])
        packet = Packet(source=Cidr.parse("10.0.0.2/32"), destination=Cidr.parse("10.0.0.1/32"), protocol=TCP, port=80)
        return evaluate(program, packet).verdict is Verdict.ALLOW


def test_definitions_of_both_versions_come_and_go(server: ApiServer, follow: Follow) -> None:
    server.cluster.put(pod("web"))
    server.cluster.put(pod("client", address="10.0.0.2"))
    following = follow(dialects=dialects())
    following.until(lambda: following.syncs)
    node = Node(following)
    assert node.lets_in()

    server.cluster.add_kind(OLD_BASELINE)
    server.cluster.put(policy(OLD_BASELINE, "default", "Deny"))
    following.until(lambda: not node.lets_in())

    server.cluster.add_kind(NEW)
    server.cluster.put(policy(NEW, "open", "Accept", tier="Admin", priority=10))
    following.until(node.lets_in)

    server.cluster.add_kind(OLD)
    server.cluster.put(policy(OLD, "closed", "Deny", priority=9))
    following.until(lambda: not node.lets_in())

    # The older version is removed altogether: what it said is gone, what the other says stays.
    server.cluster.remove_kind(OLD)
    server.cluster.remove_kind(OLD_BASELINE)
    following.until(lambda: node.lets_in() and {key.kind for key in node.store.policies} == {"ClusterNetworkPolicy"})

    server.cluster.put(policy(NEW, "open", "Deny", tier="Baseline", priority=10))
    following.until(lambda: not node.lets_in())
    server.cluster.remove_kind(NEW)
    following.until(node.lets_in)
    assert following.syncs == 1
    assert not node.store.problems
