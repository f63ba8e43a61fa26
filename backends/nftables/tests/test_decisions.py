from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from ir_programs import PORTS, port_ranges
from nft_simulator import Simulator

from polyplane.ir.cidr import Cidr
from polyplane.ir.evaluate import Packet, Verdict
from polyplane.ir.evaluate import matches as holds
from polyplane.ir.program import EMPTY, DenyAction, IcmpType, Match, PortRange
from polyplane.ir.tabulate import Branch, Outcome, Row, Table
from polyplane_nftables.decisions import Decisions, Style, condition_text, table_spec
from polyplane_nftables.native import Chain, Native, Rule

STYLE = Style(deny_action=DenyAction.DROP, label=str)
ALLOWED, DENIED = Outcome(Verdict.ALLOW, 1), Outcome(Verdict.DENY, 2)


def table_of(ports: int, outcome: Outcome = ALLOWED) -> Table:
    return Table(tuple(Row(6, port * 10, port * 10 + 3, outcome) for port in range(ports)), DENIED)


@st.composite
def conditions(draw: st.DrawFn) -> tuple[Match, Packet]:
    """A condition, and a packet of the same protocol."""
    protocol = draw(st.sampled_from([1, 6, 17, 58, 132]))
    icmp = protocol in {1, 58}
    types = st.lists(st.builds(IcmpType, st.sampled_from([0, 8]), st.sampled_from([None, 0, 1])), max_size=3).map(tuple)
    source, destination = (Cidr.parse(text) for text in (("fd00::1", "fd00::2") if protocol == 58 else ("10.0.0.1", "10.0.0.2")))
    condition = Match(
        protocol=protocol,
        source_ports=() if icmp else draw(port_ranges()),
        not_source_ports=() if icmp else draw(port_ranges()),
        icmp=draw(types) if icmp else (),
        not_icmp=draw(types) if icmp else (),
    )
    packet = Packet(
        source=source,
        destination=destination,
        protocol=protocol,
        source_port=0 if icmp else draw(st.sampled_from(PORTS)),
        icmp=IcmpType(draw(st.sampled_from([0, 3, 8])), draw(st.sampled_from([0, 1, 2]))) if icmp else None,
    )
    return condition, packet


@settings(max_examples=300)
@given(conditions())
def test_a_condition_says_what_its_match_says(drawn: tuple[Match, Packet]) -> None:
    condition, packet = drawn
    native = Native()
    native.set_chain("forward", Chain((Rule(f"{condition_text(condition)}drop"),)))
    assert Simulator(native).forward(packet, "a", "b").allowed is not holds(EMPTY, condition, packet, packet.source)


def test_a_type_that_is_wanted_whole_swallows_its_codes() -> None:
    """Else the kernel refuses the set: a subset after its superset."""
    condition = Match(protocol=1, icmp=(IcmpType(8), IcmpType(8, 0), IcmpType(3, 4)))
    assert condition_text(condition) == "icmp type . icmp code { 3 . 4, 8 . 0-255 } "


def test_few_ports_are_rules_and_many_one_lookup() -> None:
    assert [len(table_spec(table_of(ports), STYLE).rules) for ports in (1, 3, 4, 100)] == [2, 4, 2, 2]
    assert "th dport vmap { 6 . 0-3 : goto a_00000001, " in table_spec(table_of(4), STYLE).rules[0].text


def test_equal_decisions_share_a_chain_until_nobody_holds_it() -> None:
    native = Native()
    decisions = Decisions(native, STYLE)
    first, second, other = decisions.hold(table_of(1)), decisions.hold(table_of(1)), decisions.hold(table_of(2))
    assert first == second != other
    assert set(native.chains) == {first, other, "a_00000001", "d_00000002"}
    decisions.release(first)
    decisions.release(other)
    assert set(native.chains) == {first, "a_00000001", "d_00000002"}
    decisions.release(first)
    assert not native.chains
    assert not native.take_changes()


def test_how_a_table_looks_is_made_out_once_while_it_is_in_use() -> None:
    made: list[int] = []

    def label(rule_id: int) -> str:
        made.append(rule_id)
        return ""

    decisions = Decisions(Native(), Style(deny_action=DenyAction.DROP, label=label))
    kept = decisions.hold(table_of(1))
    asked = list(made)
    decisions.release(decisions.hold(table_of(1)))
    decisions.release(kept)
    kept = decisions.hold(table_of(1))  # between two tidyings
    decisions.tidy()
    decisions.release(decisions.hold(table_of(1)))
    assert made == asked
    decisions.release(kept)
    decisions.tidy()
    decisions.hold(table_of(1))
    assert made == asked * 2


def test_an_outcome_inside_an_outcome_holds_its_own_chain() -> None:
    native = Native()
    decisions = Decisions(native, STYLE)
    condition = Match(protocol=6, source_ports=(PortRange(1, 5), PortRange(6, 7), PortRange(9, 9)))
    inner = Outcome(Verdict.DENY, 3, (Branch(condition, 0, ALLOWED),))
    name = decisions.hold(table_of(1, Outcome(Verdict.ALLOW, 4, (Branch(condition, 5, inner),))))
    texts = [rule.text for chain in native.chains.values() for rule in chain.rules]
    assert 'tcp sport { 1-7, 9 } limit rate 10/second log prefix "polyplane 00000005 "' in texts
    assert {"a_00000001", "d_00000002", "d_00000003", "a_00000004"} <= set(native.chains)
    decisions.release(name)
    assert not native.chains


def test_the_nflog_group_is_the_options() -> None:
    branch = Branch(Match(), 5, None)
    style = Style(deny_action=DenyAction.DROP, label=str, log_group=7)
    spec = table_spec(Table((), Outcome(Verdict.ALLOW, 1, (branch,))), style)
    assert spec.rules[0].text == 'limit rate 10/second log prefix "polyplane 00000005 " group 7'
