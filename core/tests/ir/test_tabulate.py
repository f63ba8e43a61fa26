from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from ir_programs import HOSTS, packets, programs

from polyplane.ir.cidr import Cidr
from polyplane.ir.evaluate import Packet, Verdict, decide, matches
from polyplane.ir.members import Members
from polyplane.ir.program import (
    EMPTY,
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
    PortRange,
    Program,
    Rule,
    SetId,
    Tier,
    TierEnd,
)
from polyplane.ir.tabulate import Outcome, Tabulator
from polyplane.reconcile.diff import diff


def walk(program: Program, outcome: Outcome, packet: Packet) -> tuple[Verdict, int, tuple[int, ...]]:
    """Follow an outcome's branches as a dataplane would."""
    logged: list[int] = []
    for branch in outcome.branches:
        if matches(program, branch.condition, packet, packet.source):
            if branch.log:
                logged.append(branch.log)
            if branch.then is not None:
                verdict, rule_id, more = walk(program, branch.then, packet)
                return verdict, rule_id, (*logged, *more)
    return outcome.verdict, outcome.rule_id, tuple(logged)


def snapshot(tabulator: Tabulator) -> object:
    return (
        tabulator.hosts,
        tabulator.prefixes,
        tabulator.classes,
        tabulator.endpoints,
        {key: (tables.default, tables.tables, tables.to_self and tables.to_self.tables) for key, tables in tabulator.stacks.items()},
    )


def agree(program: Program, packet: Packet) -> None:
    for direction in Direction:
        tabulator = Tabulator.of(direction, diff(EMPTY, program))
        own, peer = (packet.source, packet.destination) if direction is Direction.EGRESS else (packet.destination, packet.source)
        for endpoint in program.endpoints.values():
            if own not in endpoint.addresses:
                continue
            to_self = peer in endpoint.addresses
            wanted = decide(program, endpoint, direction, packet, to_self=to_self)
            stack_id = tabulator.endpoints.get(endpoint.id)
            if stack_id is None:
                assert not endpoint.stack(direction)
                continue
            tables = tabulator.stacks[stack_id].to_self if to_self else tabulator.stacks[stack_id]
            if tables is None:
                assert wanted.verdict is Verdict.ALLOW
                continue
            outcome = tables.find(tabulator.classify(peer), peer.family).find(packet.protocol, packet.port)

            assert walk(program, outcome, packet) == (wanted.verdict, wanted.rule_id, wanted.logged)


@settings(max_examples=120, deadline=None)
@given(programs(), st.lists(packets(), min_size=1, max_size=12))
def test_tables_decide_as_evaluate_does(program: Program, sent: list[Packet]) -> None:
    program.check()
    for packet in sent:
        agree(program, packet)


@settings(max_examples=80, deadline=None)
@given(st.lists(programs(), min_size=2, max_size=4))
def test_following_deltas_gives_what_starting_afresh_gives(steps: list[Program]) -> None:
    # Policies are named by content: what differs must have another name.
    named = [
        replace(
            program,
            policies={PolicyId(f"{key}{index}"): replace(policy, id=PolicyId(f"{key}{index}")) for key, policy in program.policies.items()},
            endpoints={
                key: replace(
                    endpoint,
                    ingress=tuple(
                        replace(tier, policies=tuple(PolicyId(f"{p}{index}") for p in tier.policies)) for tier in endpoint.ingress
                    ),
                    egress=tuple(replace(tier, policies=tuple(PolicyId(f"{p}{index}") for p in tier.policies)) for tier in endpoint.egress),
                )
                for key, endpoint in program.endpoints.items()
            },
        )
        for index, program in enumerate(steps)
    ]
    for direction in Direction:
        follower = Tabulator(direction)
        mirror: dict[object, object] = {}
        base = EMPTY
        for program in [*named, EMPTY, named[0]]:
            changes = follower.update(diff(base, program))
            base = program
            for reported in (changes.hosts, changes.prefixes, changes.tables, changes.endpoints):
                for key, value in reported.items():
                    assert mirror.get(key) != value
                    if value is None:
                        del mirror[key]
                    else:
                        mirror[key] = value

            assert snapshot(follower) == snapshot(Tabulator.of(direction, diff(EMPTY, program)))
            tables = {(s, c): table for s, stack in follower.stacks.items() for c, table in stack.tables.items()}
            wanted: dict[object, object] = {}
            parts: tuple[Mapping[Any, object], ...] = (follower.hosts, follower.prefixes, tables, follower.endpoints)
            for part in parts:
                wanted.update(part)
            assert mirror == wanted


@settings(max_examples=120, deadline=None)
@given(programs())
def test_a_class_is_the_used_sets_an_address_is_in(program: Program) -> None:
    for direction in Direction:
        tabulator = Tabulator.of(direction, diff(EMPTY, program))
        used = {set_id for tables in tabulator.stacks.values() for set_id in tables.flat.sets}
        for address in [*HOSTS, Cidr.parse("10.0.0.7"), Cidr.parse("10.9.9.9"), Cidr.parse("192.0.2.1"), Cidr.parse("2001:db8::1")]:
            inside = {set_id for set_id in used if program.sets[set_id].members.covers_address(address.family, address.address)}
            class_id = tabulator.classify(address)

            assert (set() if class_id is None else tabulator.classes[class_id].sets) == inside


def test_a_member_of_a_known_class_is_one_change() -> None:
    program = _one_set_used_by_every_policy(Members(HOSTS[:2]))
    grown = _one_set_used_by_every_policy(Members(HOSTS[:3]))
    tabulator = Tabulator.of(Direction.INGRESS, diff(EMPTY, program))

    changes = tabulator.update(diff(program, grown))

    assert changes.hosts == {HOSTS[2]: tabulator.hosts[HOSTS[0]]}
    assert not (changes.prefixes or changes.classes_added or changes.classes_removed)
    assert not (changes.tables or changes.endpoints)


def _one_set_used_by_every_policy(members: Members) -> Program:
    origin = Origin(kind="Test", namespace="x", name="p", direction=Direction.INGRESS, index=0)
    match = Match(protocol=6, peer=(PeerTerm((SetId("s"),)),))
    policies: dict[PolicyId, Policy] = {
        PolicyId(f"p{i}"): Policy(
            id=PolicyId(f"p{i}"),
            direction=Direction.INGRESS,
            rules=(Rule(id=i + 1, action=Action.ALLOW, match=replace(match, ports=(PortRange(i, i),)), origin=origin),),
        )
        for i in range(50)
    }
    tier = Tier(name="t", policies=tuple(policies), end=TierEnd.DENY, isolation=Isolation(id=99, origins=(origin,)))
    endpoint = Endpoint(id=EndpointId("x/a"), interface="veth0", addresses=(HOSTS[5],), ingress=(tier,))
    address_set = AddressSet(id=SetId("s"), label="s", members=members)
    endpoints: dict[EndpointId, Endpoint] = {endpoint.id: endpoint}
    return Program(endpoints=endpoints, policies=policies, sets={SetId("s"): address_set})
