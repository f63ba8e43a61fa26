"""Stacks of many tiers that pass, as few lists of rules."""

from __future__ import annotations

from dataclasses import replace

import pytest
from backend_programs import BLOCK, FRONT, IN, admin, endpoint, isolated, policy, program, rule, with_content_ids
from hypothesis import Phase, assume, given, settings
from hypothesis import strategies as st
from ipt_namespace import Namespace
from ipt_simulator import Simulator
from ir_programs import matches, packets, programs

from polyplane.ir.cidr import Cidr
from polyplane.ir.evaluate import Packet, Verdict, evaluate
from polyplane.ir.evaluate import matches as holds
from polyplane.ir.program import EMPTY, Action, Direction, Match, Policy, PortRange, Program, Stack, Tier, TierEnd
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
    pods = [endpoint(f"n{at}", f"cali{at:04x}", f"10.1.{at >> 8}.{at & 255}", ingress=stack) for at in range(0, 2600, 13)]
    pods += [endpoint(f"a{at}", None, f"10.2.{at >> 8}.{at & 255}", ingress=stack) for at in range(0, 2600, 13)]
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


@settings(deadline=None, max_examples=100, phases=[Phase.generate])
@given(programs(), packets(), st.data())
def test_towers_of_tiers_decide_as_evaluate_does(world: Program, some: Packet, data: st.DataObject) -> None:
    assume(some.protocol not in (1, 58))
    world = replace(with_content_ids(world), node_addresses=frozenset())
    ids = {way: [key for key, each in world.policies.items() if each.direction is way] for way in Direction}

    def tower(way: Direction) -> Stack:
        some_ids = st.lists(st.sampled_from(ids[way]), max_size=2, unique=True).map(tuple) if ids[way] else st.just(())
        return tuple(Tier(name=f"t{at}", policies=data.draw(some_ids), end=TierEnd.NEXT) for at in range(data.draw(st.integers(5, 9))))

    one = next(iter(world.endpoints.values()))
    world = replace(world, endpoints={one.id: replace(one, interface="veth0", ingress=tower(Direction.INGRESS), egress=())})
    some = replace(some, destination=next(each for each in one.addresses if each.family == some.source.family))
    assume(some.source not in one.addresses)
    seen = Simulator(Layout.of(world).native({})).forward(some, "uplink", "veth0")
    said = evaluate(world, some)
    assert seen.allowed is (said.verdict is Verdict.ALLOW), (seen, said.trail)
    assert seen.decided == ([said.decision.rule_id] if said.decision.rule_id else [])
    assert said.ingress is not None
    assert sorted(seen.logged) == sorted(said.ingress.logged)
