"""Interfaces that were found on the node, for pods that do not name theirs."""

from __future__ import annotations

from dataclasses import replace

from cluster_values import namespace, pod, put

from polyplane.compile.incremental import Compiler
from polyplane.compile.places import Places
from polyplane.ir.cidr import Cidr
from polyplane.ir.program import EndpointId, Program

FIRST, SECOND, SIXTH = (Cidr.parse(text) for text in ("10.0.0.1", "10.0.0.2", "fd00::1"))
WEB, DB = EndpointId("shop/web"), EndpointId("shop/db")


def located(compiler: Compiler, interfaces: dict[Cidr, str]) -> Program:
    return compiler.set_places(Places(interfaces=interfaces))


def test_found_interfaces_follow_the_pods() -> None:
    compiler = Compiler(node="n1")
    located(compiler, {FIRST: "veth1", Cidr.parse("10.9.9.9"): "veth9"})
    named = pod("shop/db", "10.0.0.2", interface="own")
    assert compiler.update(put(namespace("shop"), pod("shop/web", "10.0.0.1"), named)).endpoints[WEB].interface == "veth1"
    assert located(compiler, {FIRST: "veth2", SECOND: "vethx"}).endpoints[WEB].interface == "veth2"
    assert compiler.program.endpoints[DB].interface == "own"
    before = compiler.program
    built = compiler.recomputations["endpoints built"]
    assert located(compiler, {FIRST: "veth2", SECOND: "other"}) is before
    assert compiler.recomputations["endpoints built"] == built
    assert located(compiler, {}).endpoints[WEB].interface is None


def test_addresses_at_two_interfaces_are_at_none() -> None:
    compiler = Compiler(node="n1")
    compiler.update(put(namespace("shop"), replace(pod("shop/web", "10.0.0.1"), addresses=(FIRST, SIXTH))))
    assert located(compiler, {FIRST: "veth1"}).endpoints[WEB].interface == "veth1"
    assert located(compiler, {FIRST: "veth1", SIXTH: "veth1"}).endpoints[WEB].interface == "veth1"
    assert located(compiler, {FIRST: "veth1", SIXTH: "veth2"}).endpoints[WEB].interface is None
