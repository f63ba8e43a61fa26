"""What the backend would write into the maps, for people to read in reviews; the conformance suite has the rest."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from ebpf_cases import DNS, ECHO, WEB, made

from polyplane.ir.cidr import Cidr
from polyplane.ir.program import EMPTY, DenyAction, EndpointId, Established, Match, Options, PortRange, Program
from polyplane.reconcile.diff import diff
from polyplane_ebpf.backend import EbpfBackend

GOLDEN = Path(__file__).parent / "golden"
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
def test_golden(name: str, request: pytest.FixtureRequest) -> None:
    base, target = EXAMPLES[name]
    text = EbpfBackend().polyplane_render(diff(base, target))
    path = GOLDEN / f"{name}.txt"
    if request.config.getoption("--update-golden", default=False):
        path.write_text(text)
    assert text == path.read_text(), f"run pytest {Path(__file__).name} --update-golden and read the difference"


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
