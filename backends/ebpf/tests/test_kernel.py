"""The backend in a network namespace of its own: what it leaves, what it finds again, what it never touches."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from ebpf_cases import DNS, ECHO, WEB, made, start
from ebpf_node import PINS, REJECT, backend, directory, wired

from polyplane.errors import ApplyError, BackendUnavailable
from polyplane.ir.cidr import Cidr
from polyplane.ir.program import EndpointId, Match, PortRange
from polyplane.reconcile.diff import diff
from polyplane_ebpf import bytecode, syscall

pytestmark = pytest.mark.needs("root")


def test_a_restart_changes_nothing(node: str) -> None:
    program = wired(made(WEB, ECHO))
    first = backend(node).polyplane_apply(start(program))
    assert first.detail["links"] == 6
    assert first.operations > 10
    again = backend(node)
    assert again.polyplane_apply(start(program)).operations == 0
    assert again.polyplane_audit(program) == []
    assert again.polyplane_apply(start(program)).operations == 0


def test_a_delta_costs_what_it_changes(node: str) -> None:
    program = wired(made(WEB))
    held = backend(node)
    held.polyplane_apply(start(program))
    server = program.endpoints[EndpointId("x/server")]
    more = replace(
        program, endpoints={**program.endpoints, server.id: replace(server, addresses=(*server.addresses, Cidr.parse("fd00::9")))}
    )
    assert held.polyplane_apply(diff(program, more)).operations == 1
    assert held.polyplane_audit(more) == []
    assert held.polyplane_apply(diff(more, program)).operations == 1


def test_a_restart_finds_what_it_has_to_change(node: str) -> None:
    backend(node).polyplane_apply(start(wired(made(WEB))))
    other = wired(made(DNS))
    result = backend(node).polyplane_apply(start(other))
    assert 0 < result.operations < 12
    assert "links" not in result.detail
    assert backend(node).polyplane_audit(other) == []


def test_teardown_leaves_nothing_and_takes_nothing_else(node: str) -> None:
    before = subprocess.run(["ip", "-n", node, "-d", "link"], check=True, capture_output=True, text=True).stdout
    held = backend(node)
    held.polyplane_apply(start(wired(made(WEB, options=REJECT))))
    assert directory(node).is_dir()
    assert held.polyplane_teardown().operations > 20
    assert not list(PINS.glob(f"v*/ns-{Path('/run/netns', node).stat().st_ino}"))
    assert subprocess.run(["ip", "-n", node, "-d", "link"], check=True, capture_output=True, text=True).stdout == before
    assert held.polyplane_teardown().detail["pins"] == 0


def test_what_died_while_it_began_can_be_told_from_what_is_in_use(node: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(_: object) -> dict[str, int]:
        raise KeyboardInterrupt

    monkeypatch.setattr("polyplane_ebpf.kernel.Kernel.load", die)
    with pytest.raises(KeyboardInterrupt):
        backend(node).polyplane_apply(start(wired(made(WEB))))
    (draft,) = PINS.glob(f"v*/new-ns-{Path('/run/netns', node).stat().st_ino}")
    assert (draft / "name").readlink() == Path(node)


def test_what_an_older_version_left_is_replaced(node: str) -> None:
    program = wired(made(WEB))
    backend(node).polyplane_apply(start(program))
    current = directory(node)
    old = current.parents[1] / "v0" / current.name
    old.mkdir(parents=True)
    for pin in current.iterdir():  # links and maps as another layout would have them
        pin.rename(old / pin.name)
    current.rmdir()
    held = backend(node)
    assert held.polyplane_apply(start(program)).operations > 0
    assert not old.exists()
    assert held.polyplane_audit(program) == []


def test_other_sizes_take_other_maps_without_a_gap(node: str) -> None:
    program = wired(made(WEB))
    backend(node).polyplane_apply(start(program))
    larger = backend(node, max_rows=8192)
    assert larger.polyplane_audit(program), "the audit sees it"
    assert larger.polyplane_apply(start(program)).detail["links"] >= 6
    assert larger.polyplane_audit(program) == []
    assert larger.polyplane_apply(start(program)).operations == 0


def test_other_instructions_take_over_the_same_maps(node: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program = wired(made(WEB))
    backend(node).polyplane_apply(start(program))
    maps = {pin.name: pin.stat().st_ino for pin in directory(node).glob("map_*")}
    before = bytecode.obtain("auto", Path("/nowhere"))
    nothing = bytes.fromhex("0500000000000000")  # a jump to the next instruction
    after = replace(before, functions={name: nothing + code for name, code in before.functions.items()})
    monkeypatch.setattr(bytecode, "obtain", lambda *_: after)
    held = backend(node)
    assert held.polyplane_apply(start(program)).detail == {"links": 12}
    assert held.polyplane_audit(program) == []
    assert {pin.name: pin.stat().st_ino for pin in directory(node).glob("map_*")} == maps
    assert {pin.name.rpartition("_")[2] for pin in directory(node).glob("link_*")} == {after.tag}


def test_links_that_were_detached_by_force_are_noticed_and_come_back(node: str) -> None:
    program = wired(made(WEB))
    held = backend(node)
    held.polyplane_apply(start(program))
    (pin,) = directory(node).glob("link_6_forward_*")
    link = syscall.open_pinned(str(pin))
    syscall.detach_link(link)
    os.close(link)
    assert [(drift.subject, drift.found) for drift in held.polyplane_audit(program)] == [(pin.name, "missing")]
    assert held.polyplane_audit(program), "asking changes nothing"
    assert held.polyplane_apply(start(program)).detail == {"links": 1}
    assert held.polyplane_audit(program) == []
    assert backend(node).polyplane_apply(start(program)).operations == 0


def test_an_interface_that_is_made_anew_is_found(node: str) -> None:
    program = wired(made(WEB))
    held = backend(node)
    held.polyplane_apply(start(program))
    subprocess.run(["ip", "-n", node, "link", "del", "veth-s"], check=True)
    assert held.polyplane_audit(program)
    held.polyplane_apply(start(program))
    assert held.polyplane_audit(program) == [], "without an interface the pod is known by its address"
    subprocess.run(["ip", "-n", node, "link", "add", "veth-s", "type", "veth", "peer", "name", "veth-s-in"], check=True)
    assert [drift.found for drift in held.polyplane_audit(program)] == ["nothing"]
    assert held.polyplane_apply(start(program)).operations == 1


def test_what_does_not_fit_is_refused_before_anything_changes(node: str) -> None:
    program = wired(made(WEB))
    held = backend(node, max_rows=64)
    held.polyplane_apply(start(program))
    many = wired(made(*(Match(protocol=6, ports=(PortRange(port, port),)) for port in range(1, 200, 2))))
    with pytest.raises(ApplyError, match="max_rows") as refused:
        held.polyplane_apply(diff(program, many))
    assert not refused.value.retryable
    assert backend(node, max_rows=64).polyplane_audit(program) == []
    assert held.polyplane_apply(start(program)).operations == 0
    assert next(fill for fill in held.polyplane_fill() if fill.name == "policy").used <= 64


def test_the_bpf_file_system_is_mounted_where_it_is_not(node: str, tmp_path: Path) -> None:
    place = tmp_path / "bpf"
    place.mkdir()
    held = backend(node, bpffs=str(place))
    try:
        assert held.polyplane_apply(start(wired(made(WEB)))).detail["links"] == 6
        mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines()]
        assert [str(place), "bpf"] in mounts
        assert backend(node, bpffs=str(place)).polyplane_apply(start(wired(made(WEB)))).operations == 0
        held.polyplane_teardown()
        assert not (place / "polyplane").exists()
    finally:
        subprocess.run(["umount", str(place)], check=True)
    with pytest.raises(BackendUnavailable, match=r"cannot be mounted: .*; try: mount -t bpf bpf /nowhere"):
        backend(node, bpffs="/nowhere").polyplane_apply(start(wired(made(WEB))))
