"""Stacks of many tiers that pass, as few lists of rules."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
from backend_programs import BLOCK, FRONT, IN, admin, endpoint, isolated, policy, program, rule
from hypothesis import Phase, assume, given, settings
from hypothesis import strategies as st
from ipt_namespace import Namespace
from ipt_simulator import Simulator
from ir_programs import matches, packets, programs

from polyplane.ir.cidr import Cidr
from polyplane.ir.evaluate import Packet, Verdict, evaluate
from polyplane.ir.evaluate import matches as holds
from polyplane.ir.program import EMPTY, Action, Match, PeerTerm, Policy, PortRange, Program, Stack, Tier
from polyplane.reconcile.diff import diff
from polyplane_iptables.layout import Layout
from polyplane_iptables.steps import MOST_PARTS, StackRefused, both, parts_of


def tall(tiers: int, rules: int = 1) -> tuple[Stack, list[Policy]]:
    """So many tiers of which each passes some packets to the next, and one that denies what gets there."""
    stack, policies = list[Tier](), list[Policy]()
    for number in range(tiers):
        name = f"tier-{number}"
        passing = [rule(name, IN, at, Action.PASS, protocol=6, ports=(PortRange(80 + at, 80 + number + at),)) for at in range(rules)]
        last = rule(name, IN, rules, Action.DENY if number % 2 else Action.ALLOW, protocol=6, ports=(PortRange(81, 85),))
        policies.append(policy(IN, *passing, last))
        stack.append(replace(admin(policies[-1])[0], name=name))
    return (*stack, *isolated(IN)), policies


def packet(port: int) -> Packet:
    return Packet(source=Cidr.parse("10.0.0.9"), destination=Cidr.parse("10.0.0.1"), protocol=6, source_port=9, port=port)


@pytest.mark.parametrize("tiers", [1, MOST_PARTS - 1, MOST_PARTS, 12, 40])
def test_any_number_of_tiers_may_pass(tiers: int) -> None:
    stack, policies = tall(tiers)
    wanted = program(endpoint("a", "veth-a", "10.0.0.1", ingress=stack), *policies)
    assert len(parts_of(stack, wanted.policies)) == min(tiers + 1, MOST_PARTS)
    native = Layout.of(wanted).native({})
    for port in range(78, 92):
        seen, said = Simulator(native).forward(packet(port), "uplink", "veth-a"), evaluate(wanted, packet(port))
        assert seen.allowed is (said.verdict is Verdict.ALLOW), port
        assert seen.decided == [said.decision.rule_id]


def test_what_would_be_too_many_rules_denies_everything() -> None:
    stack, policies = tall(12, rules=30)
    wanted = program(endpoint("a", "veth-a", "10.0.0.1", ingress=stack), *policies)
    with pytest.raises(StackRefused, match="tiers that pass"):
        parts_of(stack, wanted.policies)
    native = Layout.of(wanted).native({})
    assert not any(Simulator(native).forward(packet(port), "uplink", "veth-a").allowed for port in (22, 80, 85))


@pytest.mark.netns
def test_the_kernel_takes_them_behind_the_deepest_trees(namespace: Namespace) -> None:
    """Trees over names and over addresses, logs with alternatives, refusals: all of it fits into the chains that the kernel follows."""
    stack, policies = tall(12)
    logs = policy(IN, rule("logs", IN, 0, Action.LOG, sets=("front", "block")), rule("logs", IN, 1, Action.PASS))
    once = replace(admin(logs)[0], name="logs")
    stack = (once, *stack[:-1], replace(once, name="again"), stack[-1])
    # Each character, and each four bits, tells two halves apart.
    words = ["".join(bits) for bits in product("01", repeat=7)]
    pods = [endpoint(f"n{word}", f"cali{word}", f"10.1.0.{int(word, 2)}", ingress=stack) for word in words]
    pods += [
        endpoint(
            f"a{word}",
            None,
            f"10.{int(word[:2], 16)}.{int(word[2:4], 16)}.{int(word[4:6], 16) + 2 * int(word[6])}",
            f"fd00::{word[:4]}:{word[4:]}",
            ingress=stack,
        )
        for word in words
    ]
    wanted = program(*pods, logs, *policies, FRONT, BLOCK)
    backend = namespace.backend()
    assert backend.polyplane_apply(diff(EMPTY, wanted)).operations
    assert backend.polyplane_audit(wanted) == ()


@settings(deadline=None, max_examples=150, phases=[Phase.generate])
@given(matches(), matches(), packets(), programs())
def test_both_holds_where_both_hold(one: Match, other: Match, some: Packet, world: Program) -> None:
    # Two excluded protocols are more than one match can say.
    assume(not (one.not_protocol and other.not_protocol and one.not_protocol != other.not_protocol))
    joined = both(one, other)
    wanted = holds(world, one, some, some.source) and holds(world, other, some, some.source)
    assert (joined is not None and holds(world, joined, some, some.source)) is wanted


def step_matches() -> st.SearchStrategy[Match]:
    ports = st.sampled_from([(), (PortRange(1, 4),), (PortRange(3, 6),), (PortRange(5, 5),), (PortRange(1, 2), PortRange(5, 6))])
    peer = st.sampled_from([(), (PeerTerm((FRONT.id,)),), (PeerTerm((FRONT.id,), negated=True),)])
    ported = st.builds(Match, protocol=st.sampled_from([6, 17]), ports=ports, not_ports=ports, peer=peer)
    return st.one_of(ported, ported, st.builds(Match, peer=peer))


@st.composite
def towers(draw: st.DrawFn) -> Program:
    """One pod under five to nine tiers, most of which pass to the next."""
    stack, policies = list[Tier](), list[Policy]()
    for number in range(draw(st.integers(5, 9))):
        actions = st.sampled_from([Action.PASS, Action.PASS, Action.ALLOW, Action.DENY, Action.LOG])
        choices = draw(st.lists(st.tuples(actions, step_matches()), min_size=1, max_size=4))
        rules = [replace(rule(f"t{number}", IN, at, action), match=match) for at, (action, match) in enumerate(choices)]
        policies.append(policy(IN, *rules))
        end = draw(st.booleans())
        stack.append(replace((isolated(IN, policies[-1], name=f"end-{number}") if end else admin(policies[-1]))[0], name=f"t{number}"))
    return program(
        endpoint("a", "veth-a", "10.0.0.1", ingress=tuple(replace(tier, exempts_self=False) for tier in stack)), *policies, FRONT
    )


@settings(deadline=None, max_examples=150, phases=[Phase.generate])
@given(towers())
def test_towers_of_tiers_decide_as_evaluate_does(world: Program) -> None:
    native = Layout.of(world).native({})
    for source, protocol, port in product(("10.0.0.2", "10.0.0.9"), (6, 17, 47), (1, 2, 3, 4, 5, 6, 7)):
        ports = {"source_port": 1, "port": port} if protocol != 47 else {}
        some = Packet(source=Cidr.parse(source), destination=Cidr.parse("10.0.0.1"), protocol=protocol, **ports)
        seen, said = Simulator(native).forward(some, "uplink", "veth-a"), evaluate(world, some)
        assert seen.allowed is (said.verdict is Verdict.ALLOW), (seen, said.trail)
        assert seen.decided == ([said.decision.rule_id] if said.decision.rule_id else [])
        assert seen.logged == list(said.decision.logged)
