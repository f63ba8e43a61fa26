"""Pods that the node knows before the cluster does, and strangers."""

from __future__ import annotations

import random

import pytest
from cluster_values import clusters, identity, namespace, pod, policy, put
from hypothesis import given, settings
from hypothesis import strategies as st

from polyplane.cluster.model import Change, Namespace, Node, Pod, PolicyRule
from polyplane.compile.incremental import Compiler
from polyplane.compile.places import Place, Places
from polyplane.compile.strangers import MAX_CLOSED, is_stranger
from polyplane.ir.cidr import Cidr
from polyplane.ir.evaluate import Packet, Verdict, evaluate
from polyplane.ir.program import Action, EndpointId, Program
from polyplane.reconcile.diff import diff

WEB = EndpointId("shop/web")
FIRST, SECOND, SIXTH, ELSEWHERE = (Cidr.parse(text) for text in ("10.0.0.1", "10.0.0.2", "fd00::1", "192.0.2.9"))
NOBODY = policy("shop/nobody", ingress=())


def allowed(program: Program, source: str | Cidr, destination: str | Cidr, *, from_node: bool = False) -> bool:
    ends = [Cidr.parse(end) if isinstance(end, str) else end for end in (source, destination)]
    packet = Packet(source=ends[0], destination=ends[1], protocol=6, port=80, from_node=from_node)
    return evaluate(program, packet).verdict is Verdict.ALLOW


def strangers(program: Program) -> dict[str, str | None]:
    return {endpoint_id: endpoint.interface for endpoint_id, endpoint in program.endpoints.items() if is_stranger(endpoint_id)}


# --- pods that are known by name


def test_a_pod_has_its_policies_before_the_cluster_knows_its_address() -> None:
    compiler = Compiler(node="n1")
    compiler.update(put(namespace("shop"), NOBODY, pod("shop/web")))
    assert not compiler.program.endpoints
    program = compiler.set_places(Places(pods={WEB: Place("veth1", (FIRST, SIXTH))}))
    assert (program.endpoints[WEB].interface, program.endpoints[WEB].addresses) == ("veth1", (FIRST, SIXTH))
    assert not allowed(program, ELSEWHERE, FIRST)
    assert allowed(program, FIRST, ELSEWHERE)
    # The cluster's word comes, and changes nothing.
    assert compiler.update([Change(pod("shop/web"), pod("shop/web", "10.0.0.1"))]).endpoints[WEB].addresses == (FIRST,)
    assert not compiler.set_places(Places()).endpoints[WEB].interface
    assert not compiler.update([Change(pod("shop/web", "10.0.0.1"), None)]).endpoints


def test_the_other_order_and_pods_of_other_nodes() -> None:
    compiler = Compiler(node="n1")
    places = Places(pods={WEB: Place("veth1", (FIRST,)), "shop/far": Place("veth2", (SECOND,)), "shop/host": Place("eth0", (SIXTH,))})
    compiler.set_places(places)
    far, host = pod("shop/far", node="n2"), pod("shop/host", host_network=True)
    program = compiler.update(put(namespace("shop"), NOBODY, pod("shop/web"), far, host))
    assert program.endpoints.keys() == {WEB}
    assert compiler.set_places(Places()).endpoints == {}
    assert not compiler.program.policies


def test_what_a_pod_says_of_its_interface_wins() -> None:
    compiler = Compiler(node="n1")
    compiler.update(put(namespace("shop"), pod("shop/web", "10.0.0.1", interface="own")))
    assert compiler.set_places(Places(pods={WEB: Place("veth1", (FIRST,))})).endpoints[WEB].interface == "own"


# --- strangers


def closing(**more: object) -> Compiler:
    compiler = Compiler(node="n1", deny_strangers=True, **more)  # type: ignore[arg-type]  # each has its parameter's type
    compiler.update(put(namespace("shop"), pod("shop/web", "10.0.0.1")))
    return compiler


def test_a_stranger_is_closed_until_its_pod_is_known() -> None:
    compiler = closing()
    program = compiler.set_places(Places(interfaces={FIRST: "veth1", SECOND: "veth2", SIXTH: "veth2"}))
    assert strangers(program) == {"(unknown)/veth2": "veth2"}
    for peer in (FIRST, ELSEWHERE):
        assert not allowed(program, peer, SECOND)
        assert not allowed(program, SECOND, peer)
    assert allowed(program, FIRST, ELSEWHERE)
    assert allowed(program, ELSEWHERE, FIRST)
    assert allowed(program, ELSEWHERE, SECOND, from_node=True)
    late = Pod(namespace="shop", name="late", labels={}, node="n1", addresses=(SECOND, SIXTH))
    program = compiler.update(put(late))
    assert not strangers(program)
    assert program.endpoints[EndpointId("shop/late")].interface == "veth2"
    assert allowed(program, ELSEWHERE, SECOND)
    assert strangers(compiler.update([Change(late, None)])) == {"(unknown)/veth2": "veth2"}
    assert not strangers(compiler.set_places(Places()))


def test_without_the_option_nobody_is_a_stranger() -> None:
    compiler = Compiler(node="n1", pod_prefixes=[Cidr.parse("10.0.0.0/24")])
    assert not compiler.set_places(Places(interfaces={SECOND: "veth2"})).endpoints


def test_a_pod_that_only_the_node_knows_is_a_stranger() -> None:
    program = closing().set_places(Places(pods={"shop/ghost": Place("veth2", (SECOND,)), "shop/bridged": Place(None, (SIXTH,))}))
    assert strangers(program) == {"(unknown)/veth2": "veth2", "(unknown)/fd00::1": None}
    assert not allowed(program, ELSEWHERE, SIXTH)


def test_prefixes_are_closed_but_for_pods_and_the_node() -> None:
    node = Node(name="n1", addresses=(Cidr.parse("10.0.0.254"),), pod_prefixes=(Cidr.parse("10.0.0.0/24"), Cidr.parse("fd00::/64")))
    compiler = closing()
    program = compiler.update(put(node))
    assert len(strangers(program)) == 254
    assert not allowed(program, ELSEWHERE, "10.0.0.77")
    assert not allowed(program, "10.0.0.77", ELSEWHERE)
    assert allowed(program, ELSEWHERE, FIRST)
    assert allowed(program, "10.0.1.1", ELSEWHERE)
    late = pod("shop/late", "10.0.0.77")
    assert allowed(compiler.update(put(late)), "10.0.0.77", ELSEWHERE)
    assert not allowed(compiler.update([Change(late, None)]), "10.0.0.77", ELSEWHERE)
    assert len(strangers(compiler.set_node_addresses(frozenset({Cidr.parse("10.0.0.3")})))) == 253
    # One that has an interface is closed there, too, against forged addresses.
    found = strangers(compiler.set_places(Places(interfaces={SECOND: "veth2"})))
    assert found["(unknown)/veth2"] == "veth2"
    assert "(unknown)/10.0.0.2" not in found


def test_a_pod_that_comes_changes_two_endpoints() -> None:
    compiler = closing(pod_prefixes=[Cidr.parse("10.0.0.0/24")])
    before = compiler.update([])
    delta = diff(before, compiler.update(put(pod("shop/late", "10.0.0.77"))))
    assert [type(operation).__name__ for operation in delta.operations] == ["RemoveEndpoint", "PutEndpoint"]


@pytest.mark.parametrize(("length", "closed"), [(22, True), (21, False)])
def test_large_prefixes_are_left_out(length: int, closed: bool) -> None:
    prefix = Cidr.parse(f"10.4.0.0/{length}")
    program = closing(pod_prefixes=[prefix]).update([])
    assert allowed(program, ELSEWHERE, "10.4.1.1") is not closed
    assert (prefix.last - prefix.first < MAX_CLOSED) is closed


def test_given_prefixes_replace_those_of_the_node() -> None:
    compiler = closing(pod_prefixes=[Cidr.parse("10.5.0.0/30")])
    program = compiler.update(put(Node(name="n1", pod_prefixes=(Cidr.parse("10.6.0.0/30"),))))
    assert set(strangers(program)) == {f"(unknown)/10.5.0.{number}" for number in range(4)}


def test_other_changes_cost_nothing() -> None:
    compiler = closing(pod_prefixes=[Cidr.parse("10.0.0.0/24")])
    compiler.update([])
    before = compiler.program.endpoints["(unknown)/10.0.0.9"]  # type: ignore[index]
    rule = policy("shop/open", ingress=[PolicyRule(action=Action.ALLOW)])
    assert compiler.update(put(rule, pod("shop/far", "10.9.9.9", node="n2"))).endpoints[before.id] is before


@settings(max_examples=100, deadline=None)
@given(clusters(), st.randoms(use_true_random=False))
def test_the_order_does_not_matter(cluster: list[Pod | Namespace | Node], shuffler: random.Random) -> None:
    values = list({identity(value): value for value in cluster}.values())
    named = [f"{one.namespace}/{one.name}" for one in values if isinstance(one, Pod)]
    places = Places(
        interfaces={Cidr.parse(f"10.0.0.{number}"): f"veth{number % 3}" for number in range(6)},
        pods={name: Place(None, (Cidr.parse(f"10.7.0.{number}"),)) for number, name in enumerate(sorted(set(named)))},
    )
    prefixes = [Cidr.parse("10.0.0.0/29")]
    first = Compiler(node="n1", deny_strangers=True, pod_prefixes=prefixes)
    first.set_places(places)
    first.update(put(*values))
    second = Compiler(node="n1", deny_strangers=True, pod_prefixes=prefixes)
    shuffler.shuffle(values)
    for value in values:
        second.update(put(value))
    second.set_places(Places())
    second.set_places(places)
    first.program.check()
    assert first.program.same_content(second.program)
