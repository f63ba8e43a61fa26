from __future__ import annotations

from dataclasses import replace

import pytest
from backend_programs import IN, OUT, endpoint, isolated, policy, program, rule, web, with_content_ids
from hypothesis import given, settings
from ir_programs import packets, programs
from nft_simulator import Simulator

from polyplane.ir.cidr import Cidr
from polyplane.ir.evaluate import Packet, Verdict, endpoint_of, evaluate
from polyplane.ir.program import EMPTY, DenyAction, Direction, Established, Options, Program
from polyplane.reconcile.diff import diff
from polyplane_nftables.layout import Layout
from polyplane_nftables.native import Native, difference
from polyplane_nftables.owned import rule_id_of


def interface_of(enforced: Program, packet: Packet, *, source: bool) -> str:
    owner = endpoint_of(enforced, packet.source if source else packet.destination)
    return (owner.interface if owner else None) or "uplink"


def content(native: Native) -> object:
    return native.chains, native.kinds, native.elements


@settings(deadline=None, max_examples=150)
@given(programs(), packets())
def test_the_layout_decides_as_evaluate_does(drawn: Program, packet: Packet) -> None:
    enforced = replace(with_content_ids(drawn), node_addresses=frozenset())
    interfaces = interface_of(enforced, packet, source=True), interface_of(enforced, packet, source=False)
    seen = Simulator(Layout.of(enforced).native).forward(packet, *interfaces)
    wanted = evaluate(enforced, packet)
    assert seen.allowed is (wanted.verdict is Verdict.ALLOW), (seen, wanted.trail)
    decisions = [decision for decision in (wanted.egress, wanted.ingress) if decision is not None]
    deciding = {decision.rule_id for decision in decisions if decision.rule_id}
    assert {rule_id_of(chain) for chain in seen.counted} - {0} <= deciding
    if not seen.allowed:
        assert seen.counted[-1] == f"d_{wanted.decision.rule_id:08x}"
    assert sorted(seen.logged) == sorted(rule_id for decision in decisions for rule_id in decision.logged)


@settings(deadline=None, max_examples=40)
@given(programs(), programs(), programs())
def test_following_deltas_ends_where_a_whole_layout_begins(one: Program, two: Program, three: Program) -> None:
    layout = Layout.of(with_content_ids(one))
    for target in (with_content_ids(two), with_content_ids(three)):
        before = Layout.of(layout.program).native
        changes = layout.follow(diff(layout.program, target))
        after = Layout.of(target).native
        assert content(layout.native) == content(after)
        assert changes == difference(before, after)


@settings(deadline=None, max_examples=25)
@given(programs())
def test_nothing_is_left_when_everything_goes(drawn: Program) -> None:
    layout = Layout.of(with_content_ids(drawn))
    layout.follow(diff(layout.program, EMPTY))
    assert content(layout.native) == content(Layout.of(EMPTY).native)


def test_options_cannot_be_followed() -> None:
    layout = Layout.of(EMPTY)
    target = replace(EMPTY, options=Options(deny_action=DenyAction.REJECT))
    assert layout.can_follow(diff(EMPTY, EMPTY))
    assert not layout.can_follow(diff(EMPTY, target))
    assert not layout.can_follow(diff(target, target))


@pytest.mark.parametrize(
    ("established", "wanted"),
    [
        (Established.RECHECK, "ct direction reply ct state established,related accept"),
        (Established.KEEP, "ct state established,related accept"),
    ],
)
def test_open_connections_follow_the_option(established: Established, wanted: str) -> None:
    native = Layout.of(replace(EMPTY, options=Options(established=established))).native
    for hook in ("forward", "input"):
        assert wanted in [rule.text for rule in native.chains[hook].rules]


def test_a_forged_packet_to_oneself_is_not_exempt() -> None:
    """Isolation exempts an endpoint's traffic to itself; a neighbour that forges the address gains nothing."""
    native = Layout.of(web()).native
    own = Packet(source=Cidr.parse("10.0.0.1"), destination=Cidr.parse("10.0.0.1"), protocol=6, port=9)
    assert Simulator(native).forward(own, "veth-web", "veth-web").allowed
    assert not Simulator(native).forward(own, "veth-free", "veth-web").allowed


def test_a_neighbour_cannot_borrow_an_address() -> None:
    allow = policy(OUT, rule("out", OUT, 0, protocol=17))
    wanted = program(
        endpoint("a", "veth-a", "10.0.0.1", egress=isolated(OUT)), endpoint("b", "veth-b", "10.0.0.2", egress=isolated(OUT, allow)), allow
    )
    packet = Packet(source=Cidr.parse("10.0.0.2"), destination=Cidr.parse("192.0.2.1"), protocol=17, port=53)
    simulator = Simulator(Layout.of(wanted).native)
    assert simulator.forward(packet, "veth-b", "uplink").allowed
    assert not simulator.forward(packet, "veth-a", "uplink").allowed


@pytest.mark.parametrize("way", [IN, OUT])
def test_a_wrong_interface_opens_nothing(way: Direction) -> None:
    """Whoever can write the annotation could else leave all policy behind by naming an interface that is not the pod's."""
    wrong = endpoint("a", "elsewhere", "10.0.0.1", **{way.value: isolated(way)})
    simulator = Simulator(Layout.of(program(wrong)).native)
    one, other = (Cidr.parse(text) for text in ("10.0.0.1", "192.0.2.1"))
    packet = Packet(source=other if way is IN else one, destination=one if way is IN else other, protocol=6, port=80)
    assert not simulator.forward(packet, "veth-a", "veth-a").allowed
    back = replace(packet, source=packet.destination, destination=packet.source)
    assert simulator.forward(back, "veth-a", "veth-a").allowed


def test_input_asks_egress_only() -> None:
    simulator = Simulator(Layout.of(program(endpoint("a", "veth-a", "10.0.0.1", egress=isolated(OUT)))).native)
    to_node = Packet(source=Cidr.parse("10.0.0.1"), destination=Cidr.parse("172.31.0.1"), protocol=6, port=80)
    assert not simulator.forward(to_node, "veth-a", "lo", hook="input").allowed
    assert not simulator.forward(to_node, "veth-b", "lo", hook="input").allowed, "forged"
    assert simulator.forward(replace(to_node, source=Cidr.parse("10.0.0.9")), "veth-b", "lo", hook="input").allowed


def test_an_interface_that_two_endpoints_claim_tells_neither() -> None:
    one, two = (endpoint(name, "veth", address, ingress=isolated(IN)) for name, address in (("a", "10.0.0.1"), ("b", "10.0.0.2")))
    both, alone = program(one, two), program(one)
    layout = Layout.of(alone)
    assert layout.native.elements["in_ifs"] == {'"veth"': ""}
    layout.follow(diff(alone, both))
    assert "in_ifs" not in layout.native.elements
    assert set(layout.native.elements["in_ips4"]) == {"10.0.0.1", "10.0.0.2"}
    layout.follow(diff(both, alone))
    assert content(layout.native) == content(Layout.of(alone).native)


def test_an_interface_given_up_belongs_to_who_is_left() -> None:
    one, two = (endpoint(name, "veth", address, ingress=isolated(IN)) for name, address in (("a", "10.0.0.1"), ("b", "10.0.0.2")))
    both, apart = program(one, two), program(one, replace(two, interface="other"))
    layout = Layout.of(both)
    layout.follow(diff(both, apart))
    assert set(layout.native.elements["in_ifs"]) == {'"veth"', '"other"'}
    assert content(layout.native) == content(Layout.of(apart).native)


def test_an_address_that_two_endpoints_claim_stays_with_the_first() -> None:
    first = endpoint("a", None, "10.0.0.1", ingress=isolated(IN, name="first"))
    second = endpoint("b", None, "10.0.0.1", "10.0.0.2", ingress=isolated(IN, name="second"))
    both, alone = program(first, second), program(second)
    layout = Layout.of(both)
    denied_by = layout.native.elements["in_anyip4"]
    assert denied_by["10.0.0.1"] != denied_by["10.0.0.2"]
    layout.follow(diff(both, alone))
    assert content(layout.native) == content(Layout.of(alone).native)


def test_a_moved_endpoint_leaves_nothing_behind() -> None:
    here, there = (
        program(endpoint("a", interface, address, ingress=isolated(IN))) for interface, address in (("v1", "10.0.0.1"), ("v2", "10.0.0.2"))
    )
    layout = Layout.of(here)
    layout.follow(diff(here, there))
    assert content(layout.native) == content(Layout.of(there).native)


def test_two_endpoints_with_one_address_at_two_interfaces_part_cleanly() -> None:
    one, two = (endpoint(name, f"veth-{name}", "10.0.0.1", ingress=isolated(IN)) for name in ("a", "b"))
    both, alone = program(one, two), program(two)
    layout = Layout.of(both)
    layout.follow(diff(both, alone))
    assert layout.native.elements["in_bound4"] == {"10.0.0.1": ""}
    assert content(layout.native) == content(Layout.of(alone).native)
