from __future__ import annotations

from dataclasses import replace

from backend_programs import IN, address_set, endpoint, examples, isolated, policy, program, rule, web, with_content_ids
from hypothesis import HealthCheck, given, settings
from ir_programs import packets, programs
from ovs_simulator import Switch

from polyplane.ir.cidr import Cidr
from polyplane.ir.evaluate import Packet, Verdict, evaluate
from polyplane.ir.program import EMPTY, Action, DenyAction, Options, PortRange, Program, Tier
from polyplane.reconcile.diff import diff
from polyplane_ovs.flows import difference
from polyplane_ovs.layout import Layout
from polyplane_ovs.options import OvsOptions
from polyplane_ovs.ports import Port, Ports

OPTIONS = OvsOptions()
MAC = "0a:00:00:00:00:01"


def of(program_: Program) -> Layout:
    return Layout.of(program_, Ports.on_paper(program_, OPTIONS), OPTIONS)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(programs(), packets())
def test_the_flows_decide_as_evaluate_does(drawn: Program, packet: Packet) -> None:
    # what passes without a decision, and the node's own traffic, are told apart before; see test_packets.py
    enforced = replace(with_content_ids(drawn), node_addresses=frozenset())
    packet = replace(packet, from_node=False)
    wanted = evaluate(enforced, packet)
    if wanted.trail and wanted.trail[0].subject == "neighbour discovery":
        return
    seen = Switch(of(enforced).book.flows).forward(packet)
    assert seen.allowed is (wanted.verdict is Verdict.ALLOW), (seen, wanted.trail)
    decisions = [decision for decision in (wanted.egress, wanted.ingress) if decision is not None]
    expected = [rule_id for decision in decisions for rule_id in (*decision.logged, decision.rule_id) if rule_id]
    assert [rule_id for rule_id in seen.rules if rule_id] == expected
    # the controller hears of what is logged, and of what is denied where its sender is to be told
    refused = not seen.allowed and enforced.options.deny_action is DenyAction.REJECT
    logged = [rule_id for decision in decisions for rule_id in decision.logged]
    assert seen.told == [*logged, *(decision.rule_id for decision in decisions[-1:] if refused)]


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(programs(), programs(), programs())
def test_following_deltas_ends_where_a_whole_layout_begins(one: Program, two: Program, three: Program) -> None:
    layout = of(with_content_ids(one))
    for target in (with_content_ids(two), with_content_ids(three), EMPTY):
        before = dict(layout.book.flows)
        layout.follow(diff(layout.program, target))
        layout.move(Ports.on_paper(target, OPTIONS))
        after = of(target).book.flows
        assert layout.book.flows == after
        assert layout.book.take_changes() == difference(before, after)


def test_ports_are_followed_in_any_order() -> None:
    ports = Ports.of([Port(name="veth-web", number="7", workload="shop/web", mac=MAC), Port(name="gw0", number="2", trusted=True)])
    moved = Ports.of([Port(name="veth-web", number="9", workload="shop/web", mac=MAC), Port(name="gw0", number="2", trusted=True)])
    layout = Layout.of(web(), Ports(), OPTIONS)
    for step in (ports, moved, Ports(), ports):
        layout.move(step)
        assert layout.book.flows == Layout.of(web(), step, OPTIONS).book.flows


def test_a_pod_cannot_claim_the_port_of_another() -> None:
    ports = Ports.of([Port(name="veth-web", number="7", workload="shop/web", mac=MAC)])
    victim = endpoint("web", None, "10.0.0.1", ingress=isolated(IN))
    intruder = endpoint("aaa", "veth-web", "10.0.0.66")
    flows = Layout.of(program(victim, intruder), ports, OPTIONS).book.flows
    assert not any("in_port=7" in key.match and "10.0.0.66" in key.match for key in flows)
    assert any("in_port=7" in key.match and "nw_src=10.0.0.1" in key.match for key in flows)


def test_two_claims_to_an_interface_take_no_policy_away() -> None:
    ports = Ports.of([Port(name="veth-web", number="7", mac=MAC)])
    victim = endpoint("web", "veth-web", "10.0.0.1", ingress=isolated(IN))
    intruder = endpoint("aaa", "veth-web", "10.0.0.66")
    flows = Layout.of(program(victim, intruder), ports, OPTIONS).book.flows
    assert not any(key.match.startswith(f"dl_dst={MAC}") for key in flows)
    assert Layout.of(program(victim), ports, OPTIONS).book.flows.keys() - flows.keys()


def test_a_port_nobody_names_is_no_trusted_one() -> None:
    ports = Ports.of([Port(name="veth-new", number="8"), Port(name="gw0", number="2", trusted=True)])
    flows = Layout.of(program(), ports, OPTIONS).book.flows
    starts = {key.match: value.actions for key, value in flows.items() if key.match.startswith("in_port")}
    assert starts == {"in_port=8": "set_field:0->reg15,goto_table:1", "in_port=2": "set_field:0x100000->reg15,goto_table:2"}


def test_rules_that_differ_only_where_nobody_looks_share_their_flows() -> None:
    everybody = policy(IN, rule("all", IN, 0))
    stack = (Tier(name="admin", policies=(everybody.id,)),)
    one = of(program(endpoint("a", None, "10.0.0.1", ingress=stack), everybody)).book.flows
    two = of(program(endpoint("a", None, "10.0.0.1", ingress=stack), endpoint("b", None, "10.0.0.2", ingress=stack), everybody)).book.flows
    decisions = [{key for key in flows if key.table == 14} for flows in (one, two)]
    assert decisions[0] == decisions[1]


def test_everything_is_there_under_other_table_numbers() -> None:
    shifted = OvsOptions(first_table=100, next_table=5)
    plain, moved = (Layout.of(examples()["tiers"], Ports(), options).book.flows for options in (OPTIONS, shifted))
    assert sorted((key.table + 100, key.priority, key.match) for key in plain) == sorted(moved)
    assert any("resubmit(,5)" in value.actions for value in moved.values())
    assert not any("NORMAL" in value.actions for value in moved.values())


def test_a_log_is_counted_by_itself() -> None:
    log = policy(IN, rule("log", IN, 0, Action.LOG), rule("log", IN, 1, Action.DENY, protocol=6))
    flows = of(program(endpoint("a", None, "10.0.0.1", ingress=(Tier(name="admin", policies=(log.id,)),)), log)).book.flows
    cookies = {value.cookie & 0xFFFF_FFFF for value in flows.values()} - {0}
    assert cookies == {each.id for each in log.rules}


def test_another_way_to_deny_is_another_layout() -> None:
    silent, loud = web(), web(options=Options(deny_action=DenyAction.REJECT))
    assert not of(silent).can_follow(diff(silent, loud))
    assert not any("controller" in value.actions for value in of(silent).book.flows.values())
    unwatched = OvsOptions(watch=False)
    quiet = Layout.of(loud, Ports(), unwatched).book.flows
    assert not any("controller" in value.actions for value in quiet.values())


def test_a_class_comes_before_the_ports_of_everybody() -> None:
    """Friends may do everything, nobody else anything on TCP 80: a row of those in no class must not catch a friend."""
    rules = policy(IN, rule("order", IN, 0, sets=("friends",)), rule("order", IN, 1, Action.DENY, protocol=6, ports=(PortRange(80, 80),)))
    friends = address_set("friends", "10.0.0.2")
    enforced = program(endpoint("a", None, "10.0.0.1", ingress=(Tier(name="admin", policies=(rules.id,)),)), rules, friends)
    switch = Switch(of(enforced).book.flows)
    for source, allowed in (("10.0.0.2", True), ("10.0.0.3", False)):
        packet = Packet(source=Cidr.parse(source), destination=Cidr.parse("10.0.0.1"), protocol=6, port=80, source_port=9)
        assert switch.forward(packet).allowed is allowed
        assert switch.forward(replace(packet, port=81)).allowed
