"""Behaviour: work is proportional to the change. Operations are counted, not timed."""

from __future__ import annotations

import pytest

from polyplane_conformance.actions import AddPod, LabelPod, RemovePod
from polyplane_conformance.cast import AddressPlan
from polyplane_conformance.stage import Stage, only_from, pod, policy

pytestmark = [pytest.mark.tier("netns"), pytest.mark.netns]


def test_applying_again_does_nothing(stage: Stage) -> None:
    """An agent that starts with no memory and finds all in order changes nothing."""
    world = stage.begin(policy("x/door", podSelector={}, ingress=only_from("b", ports=[{"port": "serve-80-tcp"}, {"protocol": "UDP"}])))
    assert stage.rig.restart(world).operations == 0


def test_irrelevant_changes_do_nothing(stage: Stage) -> None:
    """A label that no policy asks for, and a policy that selects no pod of this node, reach the kernel not at all."""
    stage.begin(policy("x/door", podSelector=pod("a"), ingress=only_from("b")))
    assert stage.act(LabelPod(pod="x/b", set={"irrelevant": "yes"})) == 0
    assert stage.act(policy("elsewhere/door", podSelector={}, policyTypes=["Ingress", "Egress"])) == 0


def _one_pod(stage: Stage, policies: int) -> tuple[int, int]:
    """Operations that one pod more and one pod less take, among so many policies that all admit it."""
    peers = [{"namespaceSelector": {"matchLabels": {"ns": "y"}}}]
    stage.begin()
    stage.act(
        *(
            policy(f"x/p{number}", podSelector={}, ingress=[{"from": peers, "ports": [{"port": 1000 + number}, {"port": 80}]}])
            for number in range(policies)
        )
    )
    added = stage.act(AddPod(pod="y/d"))
    stage.expect(allowed=["y/d -> x/a"], denied=["z/a -> x/a"])
    return added, stage.act(RemovePod(pod="y/d"))


def test_one_pod_costs_the_same_among_many_policies(stage: Stage) -> None:
    """A pod joins a peer set used by 10 policies, or by 200: as many operations, and few.

    The pod is on this node, and what the dataplane has to know of each of those counts as well; see `Gaps.pod_operations`.
    """
    few = _one_pod(stage, 10)
    many = _one_pod(stage, 200)
    assert few == many
    assert max(few) <= stage.rig.backend.gaps.pod_operations


def test_250_endpoints(stage: Stage) -> None:
    """A full node: all are enforced, a restart changes nothing, and a change of one pod costs what it costs on a node with few."""
    costs = []
    for size in (3, 250):
        world = stage.begin()
        crowd = {f"x/n{number:03}": {4: f"10.245.0.{number + 1}", 6: f"fd00:10:245::{number + 1:x}"} for number in range(size)}
        world.plan = AddressPlan({**world.plan.addresses, **crowd})
        stage.act(policy("x/door", podSelector={}, ingress=only_from("b")), *(AddPod(pod=name, labels={"pod": "n"}) for name in crowd))
        stage.expect(allowed=["x/b -> x/a", "x/a -> y/a"], denied=["x/c -> x/a", "z/a -> x/a"])
        assert stage.rig.restart(world).operations == 0
        costs.append((stage.act(LabelPod(pod="x/c", set={"pod": "b"})), stage.act(RemovePod(pod="x/n000"))))
        stage.expect(allowed=["x/b -> x/a", "x/c -> x/a"], denied=["z/a -> x/a"])
    few, many = costs
    assert few == many
    assert 0 < many[0] <= 8
    assert 0 < many[1] <= 16


def test_one_policy_does_not_touch_the_others(stage: Stage) -> None:
    """A policy for one pod costs the same whatever the others have."""
    costs = []
    for others in (0, 50):
        stage.begin()
        stage.act(
            *(policy(f"y/p{number}", podSelector={}, ingress=only_from("b", ports=[{"port": 2000 + number}])) for number in range(others))
        )
        costs.append(stage.act(policy("x/door", podSelector=pod("a"), ingress=only_from("b"))))
    assert costs[1] <= costs[0] + 2
