"""Real packets between pods, where the simulator's idea of nftables could be wrong. The conformance suite does the rest."""

from __future__ import annotations

import subprocess
from dataclasses import replace

import pytest
from backend_programs import IN, OUT, isolated, policy, program, rule, with_content_ids
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from ir_programs import programs, stacks

from polyplane.ir.cidr import Cidr
from polyplane.ir.evaluate import Packet, Verdict, evaluate
from polyplane.ir.members import Members
from polyplane.ir.program import (
    EMPTY,
    AddressSet,
    DenyAction,
    Endpoint,
    EndpointId,
    Established,
    IcmpType,
    Options,
    PortRange,
    Program,
    SetId,
    Stack,
)
from polyplane.reconcile.diff import diff
from polyplane_conformance.probe.model import Probe, Traffic
from polyplane_conformance.reachability import Cell
from polyplane_conformance.sandbox import NodeSpec, PodSpec, Port, Sandbox, Topology
from polyplane_nftables.backend import NftablesBackend

pytestmark = pytest.mark.netns

PREFIXES = [Cidr.parse(text) for text in ("10.65.0.0/16", "10.65.1.0/24", "10.65.1.2/31", "fd65::1:0/112", "0.0.0.0/0", "::/0")]


def endpoint_of(pod: PodSpec, *, ingress: Stack = (), egress: Stack = (), by_address: bool = False) -> Endpoint:
    return Endpoint(
        id=EndpointId(pod.id),
        interface=None if by_address else pod.host_interface,
        addresses=tuple(map(Cidr.parse, pod.addresses)),
        ingress=ingress,
        egress=egress,
    )


def packets_of(topology: Topology, cell: Cell) -> list[Packet]:
    """Return what the probe may have looked like: its source port is the kernel's choice."""
    kind = cell.traffic
    source, destination = (Cidr.parse(topology.address_of(name, kind.family) or "") for name in (cell.source, cell.destination))
    icmp = IcmpType(8 if kind.family == 4 else 128, 0) if not kind.port else None
    ports = (32768, 60999) if kind.port else (0,)
    return [
        Packet(source=source, destination=destination, protocol=kind.protocol, source_port=port, port=kind.port, icmp=icmp)
        for port in ports
    ]


def test_packets_pass_exactly_where_evaluate_says_so() -> None:
    topology = Topology.grid("xy", "ab")
    members = [Cidr.parse(address) for pod in topology.pods for address in pod.addresses] + PREFIXES
    seen: set[Verdict] = set()
    with Sandbox.build(topology) as sandbox:
        backend = NftablesBackend({"netns": str(sandbox.node_netns)})
        last = EMPTY

        @settings(deadline=None, max_examples=8, suppress_health_check=list(HealthCheck), database=None, phases=[Phase.generate])
        @given(programs(), st.data())
        def step(drawn: Program, data: st.DataObject) -> None:
            nonlocal last
            ids = {direction: [one.id for one in drawn.policies.values() if one.direction is direction] for direction in (IN, OUT)}
            endpoints = [
                endpoint_of(
                    pod,
                    ingress=data.draw(stacks(ids[IN])),
                    egress=data.draw(stacks(ids[OUT])),
                    by_address=data.draw(st.booleans()),
                )
                for pod in topology.pods
            ]
            sets = {key: replace(one, members=Members(data.draw(st.sets(st.sampled_from(members))))) for key, one in drawn.sets.items()}
            drawn = replace(drawn, endpoints={one.id: one for one in endpoints}, sets=sets, node_addresses=frozenset())
            wanted = with_content_ids(drawn)
            backend.polyplane_apply(diff(last, wanted))
            last = wanted
            pods = [pod.id for pod in topology.pods]
            for cell, result in sandbox.matrix(sources=[*pods, "outside"], destinations=pods).cells.items():
                verdicts = {evaluate(wanted, packet).verdict for packet in packets_of(topology, cell)}
                if cell.source != cell.destination and len(verdicts) == 1:
                    assert {Verdict.ALLOW if result.allowed else Verdict.DENY} == verdicts, (str(cell), result)
                    seen.update(verdicts)

        step()
    assert seen == {Verdict.ALLOW, Verdict.DENY}


@pytest.mark.parametrize(("destination", "way"), [("x/b", "egress"), ("x/b", "ingress"), ("node-1", "egress")])
def test_a_lost_connection_entry_does_not_turn_a_denied_connection_round(destination: str, way: str) -> None:
    """The server sends, its packets would open the connection the other way round, and the denied client is a replier."""
    node = NodeSpec(name="node-1", addresses=("172.31.250.1",), ports=(Port(6, 80),))
    topology = replace(Topology.grid("x", "ab", families=(4,)), nodes=(node,))
    client, server = topology.pods
    everything = program(endpoint_of(client), endpoint_of(server))
    nothing = program(
        endpoint_of(client, egress=isolated(OUT) if way == "egress" else ()),
        endpoint_of(server, ingress=isolated(IN) if way == "ingress" else ()),
    )
    with Sandbox.build(topology) as sandbox:
        backend = NftablesBackend({"netns": str(sandbox.node_netns)})
        backend.polyplane_apply(diff(EMPTY, everything))
        with sandbox.stream(Probe(source=client.id, destination=destination, traffic=Traffic(6, 80)), pushed=True) as stream:
            assert stream.flowing()
            backend.polyplane_apply(diff(everything, nothing))
            subprocess.run(["nsenter", f"--net={sandbox.node_netns}", "conntrack", "-F"], check=True, capture_output=True)
            assert stream.silent()


def test_no_change_loses_or_leaks_a_packet() -> None:
    """Deltas, a repair, new options and the replacement of the whole table, each between two packets of a steady stream."""
    topology = Topology.grid("x", "abc", families=(4,))
    server, friend, stranger = topology.pods
    members = AddressSet(id=SetId("friends"), label="friends", members=Members([Cidr.parse(friend.addresses[0])]))
    more = replace(members, members=members.members.changed(added=[Cidr.parse("10.65.9.9")]))
    allow = policy(IN, rule("web", IN, 0, sets=("friends",), protocol=6, ports=(PortRange(80, 80),)))
    other = policy(IN, rule("other", IN, 0, sets=("friends",), protocol=6))
    where = endpoint_of(server, ingress=isolated(IN, allow))
    programs_in_turn = [
        program(where, allow, members),
        program(where, allow, more),
        program(endpoint_of(server, ingress=isolated(IN, allow, other)), allow, other, more),
        program(endpoint_of(server, ingress=isolated(IN, allow), by_address=True), allow, members),
        program(where, allow, members, options=Options(established=Established.KEEP, deny_action=DenyAction.REJECT)),
    ]
    expected = {
        Probe(source=friend.id, destination=server.id, traffic=Traffic(6, 80)): True,
        Probe(source=stranger.id, destination=server.id, traffic=Traffic(6, 80)): False,
    }
    with Sandbox.build(topology) as sandbox:
        backend = NftablesBackend({"netns": str(sandbox.node_netns)})
        last = programs_in_turn[0]
        backend.polyplane_apply(diff(EMPTY, last))
        with sandbox.barrage(expected, 200) as barrage:
            for wanted in programs_in_turn * 5:
                backend.polyplane_apply(diff(last, wanted))
                last = wanted
                sandbox.run("node-1", ["nft", "add", "counter", "inet", "polyplane", "not_ours"])
                NftablesBackend({"netns": str(sandbox.node_netns)}).polyplane_apply(diff(EMPTY, wanted))
            report = barrage.stop()
        assert backend.polyplane_audit(last) == ()
    assert report.clean and len(report.shots) > 40, str(report)
