"""The programs that answer refused packets: they come and go with devices, beside those of others, and cost a change nothing."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from typing import Final

import pytest
from ebpf_cases import WEB, made, start
from ebpf_node import REJECT, backend, directory, wired
from pyroute2 import IPRoute

from polyplane.backend_kit.namespaces import in_namespace
from polyplane.ir.cidr import Cidr
from polyplane.ir.program import EndpointId
from polyplane.reconcile.diff import diff
from polyplane_ebpf import answers, detect, namespace, syscall
from polyplane_ebpf.answers import filters
from polyplane_ebpf.syscall import AttachType, ProgramType

pytestmark = pytest.mark.needs("root")

#: r0 = -1; exit: whoever else is there decides.
BYSTANDER: Final = bytes.fromhex("b7000000ffffffff9500000000000000")


@pytest.mark.parametrize("attach", ["tcx", "clsact"])
@pytest.mark.parametrize(("way", "parent"), [(AttachType.TCX_EGRESS, 0xFFFFFFF3), (AttachType.TCX_INGRESS, 0xFFFFFFF2)])
def test_answering_programs_come_and_go_beside_others(node: str, attach: str, way: AttachType, parent: int) -> None:
    path = f"/run/netns/{node}"
    number = namespace.interfaces(path)["veth-s"]
    other = syscall.load_program(ProgramType.SCHED_CLS, BYSTANDER, name="bystander")
    link = in_namespace(path, lambda: syscall.link_tcx(other, number, way))

    def add_filter() -> None:
        with IPRoute() as route:
            route.tc("add", "clsact", number)
            route.tc("add-filter", "bpf", number, fd=other, name="bystander", parent=parent, direct_action=True, prio=3, handle=1)

    def found() -> dict[tuple[int, int], str]:
        with IPRoute() as route:
            return filters(route, number, parent)

    in_namespace(path, add_filter)
    held = backend(node, attach=attach)
    program, quiet = wired(made(WEB, options=REJECT)), wired(made(WEB))
    assert held.polyplane_apply(start(program)).detail["answers"] == 4
    assert held.polyplane_audit(program) == []
    assert held.polyplane_apply(start(program)).operations == 0
    assert len(in_namespace(path, found)) == (2 if attach == "clsact" else 1)
    subprocess.run(["ip", "-n", node, "link", "add", "late", "type", "veth", "peer", "name", "late-in"], check=True)
    assert sorted(drift.subject for drift in held.polyplane_audit(program)) == ["answers on late", "answers on late-in"]
    assert held.polyplane_apply(start(program)).operations == 2
    assert backend(node, attach=attach).polyplane_apply(start(program)).operations == 0
    held.polyplane_apply(diff(program, quiet))
    assert held.polyplane_audit(quiet) == []
    assert list(in_namespace(path, found)) == [(3, 1)]
    assert syscall.link_info(link).detail[0] == number
    os.close(link)
    os.close(other)


def test_without_tcx_the_old_way_of_attaching_is_taken(node: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detect, "has_tcx", lambda: False)
    program = wired(made(WEB, options=REJECT))
    held = backend(node)
    held.polyplane_apply(start(program))
    assert {pin.name.partition("_")[0] for pin in directory(node).iterdir()} >= {"clsact"}
    assert not list(directory(node).glob("tcx_*"))
    assert held.polyplane_audit(program) == []


@pytest.mark.parametrize("attach", ["tcx", "clsact"])
def test_a_change_of_policy_looks_at_no_device_and_a_repair_at_all(node: str, attach: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program = wired(made(WEB, options=REJECT))
    held = backend(node, attach=attach)
    held.polyplane_apply(start(program))
    server = program.endpoints[EndpointId("x/server")]
    more = replace(server, addresses=(*server.addresses, Cidr.parse("fd00::9")))
    changed = replace(program, endpoints={**program.endpoints, server.id: more})
    with monkeypatch.context() as patch:
        for question in ("_devices", "_with_filters", "_is_alive"):
            patch.setattr(answers, question, lambda *_: pytest.fail("nobody has to be asked"))
        assert held.polyplane_apply(diff(program, changed)).detail == {"owners": 1}
    if attach == "tcx":
        link = syscall.open_pinned(str(next(directory(node).glob("tcx_*_in_*"))))
        syscall.detach_link(link)
        os.close(link)
    else:
        subprocess.run(["nsenter", f"--net=/run/netns/{node}", "tc", "filter", "del", "dev", "veth-c", "ingress"], check=True)
    assert [drift.found for drift in held.polyplane_audit(changed)] == ["missing"]
    assert held.polyplane_apply(start(changed)).detail == {"answers": 1}
    assert held.polyplane_audit(changed) == []
