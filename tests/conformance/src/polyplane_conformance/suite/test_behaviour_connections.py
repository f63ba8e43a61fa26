"""Behaviour: what becomes of open connections when policy changes."""

from __future__ import annotations

import pytest

from polyplane.ir.program import Established, Options
from polyplane_conformance.actions import DeletePolicy
from polyplane_conformance.needs import require
from polyplane_conformance.stage import Stage, only_from, pod, policy

pytestmark = [pytest.mark.tier("netns"), pytest.mark.netns]

FROM_B = policy("x/door", podSelector=pod("a"), ingress=only_from("b"))
FROM_C = policy("x/door", podSelector=pod("a"), ingress=only_from("c"))
NO_WAY_OUT = policy("x/out", podSelector=pod("b"), policyTypes=["Egress"])
KEEP = Options(established=Established.KEEP)


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("service", ["TCP/80", "UDP/80"])
def test_recheck_cuts_what_is_no_longer_allowed(stage: Stage, service: str, family: int) -> None:
    """By default a connection ends with its permission, and others go on."""
    stage.begin(FROM_B)
    with stage.stream("x/b", "x/a", service, family=family) as cut, stage.stream("y/b", "y/a", service, family=family) as other:
        assert cut.flowing()
        assert other.flowing()
        stage.act(FROM_C)
        assert cut.silent()
        assert other.flowing()


def test_recheck_cuts_when_the_client_may_not_leave(stage: Stage) -> None:
    """The way out counts like the way in."""
    stage.begin()
    with stage.stream("x/b", "x/a") as cut:
        assert cut.flowing()
        stage.act(NO_WAY_OUT)
        assert cut.silent()


def test_recheck_cuts_a_server_that_only_sends(stage: Stage) -> None:
    """A server that speaks while the client only listens is cut as well: the client's acknowledgements do not arrive."""
    stage.begin(FROM_B)
    with stage.stream("x/b", "x/a", pushed=True) as cut:
        assert cut.flowing()
        stage.act(FROM_C)
        assert cut.silent(timeout=30)


def test_recheck_lets_allowed_connections_live(stage: Stage) -> None:
    """A change that still allows a connection does not disturb it; nor does the last policy's deletion."""
    stage.begin(FROM_B)
    with stage.stream("x/b", "x/a") as kept:
        assert kept.flowing()
        stage.act(policy("x/door", podSelector=pod("a"), ingress=only_from("b", "c")))
        assert kept.flowing()
        stage.act(DeletePolicy(name="*"))
        assert kept.flowing()


def test_keep_leaves_open_connections_alone(stage: Stage) -> None:
    """With ``keep`` an open connection outlives its permission; a new one is denied."""
    stage.begin(FROM_B, options=KEEP)
    with stage.stream("x/b", "x/a") as kept, stage.stream("x/b", "x/a", "UDP/80") as datagrams:
        assert kept.flowing()
        assert datagrams.flowing()
        stage.act(FROM_C)
        assert kept.flowing()
        assert datagrams.flowing()
        stage.expect(denied=["x/b -> x/a"], allowed=["x/c -> x/a"])


def test_forgotten_connections_start_anew(stage: Stage) -> None:
    """When the kernel forgets its connections, allowed ones go on, and those that are no longer allowed are not revived."""
    require("conntrack")
    stage.begin(FROM_B, options=KEEP)
    with stage.stream("x/b", "x/a") as kept:
        assert kept.flowing()
        stage.conntrack_flush()
        assert kept.flowing(timeout=30)
        stage.act(FROM_C)
        stage.conntrack_flush()
        assert kept.silent(timeout=30)


def test_replies_need_no_permission(stage: Stage) -> None:
    """A pod that may not be reached gets its answers; a pod that may not leave gives them."""
    stage.begin(
        policy("x/in", podSelector=pod("a"), policyTypes=["Ingress"]),
        policy("x/out", podSelector=pod("b"), policyTypes=["Egress"]),
    )
    for service in ("TCP/80", "UDP/80", "ICMP"):
        stage.expect(service, allowed=["x/a -> x/b", "x/a -> y/a", "y/a -> x/b"], denied=["x/b -> x/c", "y/a -> x/a"])
