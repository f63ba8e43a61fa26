"""Pods in a sandbox and what may reach what, for the tests of this backend."""

from __future__ import annotations

from polyplane.ir.cidr import Cidr
from polyplane.ir.members import Members
from polyplane.ir.program import (
    Action,
    AddressSet,
    Direction,
    Endpoint,
    EndpointId,
    Isolation,
    Match,
    Options,
    Origin,
    PeerTerm,
    Policy,
    PolicyId,
    Program,
    Rule,
    SetId,
    Tier,
    TierEnd,
)
from polyplane_conformance.sandbox import Sandbox


def program_of(sandbox: Sandbox, options: Options = Options()) -> Program:  # noqa: B008  # frozen
    """Every pod is isolated both ways; x/b may open connections to x/a and to its node, and that is all."""
    pods = {pod.id: tuple(sorted(map(Cidr.parse, pod.addresses))) for pod in sandbox.topology.pods}
    node = tuple(map(Cidr.parse, sandbox.topology.node.addresses))
    sets = {
        SetId(name): AddressSet(id=SetId(name), label=name, members=Members(addresses))
        for name, addresses in {**pods, "node": node}.items()
    }
    policies, stacks = {}, {}
    for direction, peers in ((Direction.INGRESS, ("x/b",)), (Direction.EGRESS, ("node", "x/a"))):
        origin = Origin(kind="Test", namespace="x", name=direction, direction=direction, index=0)
        rule = Rule(id=1, action=Action.ALLOW, match=Match(peer=(PeerTerm(tuple(map(SetId, peers))),)), origin=origin)
        policies[direction] = Policy(id=PolicyId(direction), direction=direction, rules=(rule,))
        for name, admitted in (("open", (policies[direction].id,)), ("closed", ())):
            stacks[direction, name] = (Tier(name=name, policies=admitted, end=TierEnd.DENY, isolation=Isolation(id=9, origins=(origin,))),)
    endpoints = {
        EndpointId(pod.id): Endpoint(
            id=EndpointId(pod.id),
            interface=pod.host_interface,
            addresses=pods[pod.id],
            ingress=stacks[Direction.INGRESS, "open" if pod.id == "x/a" else "closed"],
            egress=stacks[Direction.EGRESS, "open" if pod.id == "x/b" else "closed"],
        )
        for pod in sandbox.topology.pods
    }
    return Program(
        endpoints=endpoints,
        policies={policy.id: policy for policy in policies.values()},
        sets=sets,
        node_addresses=frozenset(node),
        options=options,
    )
