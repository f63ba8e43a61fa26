"""Packets while one version takes over from another: none that may pass is lost, none that may not passes."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ebpf_cases import SMALL, start

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
from polyplane_conformance.probe.model import Probe, Traffic
from polyplane_conformance.sandbox import Sandbox, Topology
from polyplane_ebpf.backend import EbpfBackend

pytestmark = [
    pytest.mark.netns,
    pytest.mark.skipif(os.geteuid() != 0 or shutil.which("ip") is None, reason="needs root and iproute2 to build a sandbox"),
]


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox.build(Topology.grid(namespaces="x", names="abc")) as built:
        yield built
        EbpfBackend({"netns": str(built.node_netns)}).polyplane_teardown()


def program_of(sandbox: Sandbox) -> Program:
    """Every pod is isolated both ways; x/b may open connections to x/a, and that is all."""
    pods = {pod.id: tuple(sorted(map(Cidr.parse, pod.addresses))) for pod in sandbox.topology.pods}
    sets = {SetId(name): AddressSet(id=SetId(name), label=name, members=Members(addresses)) for name, addresses in pods.items()}
    policies, stacks = {}, {}
    for direction, peer in ((Direction.INGRESS, "x/b"), (Direction.EGRESS, "x/a")):
        origin = Origin(kind="Test", namespace="x", name=direction, direction=direction, index=0)
        rule = Rule(id=1, action=Action.ALLOW, match=Match(peer=(PeerTerm((SetId(peer),)),)), origin=origin)
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
    return Program(endpoints=endpoints, policies={policy.id: policy for policy in policies.values()}, sets=sets)


def test_another_layout_takes_over_without_a_gap(sandbox: Sandbox) -> None:
    program = program_of(sandbox)
    options = {**SMALL, "netns": str(sandbox.node_netns)}
    EbpfBackend(options).polyplane_apply(start(program))
    expected = {
        Probe(source=source, destination="x/a", traffic=Traffic.parse(service, family)): source == "x/b"
        for source in ("x/b", "x/c")
        for service in ("TCP/80", "UDP/80")
        for family in (4, 6)
    }
    with sandbox.barrage(expected, 100) as barrage:
        for sizes in ({}, {"max_rows": 8192}, {}):
            time.sleep(0.5)
            (current,) = Path("/sys/fs/bpf/polyplane").glob(f"v1/ns-{sandbox.node_netns.stat().st_ino}")
            if not sizes:
                old = current.parents[1] / "v0" / current.name
                old.mkdir(parents=True)
                for pin in current.iterdir():
                    pin.rename(old / pin.name)
                current.rmdir()
            taken = EbpfBackend({**options, **sizes}).polyplane_apply(start(program))
            assert taken.detail["links"] >= 12, "six came, six went"
        time.sleep(0.7)
    report = barrage.stop()
    assert report.clean, str(report)
    assert len(report.shots) > 150
