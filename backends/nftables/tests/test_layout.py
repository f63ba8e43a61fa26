from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from ir_programs import packets, programs
from nft_programs import with_content_ids
from nft_simulator import Simulator

from polyplane.ir.evaluate import Packet, Verdict, endpoint_of, evaluate
from polyplane.ir.program import EMPTY, DenyAction, Established, Options, Program
from polyplane.reconcile.diff import diff
from polyplane_nftables.layout import Layout
from polyplane_nftables.native import Native, difference
from polyplane_nftables.owned import rule_id_of


def interface_of(program: Program, packet: Packet, *, source: bool) -> str:
    endpoint = endpoint_of(program, packet.source if source else packet.destination)
    return (endpoint.interface if endpoint else None) or "uplink"


def content(native: Native) -> object:
    return native.chains, native.kinds, native.elements


@settings(deadline=None, max_examples=150)
@given(programs(), packets())
def test_the_layout_decides_as_evaluate_does(program: Program, packet: Packet) -> None:
    program = with_content_ids(program)
    program = replace(program, node_addresses=frozenset())
    native = Layout.of(program).native
    seen = Simulator(native).forward(packet, interface_of(program, packet, source=True), interface_of(program, packet, source=False))
    wanted = evaluate(program, packet)
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
    for program in (with_content_ids(two), with_content_ids(three)):
        before = Layout.of(layout.program).native
        changes = layout.follow(diff(layout.program, program))
        after = Layout.of(program).native
        assert content(layout.native) == content(after)
        assert changes == difference(before, after)


@settings(deadline=None, max_examples=25)
@given(programs())
def test_nothing_is_left_when_everything_goes(program: Program) -> None:
    layout = Layout.of(with_content_ids(program))
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
