"""What the switch tells us of packets, with packets: events for observers, answers to senders, and no more than the meter lets through."""

from __future__ import annotations

import re
import time
from dataclasses import replace

import pytest
from backend_programs import IN, admin, endpoint, isolated, policy, program, rule
from ovs_sandbox import backend_of, door, eventually, outcomes
from scapy.layers.inet import UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop
from scapy.layers.l2 import Ether

from polyplane.hookspecs import PacketEvent, PacketEventKind
from polyplane.ir.features import Feature
from polyplane.ir.program import EMPTY, Action, DenyAction, Options, PortRange, Program
from polyplane.reconcile.diff import diff
from polyplane_conformance.probe.model import Outcome, Probe, Traffic
from polyplane_conformance.sandbox import Sandbox
from polyplane_conformance.sandbox.services import Service
from polyplane_ovs import fields
from polyplane_ovs.backend import OvsBackend
from polyplane_ovs.kernel import _RATE
from polyplane_ovs.openflow import PacketIn
from polyplane_ovs.options import OvsOptions
from polyplane_ovs.owned import Stage, cookie
from polyplane_ovs.told import Told

pytestmark = pytest.mark.netns

#: Sends datagrams as fast as it can; argv: address, how many.
FLOOD = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for at in range(int(sys.argv[2])):
    try: s.sendto(b"x", (sys.argv[1], 9))
    except OSError: pass
"""


def logging(sandbox: Sandbox) -> Program:
    """Pod x/a logs TCP 80 and lets everybody in but to TCP 81."""
    logged = policy(
        IN,
        rule("told", IN, 0, Action.LOG, protocol=6, ports=(PortRange(80, 80),)),
        rule("told", IN, 1, Action.DENY, protocol=6, ports=(PortRange(81, 81),)),
    )
    endpoints = [
        replace(endpoint("n", pod.host_interface, *pod.addresses, ingress=admin(logged) if pod.name == "a" else ()), id=pod.id)  # type: ignore[arg-type]
        for pod in sandbox.topology.pods
    ]
    return program(*endpoints, logged, nodes=sandbox.topology.node.addresses)


def ask(sandbox: Sandbox, service: str, family: int) -> Outcome:
    (result,) = sandbox.probe([Probe(source="x/b", destination="x/a", traffic=Traffic.parse(service, family))])
    return result.outcome


def gathered(backend: OvsBackend) -> list[PacketEvent]:
    """The events, from when there are some until there are no more."""
    events: list[PacketEvent] = []

    def over() -> bool:
        more = backend.polyplane_events()
        events.extend(more)
        return bool(events) and not more

    eventually(over)
    return events


def test_a_logged_packet_is_told_and_passes(sandbox: Sandbox) -> None:
    backend, wanted = backend_of(sandbox), logging(sandbox)
    backend.polyplane_apply(diff(EMPTY, wanted))
    pods = {pod.id: pod.addresses for pod in sandbox.topology.pods}
    (log, deny) = next(iter(wanted.policies.values())).rules
    for at, family in enumerate((4, 6)):
        assert ask(sandbox, "tcp/80", family) is Outcome.ALLOWED
        assert ask(sandbox, "tcp/81", family) is Outcome.DENIED
        events = gathered(backend)
        told = {(event.kind, event.rule_id, event.direction, event.protocol, event.port) for event in events}
        assert told == {(PacketEventKind.LOG, log.id, IN, 6, 80)}
        ends = {(event.source.address_text, event.destination.address_text) for event in events}
        assert ends == {(pods["x/b"][at], pods["x/a"][at])}
        assert all(event.source_port > 1024 for event in events)
    backend.polyplane_teardown()

    loud = backend_of(sandbox, tell_denied=True)
    loud.polyplane_apply(diff(EMPTY, wanted))
    assert ask(sandbox, "tcp/81", 4) is Outcome.DENIED
    assert {(event.kind, event.rule_id, event.port) for event in gathered(loud)} == {(PacketEventKind.DENY, deny.id, 81)}


def test_refused_is_answered_also_by_a_switch_that_is_new(sandbox: Sandbox) -> None:
    """Everybody whom the door refuses is told so; without an agent they are dropped as ever, and nothing passes."""
    wanted = door(sandbox, "x/b", options=Options(deny_action=DenyAction.REJECT))
    backend = backend_of(sandbox)
    backend.polyplane_apply(diff(EMPTY, wanted))
    refused = Probe(source="x/c", destination="x/a", traffic=Traffic.parse("tcp/80", 6))
    assert sandbox.probe([refused])[0].outcome is Outcome.REJECTED
    assert f"meter={20560} " in sandbox.run("node-1", ["ovs-ofctl", "-O", "OpenFlow15", "dump-meters", "br-int"])
    switch = sandbox.switches["node-1"]
    switch.kill("ovs-vswitchd")
    switch.start_forwarding()
    eventually(lambda: not backend.polyplane_audit(wanted))
    assert sandbox.probe([refused])[0].outcome is Outcome.REJECTED
    assert "rate=" in sandbox.run("node-1", ["ovs-ofctl", "-O", "OpenFlow15", "dump-meters", "br-int"])
    backend._retire()
    assert outcomes(sandbox) == {"x/b": True, "x/c": False}
    assert backend.polyplane_teardown().operations > 0
    assert "meter=" not in sandbox.run("node-1", ["ovs-ofctl", "-O", "OpenFlow15", "dump-meters", "br-int"])


@pytest.mark.parametrize("protocol", [6, 17])
@pytest.mark.parametrize("isolated_client", [False, True])
def test_refused_through_a_service(sandbox: Sandbox, protocol: int, *, isolated_client: bool) -> None:
    """The answer goes back the way that the packet came, so the node translates it, and it belongs to the client's connection."""
    pods = {pod.id: pod.addresses for pod in sandbox.topology.pods}
    sandbox.add_service(Service(address="10.96.0.7", protocol=protocol, port=80, target=pods["x/a"][0], target_port=80))
    wanted = door(sandbox, "x/b", protocol=protocol, options=Options(deny_action=DenyAction.REJECT))
    if isolated_client:
        (client,) = (each for each in wanted.endpoints.values() if each.id == "x/c")
        wanted = replace(wanted, endpoints={**wanted.endpoints, client.id: replace(client, ingress=isolated(IN))})
    backend = backend_of(sandbox)  # while it lives, it answers
    backend.polyplane_apply(diff(EMPTY, wanted))
    probes = [Probe(source=source, destination="x/a", traffic=Traffic(protocol, 80), address="10.96.0.7") for source in ("x/b", "x/c")]
    assert [result.outcome for result in sandbox.probe(probes)] == [Outcome.ALLOWED, Outcome.REJECTED]
    backend.polyplane_teardown()


def test_a_flood_is_not_told_in_full(sandbox: Sandbox) -> None:
    """The switch's own meter counts: of many denied packets it passes on so many a second and drops the telling of the rest."""
    backend = backend_of(sandbox, tell_denied=True)
    backend.polyplane_apply(diff(EMPTY, door(sandbox, "x/b")))
    target = next(pod for pod in sandbox.topology.pods if pod.id == "x/a").addresses[0]
    began = time.monotonic()
    sandbox.run("x/c", ["python3", "-c", FLOOD, target, "30000"])
    took = time.monotonic() - began
    said = sandbox.run("node-1", ["ovs-ofctl", "-O", "OpenFlow15", "meter-stats", "br-int"])
    (seen,), (dropped,) = ([int(count) for count in re.findall(rf"{name}:(\d+)", said)] for name in ("packet_in_count", "packet_count"))
    assert seen > 2 * _RATE, said
    assert 0 < seen - dropped < _RATE * (took + 3), said
    assert outcomes(sandbox) == {"x/b": True, "x/c": False}


def test_without_a_watcher_there_is_nobody_to_answer(sandbox: Sandbox) -> None:
    backend = backend_of(sandbox, watch=False)
    there = backend.polyplane_capabilities()
    assert {gap.feature for gap in there.unsupported} == {Feature.REJECT, Feature.LOG}
    wanted = door(sandbox, "x/b", options=Options(deny_action=DenyAction.REJECT))
    backend.polyplane_apply(diff(EMPTY, wanted))
    assert outcomes(sandbox) == {"x/b": True, "x/c": False}
    assert not backend_of(sandbox).polyplane_capabilities().unsupported


@pytest.mark.parametrize("reply", [False, True])
def test_the_source_port_is_behind_all_headers(*, reply: bool) -> None:
    """It is no part of what decides, so the switch tells it by the packet alone; of a later fragment nobody knows it."""
    options, registers = OvsOptions.parse({}), [0] * 16
    registers[fields.KEY], registers[fields.FLAGS] = 17 << 16 | 53, fields.REPLY * reply
    ends = Ether() / IPv6(src="fd00::1", dst="fd00::2") / IPv6ExtHdrHopByHop()
    datagram = UDP(sport=53 if reply else 5000, dport=5000 if reply else 53)
    told = Told(options)
    for packet in (ends / datagram, ends / IPv6ExtHdrFragment(offset=1, nh=17) / bytes(8)):
        told.take(PacketIn(cookie(7), options.first_table + Stage.INGRESS, 1, tuple(registers), bytes(packet)), lambda *_: None)
    assert [(event.source_port, event.port) for event in told.events()] == [(5000, 53), (0, 53)]
