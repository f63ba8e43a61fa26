"""What the backend would write into the maps, for people to read in reviews; the conformance suite has the rest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from ebpf_cases import DNS, ECHO, WEB, made

from polyplane.ir.cidr import Cidr
from polyplane.ir.program import EMPTY, DenyAction, EndpointId, Established, Match, Options, PortRange, Program
from polyplane.reconcile.diff import diff
from polyplane_ebpf.backend import EbpfBackend

LOW = Match(protocol=6, ports=(PortRange(1, 1023),), source_ports=(PortRange(0, 1023),), not_source_ports=(PortRange(22, 22),))
EXAMPLES = {
    "empty": (EMPTY, EMPTY),
    "one-pod": (EMPTY, made(WEB, DNS)),
    "paths": (EMPTY, made(LOW, ECHO, log=7)),
    "options": (made(WEB), made(WEB, options=Options(established=Established.KEEP, deny_action=DenyAction.REJECT))),
    "other-policy": (made(WEB), made(DNS)),
    "to-nothing": (made(WEB), EMPTY),
}


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_golden(name: str, golden: Callable[[str, str], None]) -> None:
    golden(f"{name}.txt", EbpfBackend().polyplane_render(diff(*EXAMPLES[name])))


def test_nothing_to_do_is_no_text() -> None:
    assert EbpfBackend().polyplane_render(diff(made(WEB), made(WEB))) == ""


def test_a_new_address_is_one_line() -> None:
    def more(program: Program) -> Program:
        server = program.endpoints[EndpointId("x/server")]
        return replace(
            program, endpoints={**program.endpoints, server.id: replace(server, addresses=(*server.addresses, Cidr.parse("fd00::3")))}
        )

    lines = EbpfBackend().polyplane_render(diff(made(WEB), more(made(WEB)))).splitlines()
    assert [line.split()[1] for line in lines if line != "--"] == ["owners"]
