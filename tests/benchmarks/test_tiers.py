"""How much work a change is on a node with many policies for cluster administrators: the same, however many there are."""

from __future__ import annotations

import pytest
from test_operations import NODE, PODS_PER_NODE, pod, put

from polyplane import plugins
from polyplane.cluster.model import PutObject, RemoveObject, SourceEvent
from polyplane.cluster.store import Store
from polyplane.compile.incremental import Compiler
from polyplane.ir.delta import ChangeMembers, Operation
from polyplane.reconcile.diff import diff

API_VERSION = "policy.networking.k8s.io/v1alpha2"


def tiered(number: int) -> PutObject:
    """One of many policies of both tiers: everybody denies or passes app-0 on a port of its own."""
    rule = {
        "action": "Deny" if number % 3 else "Pass",
        "from": [{"pods": {"podSelector": {"matchLabels": {"app": "app-0"}}}}],
        "protocols": [{"tcp": {"destinationPort": {"number": 8000 + number}}}],
    }
    tier = "Admin" if number % 2 else "Baseline"
    spec = {"tier": tier, "priority": number, "subject": {"namespaces": {}}, "ingress": [rule]}
    return put(API_VERSION, "ClusterNetworkPolicy", "", f"policy-{number}", {"spec": spec})


class Node:
    """One node and what each event makes it do."""

    def __init__(self, policies: int) -> None:
        self.store, self.compiler = Store(plugins.dialects()), Compiler(node=NODE)
        self.after(*(pod(number) for number in range(2 * PODS_PER_NODE)), *(tiered(number) for number in range(policies)))

    def after(self, *events: SourceEvent) -> tuple[Operation, ...]:
        before = self.compiler.program
        after = self.compiler.update([change for event in events for change in self.store.apply(event)])
        return diff(before, after).operations


@pytest.mark.parametrize("policies", [10, 200])
def test_work_does_not_grow_with_the_policies(policies: int) -> None:
    node = Node(policies)
    assert not node.store.problems
    assert len(node.compiler.program.policies) == policies
    # All of them mean the same peers, so there is one set, and a pod that comes or goes is one change of it.
    assert len(node.compiler.program.sets) == 1
    remote = pod(3 * PODS_PER_NODE, app="app-0")
    for event in (remote, RemoveObject(remote.key)):
        (operation,) = node.after(event)
        assert isinstance(operation, ChangeMembers)
    local = pod(PODS_PER_NODE - 1, app="new")
    assert len(node.after(RemoveObject(local.key))) == 1
    built = node.compiler.recomputations["endpoints built"]
    assert len(node.after(local)) == 1
    assert node.compiler.recomputations["endpoints built"] == built + 1


def test_a_new_policy_is_lowered_once_for_all_pods() -> None:
    node = Node(20)
    lowered = node.compiler.recomputations["policies lowered"]
    operations = node.after(tiered(20))
    assert node.compiler.recomputations["policies lowered"] == lowered + 1
    # The policy itself, and every pod of the node, which all have it.
    assert len(operations) == 1 + PODS_PER_NODE
