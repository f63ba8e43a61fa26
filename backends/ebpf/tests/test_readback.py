"""The maps read back as a program decide as the program they were made of; no kernel needed."""

from __future__ import annotations

import random

from backend_programs import with_content_ids
from ebpf_cases import DNS, ECHO, WEB, made
from ebpf_packets import some_packets
from hypothesis import example, given, settings
from hypothesis import strategies as st
from ir_programs import programs

from polyplane.backend_kit.deltas import whole
from polyplane.ir.evaluate import Decision, Packet, evaluate
from polyplane.ir.program import DenyAction, Established, Match, Options, PortRange, Program
from polyplane.ir.text import parse_program, print_program
from polyplane_ebpf.layout import Layout
from polyplane_ebpf.maps import LOGS
from polyplane_ebpf.readback import program_of


def read_back(program: Program, view: int = 0) -> Program:
    layout = Layout.of(whole(program), events=100, view=view)
    names = dict(enumerate(sorted(layout.content["interfaces"]), 2))
    content = {
        **layout.content,
        "interfaces": {key.to_bytes(4, "little"): layout.content["interfaces"][name] for key, name in names.items()},
    }
    found = program_of(content, layout.settings, {key: name.decode() for key, name in names.items()})
    found.check()
    return found


def said(program: Program, packet: Packet) -> list[object]:
    evaluation = evaluate(program, packet)
    return [evaluation.verdict, *(_decision(one) for one in (evaluation.egress, evaluation.ingress))]


def _decision(decision: Decision | None) -> object:
    return decision and (decision.verdict, decision.rule_id, decision.logged[:LOGS])


@settings(deadline=None, max_examples=60)
@given(program=programs(), seed=st.integers(0, 2**32), view=st.integers(0, 1))
@example(program=made(WEB, DNS, ECHO, log=7), seed=1, view=0)
@example(program=made(Match(protocol=6, source_ports=(PortRange(1, 1023),))), seed=2, view=1)
def test_what_is_read_back_decides_alike(program: Program, seed: int, view: int) -> None:
    program = with_content_ids(program)
    found = read_back(program, view)
    assert parse_program(print_program(found)).same_content(found)
    for packet in some_packets(random.Random(seed), 40):  # noqa: S311  # to be repeated, not to be secret
        assert said(found, packet) == said(program, packet), packet


def test_everything_else_comes_back_too() -> None:
    program = made(WEB, options=Options(established=Established.KEEP, deny_action=DenyAction.REJECT))
    found = read_back(program)
    assert (found.options, found.node_addresses) == (program.options, program.node_addresses)
    assert sorted(endpoint.addresses for endpoint in found.endpoints.values()) == sorted(
        endpoint.addresses for endpoint in program.endpoints.values()
    )


def test_what_is_missing_is_closed() -> None:
    program = made(WEB)
    layout = Layout.of(whole(program), events=100)
    content = {**layout.content, "interfaces": {}, "policy": {}}
    server = next(one for one in program.endpoints.values() if one.ingress).addresses[0]
    client = next(one for one in program.endpoints.values() if not one.ingress).addresses[0]
    wanted = Packet(source=client, destination=server, protocol=6, source_port=1, port=80)
    assert evaluate(program, wanted).verdict != evaluate(program_of(content, layout.settings, {}), wanted).verdict
