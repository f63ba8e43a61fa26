from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest
from backend_programs import IN, address_set, admin, endpoint, isolated, policy, program, rule, with_content_ids
from hypothesis import Phase, assume, given, settings
from hypothesis import strategies as st
from ipt_simulator import Simulator, stages
from ir_programs import packets, programs

from polyplane.ir.cidr import Cidr
from polyplane.ir.evaluate import Packet, Verdict, endpoint_of, evaluate
from polyplane.ir.program import EMPTY, Action, Established, Options, Program
from polyplane.reconcile.diff import diff
from polyplane_iptables.layout import Layout
from polyplane_iptables.native import Native
from polyplane_iptables.render import plan_to


def interface_of(program: Program, packet: Packet, *, source: bool) -> str:
    endpoint = endpoint_of(program, packet.source if source else packet.destination)
    return (endpoint.interface if endpoint else None) or "uplink"


def real(packet: Packet) -> bool:
    """Whether a stack could send such a packet: ICMP is of its own family."""
    return packet.protocol not in (1, 58) or (packet.protocol == 1) is (packet.source.family == 4)


def wanted_of(program: Program) -> Program:
    return replace(with_content_ids(program), node_addresses=frozenset())


def walk(native: Native, program: Program, packet: Packet) -> bool:
    interfaces = interface_of(program, packet, source=True), interface_of(program, packet, source=False)
    return Simulator(native).forward(packet, *interfaces).allowed


@settings(deadline=None, max_examples=120, phases=[Phase.generate])
@given(programs(), packets())
def test_the_layout_decides_as_evaluate_does(program: Program, packet: Packet) -> None:
    assume(real(packet))
    program = wanted_of(program)
    interfaces = interface_of(program, packet, source=True), interface_of(program, packet, source=False)
    seen = Simulator(Layout.of(program).native({})).forward(packet, *interfaces)
    wanted = evaluate(program, packet)
    assert seen.allowed is (wanted.verdict is Verdict.ALLOW), (seen, wanted.trail)
    decisions = [decision for decision in (wanted.egress, wanted.ingress) if decision is not None]
    assert seen.decided == [decision.rule_id for decision in decisions if decision.rule_id]
    assert sorted(seen.logged) == sorted(rule_id for decision in decisions for rule_id in decision.logged)


@settings(deadline=None, max_examples=60)
@given(programs(), programs(), programs())
def test_following_deltas_ends_where_a_whole_layout_begins(one: Program, two: Program, three: Program) -> None:
    layout = Layout.of(wanted_of(one))
    layout.native({})
    for wanted in (wanted_of(two), wanted_of(three)):
        layout.follow(diff(layout.program, wanted))
        assert layout.native({}) == Layout.of(wanted).native({})


@settings(deadline=None, max_examples=25)
@given(programs())
def test_nothing_is_left_when_everything_goes(program: Program) -> None:
    layout = Layout.of(wanted_of(program))
    layout.native({})
    layout.follow(diff(layout.program, EMPTY))
    assert layout.native({}) == Layout.of(EMPTY).native({})


@settings(deadline=None, max_examples=30, phases=[Phase.generate])
@given(programs(), programs(), st.lists(packets(), min_size=15, max_size=15))
def test_a_plan_can_stop_anywhere(one: Program, two: Program, some: list[Packet]) -> None:
    """After any command, and any element, nothing passes that neither the old nor the new program lets through."""
    one, two = wanted_of(one), wanted_of(two)
    # The endpoints' places are the outside world's: they are the same for both programs.
    places = {key: endpoint.interface for key, endpoint in two.endpoints.items()}
    one = replace(
        one, endpoints={key: replace(endpoint, interface=places.get(key, endpoint.interface)) for key, endpoint in one.endpoints.items()}
    )
    check_stages(one, two, filter(real, some))


@settings(deadline=None, max_examples=60, phases=[Phase.generate])
@given(programs(), programs(), st.booleans(), st.lists(packets(), min_size=15, max_size=15))
def test_a_plan_for_members_can_stop_anywhere(one: Program, two: Program, keeps: bool, some: list[Packet]) -> None:
    """Likewise when peers move between sets that the same rules ask, or the rules of one direction change with them."""
    one, two = wanted_of(one), wanted_of(two)
    moved = replace(one, sets=two.sets)
    if not keeps:
        moved = replace(moved, endpoints={key: replace(endpoint, egress=()) for key, endpoint in one.endpoints.items()})
    check_stages(one, moved, filter(real, some))


def test_peers_that_move_between_a_pass_and_an_allow_rule() -> None:
    """No order of elements is safe here: the rule that passes keeps 10.0.0.3 from the one that allows, before and after."""
    rules = (
        rule("first", IN, 0, Action.PASS, sets=("passing",), protocol=6),
        rule("first", IN, 1, sets=("allowed",), protocol=6),
    )
    both = policy(IN, *rules)

    def moment(passing: str, allowed: str) -> Program:
        stack = (*admin(both), *isolated(IN))
        sets = address_set("passing", passing), address_set("allowed", allowed)
        return program(endpoint("a", "veth-a", "10.0.0.1", ingress=stack), both, *sets)

    packet = Packet(source=Cidr.parse("10.0.0.3"), destination=Cidr.parse("10.0.0.1"), protocol=6, source_port=1, port=80)
    denied, still = moment("10.0.0.3", "10.0.0.9"), moment("10.0.0.9", "10.0.0.8")
    for one, two in ((denied, still), (still, denied), (moment("10.0.0.3", "10.0.0.3"), still), (still, moment("10.0.0.3", "10.0.0.3"))):
        assert evaluate(one, packet).verdict is evaluate(two, packet).verdict is Verdict.DENY
        check_stages(one, two, [packet])


def check_stages(one: Program, two: Program, some: Iterable[Packet]) -> None:
    layout = Layout.of(one)
    native = layout.native({})
    layout.follow(diff(one, two))
    made, wanted, _ = plan_to(layout, layout_copy(native), {})
    world = two if len(two.endpoints) >= len(one.endpoints) else one
    cases = [(packet, interface_of(world, packet, source=True), interface_of(world, packet, source=False)) for packet in some]
    before, after = Simulator(layout_copy(native)), Simulator(wanted)
    allowed = [before.forward(*case).allowed or after.forward(*case).allowed for case in cases]
    for _ in stages(native, made):
        for case, may in zip(cases, allowed, strict=True):
            assert may or not Simulator(native).forward(*case).allowed, (case, made)
    assert native == wanted


def layout_copy(native: Native) -> Native:
    return Native({family: replace(table) for family, table in native.filters.items()}, dict(native.sets), dict(native.ports))


@pytest.mark.parametrize(
    ("established", "wanted"),
    [
        (Established.RECHECK, "-m conntrack --ctstate RELATED,ESTABLISHED --ctdir REPLY -m comment --comment replies -j RETURN"),
        (Established.KEEP, '-m conntrack --ctstate RELATED,ESTABLISHED -m comment --comment "open connections" -j RETURN'),
    ],
)
def test_open_connections_follow_the_option(established: Established, wanted: str) -> None:
    native = Layout.of(replace(EMPTY, options=Options(established=established))).native({})
    for family in (4, 6):
        for chain in ("polyplane-forward", "polyplane-input"):
            assert native.filters[family].chains[chain].rules[0] == wanted
