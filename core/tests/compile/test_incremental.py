from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from cluster_values import clusters, identity, namespace, objects, pod, policy, put, select
from hypothesis import given, settings
from hypothesis import strategies as st

from polyplane.cluster.model import (
    Change,
    CidrPeer,
    ClusterPolicy,
    ContainerPort,
    Namespace,
    Node,
    Pod,
    PodPeer,
    PodSelector,
    PolicyRule,
    PortMatch,
)
from polyplane.compile.incremental import Compiler
from polyplane.ir.cidr import Cidr
from polyplane.ir.evaluate import Packet, Verdict, evaluate
from polyplane.ir.features import Capabilities, Feature, Unsupported
from polyplane.ir.program import Action, Direction, EndpointId, PortRange, Program

Object = Pod | Namespace | Node | ClusterPolicy
WEB = PolicyRule(action=Action.ALLOW, peers=None, ports=(PortMatch(protocol=6, name="web"),))


def fresh(values: list[Object]) -> Program:
    return Compiler(node="n1").update(put(*values))


def allowed(program: Program, source: str, destination: str, port: int = 80) -> bool:
    packet = Packet(source=Cidr.parse(source), destination=Cidr.parse(destination), protocol=6, port=port)
    return evaluate(program, packet).verdict is Verdict.ALLOW


@settings(max_examples=300, deadline=None)
@given(clusters(), st.lists(st.tuples(objects(), st.booleans()), max_size=8), st.randoms(use_true_random=False))
def test_any_history_compiles_to_what_its_last_state_does(
    start: list[Object], history: list[tuple[Object, bool]], shuffler: random.Random
) -> None:
    compiler = Compiler(node="n1")
    state: dict[object, Object] = {}
    batch: list[Change] = []
    for value, removed in [(value, False) for value in start] + history:
        old = state.pop(identity(value), None)
        if not removed:
            state[identity(value)] = value
        if old is not None or not removed:
            batch.append(Change(old, None if removed else value))
        if shuffler.random() < 0.5:
            compiler.update(batch)
            batch = []
            compiler.program.check()
    compiler.update(batch)
    values = list(state.values())
    shuffler.shuffle(values)

    compiler.program.check()
    assert compiler.program.same_content(fresh(values))


def still_held(part: object) -> Iterator[str]:
    """Yield what the compiler, and every part it is made of, still remembers of a cluster."""
    for name, value in vars(part).items():
        if type(value).__module__.startswith("polyplane.compile") and hasattr(value, "__dict__"):
            yield from still_held(value)
        elif isinstance(value, dict | set) and "recomputations" not in name and any(value.values() if isinstance(value, dict) else value):
            yield f"{type(part).__name__}.{name}: {value}"


@settings(max_examples=60, deadline=None)
@given(clusters())
def test_taking_everything_away_leaves_nothing(values: list[Object]) -> None:
    state = {identity(value): value for value in values}
    compiler = Compiler(node="n1")
    compiler.update(put(*state.values()))
    program = compiler.update([Change(value, None) for value in state.values()])

    assert (program.endpoints, program.policies, program.sets, program.node_addresses) == ({}, {}, {}, frozenset())
    assert not list(still_held(compiler))


def test_isolation_and_a_selector() -> None:
    rule = PolicyRule(action=Action.ALLOW, peers=(PodPeer(PodSelector(namespace="x", pods=select(pod="b"))),))
    program = fresh(
        [pod("x/a", "10.0.0.1"), pod("x/b", "10.0.0.2"), pod("x/c", "10.0.0.3"), policy("x/p", pods=select(pod="a"), ingress=[rule])]
    )

    assert allowed(program, "10.0.0.2", "10.0.0.1")
    assert not allowed(program, "10.0.0.3", "10.0.0.1")
    assert allowed(program, "10.0.0.3", "10.0.0.2")


def test_a_finished_update_is_the_identical_program() -> None:
    compiler = Compiler(node="n1")
    a = pod("x/a", "10.0.0.1")
    program = compiler.update(put(a, policy("x/p", ingress=[])))

    assert compiler.update([]) is program
    assert compiler.update([Change(a, a)]) is program
    assert compiler.update(put(pod("z/unrelated", "10.9.9.9", node="n2"))) is program


def test_a_named_port_is_the_subjects_on_ingress_and_each_peers_on_egress() -> None:
    a = pod("x/a", "10.0.0.1", ports=(ContainerPort("web", 6, 80),))
    b = pod("x/b", "10.0.0.2", ports=(ContainerPort("web", 6, 81), ContainerPort("web", 17, 82)))
    inward = fresh([a, b, policy("x/p", ingress=[WEB])])
    outward = fresh([a, b, policy("x/p", pods=select(pod="a"), egress=[WEB])])

    assert (allowed(inward, "10.0.0.9", "10.0.0.1", 80), allowed(inward, "10.0.0.9", "10.0.0.1", 81)) == (True, False)
    assert (allowed(inward, "10.0.0.9", "10.0.0.2", 80), allowed(inward, "10.0.0.9", "10.0.0.2", 81)) == (False, True)
    assert (allowed(outward, "10.0.0.1", "10.0.0.2", 80), allowed(outward, "10.0.0.1", "10.0.0.2", 81)) == (False, True)
    assert not allowed(outward, "10.0.0.1", "192.0.2.9", 81)


def test_except_and_the_block_of_all_addresses() -> None:
    everything = CidrPeer(Cidr.parse("0.0.0.0/0"), (Cidr.parse("10.0.0.0/24"),))
    program = fresh([pod("x/a", "10.0.0.1"), policy("x/p", ingress=[PolicyRule(action=Action.ALLOW, peers=(everything,))])])

    assert allowed(program, "192.0.2.1", "10.0.0.1")
    assert not allowed(program, "10.0.0.7", "10.0.0.1")
    assert len(program.sets) == 1


def test_an_empty_peer_list_is_nobody_and_none_is_anybody() -> None:
    nobody = fresh([pod("x/a", "10.0.0.1"), policy("x/p", ingress=[PolicyRule(action=Action.ALLOW, peers=())])])
    anybody = fresh([pod("x/a", "10.0.0.1"), policy("x/p", ingress=[PolicyRule(action=Action.ALLOW)])])

    assert not allowed(nobody, "10.0.0.2", "10.0.0.1")
    assert allowed(anybody, "10.0.0.2", "10.0.0.1")


def test_an_address_stays_in_the_set_while_it_passes_from_pod_to_pod() -> None:
    peer = PolicyRule(action=Action.ALLOW, peers=(PodPeer(PodSelector(namespace="x", pods=select(app="b"))),))
    compiler = Compiler(node="n1")
    first = pod("x/b1", "10.0.0.2", labels={"app": "b"}, node="n2")
    second = pod("x/b2", "10.0.0.2", labels={"app": "b"}, node="n2")
    compiler.update(put(pod("x/a", "10.0.0.1"), first, second, policy("x/p", pods=select(pod="a"), ingress=[peer])))

    program = compiler.update([Change(first, None)])
    assert allowed(program, "10.0.0.2", "10.0.0.1")
    program = compiler.update([Change(second, None)])
    assert not allowed(program, "10.0.0.2", "10.0.0.1")


def test_only_policies_of_local_pods_and_the_sets_they_use_are_compiled() -> None:
    peer = PolicyRule(action=Action.ALLOW, peers=(PodPeer(PodSelector(namespace="y")),))
    compiler = Compiler(node="n1")
    program = compiler.update(put(pod("x/a", "10.0.0.1"), pod("y/b", "10.0.0.2", node="n2"), policy("y/p", ingress=[peer])))

    assert (program.policies, program.sets, list(program.endpoints)) == ({}, {}, ["x/a"])
    assert compiler.recomputations["policies lowered"] == compiler.recomputations["peers resolved"] == 0


@pytest.mark.parametrize("policies", [10, 300])
def test_a_pod_that_joins_a_shared_set_recomputes_that_set_and_nothing_else(policies: int) -> None:
    peer = PodPeer(PodSelector(namespace="x", pods=select(app="client")))
    compiler = Compiler(node="n1")
    rules = [
        PolicyRule(action=Action.ALLOW, peers=(peer,), ports=(PortMatch(protocol=6, first=port, last=port),))
        for port in range(1, policies + 1)
    ]
    compiler.update(put(namespace("x"), pod("x/a", "10.0.0.1"), *(policy(f"x/p{i}", ingress=[rule]) for i, rule in enumerate(rules))))
    before = compiler.recomputations.copy()
    old = compiler.program

    program = compiler.update(put(pod("x/new", "10.0.0.9", node="n2", labels={"app": "client"})))

    assert compiler.recomputations - before == {"selectors tried": 1, "sets published": 1}
    assert program.policies is old.policies
    assert program.endpoints is old.endpoints


def test_what_the_backend_cannot_do_fails_closed_and_is_told() -> None:
    gap = Unsupported(Feature.PORT_RANGES, "this dataplane matches single ports only")
    capabilities = Capabilities(supported=frozenset(Feature) - {Feature.PORT_RANGES}, unsupported=(gap,))
    compiler = Compiler(node="n1", capabilities=capabilities)
    rule = PolicyRule(action=Action.ALLOW, ports=(PortMatch(protocol=6, first=80, last=90), PortMatch(protocol=17, first=53, last=53)))
    bad = policy("x/p", ingress=[rule])
    program = compiler.update(put(pod("x/a", "10.0.0.1"), bad))

    assert not allowed(program, "10.0.0.2", "10.0.0.1", 80)
    assert "single ports only" in compiler.unsupported[bad.key][0]
    assert [rule.match.ports for policy in program.policies.values() for rule in policy.rules] == [(PortRange(53, 53),)]


def test_the_nodes_own_addresses_come_from_its_object() -> None:
    compiler = Compiler(node="n1", node_addresses=frozenset({Cidr.parse("198.51.100.1")}))
    node = Node(name="n1", addresses=(Cidr.parse("192.0.2.1"),))

    assert compiler.update(put(node, Node(name="n2", addresses=(Cidr.parse("192.0.2.2"),)))).node_addresses == {
        Cidr.parse("198.51.100.1"),
        Cidr.parse("192.0.2.1"),
    }
    assert compiler.update([Change(node, None)]).node_addresses == {Cidr.parse("198.51.100.1")}


def test_rule_ids_name_the_rule_and_survive_a_restart() -> None:
    values: list[Object] = [pod("x/a", "10.0.0.1"), policy("x/p", ingress=[PolicyRule(action=Action.ALLOW), WEB])]
    once, again = fresh(values), fresh(values[::-1])
    ids = {rule.id: str(rule.origin) for policy in once.policies.values() for rule in policy.rules}
    isolation = once.endpoints[EndpointId("x/a")].ingress[0].isolation

    assert ids == {rule.id: str(rule.origin) for policy in again.policies.values() for rule in policy.rules}
    assert set(ids.values()) == {"Policy x/p ingress[0]"}
    assert isolation is not None
    assert str(isolation) == "isolated by Policy x/p"
    assert again.endpoints[EndpointId("x/a")].stack(Direction.INGRESS) == once.endpoints[EndpointId("x/a")].ingress
