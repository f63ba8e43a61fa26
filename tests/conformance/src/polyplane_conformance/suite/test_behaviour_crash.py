"""Behaviour: an agent that dies in the middle of an apply leaves nothing open, and the next one repairs everything."""

from __future__ import annotations

from typing import Final

import pytest

from polyplane.ir.program import Program
from polyplane.reconcile.diff import diff
from polyplane_conformance.actions import DeletePolicy, LabelPod
from polyplane_conformance.crash import count_calls, die_at, strides
from polyplane_conformance.stage import Stage, only_from, pod, policy

pytestmark = [pytest.mark.tier("netns"), pytest.mark.netns]

#: Moments of an apply at which the agent dies.
POINTS: Final = 12


def test_dying_anywhere_leaves_nothing_open(stage: Stage) -> None:
    """What both programs deny stays denied at every moment, what both allow works again with the next agent, and that is exact."""
    rig = stage.rig
    stage.begin(policy("x/door", podSelector=pod("a"), ingress=only_from("b")), policy("y/closed", podSelector={}, policyTypes=["Ingress"]))
    before = rig.program
    stage.act(
        policy("x/door", podSelector={}, policyTypes=["Ingress", "Egress"], ingress=only_from("b"), egress=[{}]),
        policy("z/new", podSelector={}, ingress=only_from("a", ports=[{"port": 80, "endPort": 81}])),
        LabelPod(pod="x/c", set={"pod": "b"}),
        DeletePolicy(name="y/closed"),
    )
    after = rig.program
    shut = ["z/a -> x/a", "y/b -> x/a", "outside -> x/a"]

    def work() -> None:
        rig.load().apply(diff(Program(), after))

    def restore() -> None:
        rig.load().apply(diff(Program(), before))

    restore()
    calls = count_calls(work)
    restore()
    deaths = 0
    for point in strides(calls, POINTS):
        deaths += die_at(work, point)
        stage.expect(denied=shut)
        anew = rig.load()
        anew.apply(diff(Program(), after))
        assert not anew.audit(after), f"drift after a death at call {point} of {calls}"
        restore()
        assert not rig.load().audit(before), f"drift on the way back from a death at call {point} of {calls}"
    assert deaths
    rig.load().apply(diff(Program(), after))
    stage.expect(allowed=["x/b -> x/a", "x/c -> x/a", "z/a -> y/b", "z/a -> z/b"], denied=[*shut, "z/b -> z/c"])
