"""Behaviour: more tiers than the policy APIs known today have; plugins may bring others."""

from __future__ import annotations

from dataclasses import replace

import pytest

from polyplane.ir.program import (
    ANY,
    TCP,
    Action,
    Direction,
    Endpoint,
    Match,
    Origin,
    Policy,
    PolicyId,
    PortRange,
    Program,
    Rule,
    Tier,
    TierEnd,
    digest,
)
from polyplane_conformance.stage import Stage, only_from, pod, policy

pytestmark = [pytest.mark.tier("netns"), pytest.mark.netns]

#: Far more than nested chains can be: 16 in nf_tables.
MANY = 24
DOOR = policy("x/door", podSelector=pod("a"), ingress=only_from("b"))


def _policy(number: int, *rules: tuple[Action, Match]) -> Policy:
    """Return a policy of nobody's API."""
    made = tuple(
        Rule(
            id=number * 10 + index + 1,
            action=action,
            match=match,
            origin=Origin(kind="Tiered", namespace="", name=f"tier-{number}", direction=Direction.INGRESS, index=index),
        )
        for index, (action, match) in enumerate(rules)
    )
    return Policy(id=PolicyId(digest(repr(made))), direction=Direction.INGRESS, rules=made)


def _behind(program: Program, count: int) -> Program:
    """Put so many tiers before everybody's own: the first half passes all, the others have nothing to say, the last denies a port."""
    passing = [_policy(number, (Action.PASS, ANY), (Action.DENY, ANY)) for number in range(count // 2)]
    silent = [
        _policy(number, (Action.DENY, Match(protocol=TCP, ports=(PortRange(9000 + number, 9000 + number),))))
        for number in range(count // 2, count)
    ]
    last = _policy(count, (Action.DENY, Match(protocol=TCP, ports=(PortRange(81, 81),))), (Action.PASS, ANY))
    policies = [*passing, *silent, last]
    tiers = tuple(Tier(name=f"tier-{at}", policies=(policy.id,), end=TierEnd.NEXT) for at, policy in enumerate(policies))

    def behind(endpoint: Endpoint) -> Endpoint:
        return replace(endpoint, ingress=(*tiers, *endpoint.ingress))

    return replace(
        program,
        revision=program.revision + 1,
        endpoints={key: behind(endpoint) for key, endpoint in program.endpoints.items()},
        policies={**program.policies, **{policy.id: policy for policy in policies}},
    )


def test_many_tiers_are_asked_to_the_last(stage: Stage) -> None:
    """However many tiers pass a packet on or have nothing to say about it, the next one is asked, in any number of steps."""
    stage.begin(DOOR)
    own = stage.rig.program
    for count in (2, MANY):
        stage.rig.enforce(_behind(own, count))
        stage.expect("TCP/80", allowed=["x/b -> x/a", "y/a -> x/c"], denied=["x/c -> x/a", "y/a -> x/a"])
        stage.expect("TCP/81", denied=["x/b -> x/a", "y/a -> x/c"])
        stage.expect("UDP/80", allowed=["x/b -> x/a", "y/a -> x/c"], denied=["x/c -> x/a"])
        assert not stage.rig.dataplane.audit(stage.rig.program)
    stage.rig.enforce(own)
    stage.expect("TCP/81", allowed=["x/b -> x/a", "y/a -> x/c"], denied=["x/c -> x/a"])
