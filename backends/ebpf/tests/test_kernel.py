"""The backend in a network namespace of its own: what it leaves, what it finds again, what it never touches."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest
from ebpf_bench import Bench, frame_of
from ebpf_cases import CLIENT, DNS, ECHO, ISOLATION, SERVER, SMALL, WEB, made, start
from pyroute2 import IPRoute
from structlog.testing import capture_logs

from polyplane.backend_kit.namespaces import in_namespace
from polyplane.errors import ApplyError, BackendUnavailable, ConfigError
from polyplane.hookspecs import PacketEvent, PacketEventKind
from polyplane.ir.cidr import Cidr
from polyplane.ir.evaluate import Packet, evaluate
from polyplane.ir.program import DenyAction, Direction, EndpointId, Match, Options, PortRange, Program
from polyplane.ir.text import parse_program
from polyplane.observers.log import LogObserver
from polyplane.plugins import Dataplane, Observers
from polyplane.reconcile.diff import diff
from polyplane.reconcile.reports import Reports
from polyplane_conformance.sandbox.namespaces import new_prefix
from polyplane_ebpf import bytecode, detect, namespace, syscall
from polyplane_ebpf.__main__ import main
from polyplane_ebpf.answers import filters
from polyplane_ebpf.backend import EbpfBackend
from polyplane_ebpf.btf import read_types
from polyplane_ebpf.kernel import explain
from polyplane_ebpf.maps import NOWHERE, Hook
from polyplane_ebpf.options import SIZES, EbpfOptions
from polyplane_ebpf.syscall import AttachType, ProgramType, Refused

pytestmark = pytest.mark.needs("root")

PINS: Final = Path("/sys/fs/bpf/polyplane")
REJECT: Final = Options(deny_action=DenyAction.REJECT)
#: r0 = -1; exit: whoever else is there decides.
BYSTANDER: Final = bytes.fromhex("b7000000ffffffff9500000000000000")


@pytest.fixture
def node() -> Iterator[str]:
    name = f"{new_prefix()}ebpf"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        for link in ("veth-c", "veth-s"):
            subprocess.run(["ip", "-n", name, "link", "add", link, "type", "veth", "peer", "name", f"{link}-in"], check=True)
        yield name
    finally:
        backend(name).polyplane_teardown()
        subprocess.run(["ip", "netns", "del", name], check=True)


def backend(node: str, **options: object) -> EbpfBackend:
    return EbpfBackend({**SMALL, "netns": f"/run/netns/{node}", **options})


def wired(program: Program) -> Program:
    names = {EndpointId("x/client"): "veth-c", EndpointId("x/server"): "veth-s"}
    return replace(program, endpoints={name: replace(one, interface=names[name]) for name, one in program.endpoints.items()})


def directory(node: str) -> Path:
    (found,) = PINS.glob(f"v*/ns-{Path('/run/netns', node).stat().st_ino}")
    return found


def test_a_restart_changes_nothing(node: str) -> None:
    program = wired(made(WEB, ECHO))
    first = backend(node).polyplane_apply(start(program))
    assert first.detail["links"] == 6
    assert first.operations > 10
    again = backend(node)
    assert again.polyplane_apply(start(program)).operations == 0
    assert again.polyplane_audit(program) == []
    assert again.polyplane_apply(start(program)).operations == 0


def test_counters_of_rules_that_are_gone_make_room(node: str) -> None:
    program = wired(made(WEB))
    held = backend(node)
    held.polyplane_apply(start(program))
    counters = held._kernel.descriptor("counters")
    for rule in (1, 12345):
        syscall.update(counters, rule.to_bytes(4, sys.byteorder), bytes(16 * syscall.possible_processors()))
    assert [count.rule_id for count in held.polyplane_counters()] == [1, 12345]
    backend(node).polyplane_apply(start(program))
    assert [count.rule_id for count in held.polyplane_counters()] == [1]


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


def test_the_kernel_is_shown_as_a_program(node: str) -> None:
    with pytest.raises(BackendUnavailable, match="nothing of this version is pinned"):
        backend(node).polyplane_show()
    program = wired(made(WEB, options=REJECT))
    backend(node).polyplane_apply(start(program))
    found = parse_program(backend(node).polyplane_show())
    assert {one.interface: one.addresses for one in found.endpoints.values()} == {
        one.interface: one.addresses for one in program.endpoints.values()
    }
    assert found.options == REJECT
    packet = Packet(source=CLIENT, destination=SERVER, protocol=6, source_port=1, port=80)
    for port in (80, 81):
        wanted, got = (evaluate(one, replace(packet, port=port)) for one in (program, found))
        assert (got.verdict, got.decision.rule_id) == (wanted.verdict, wanted.decision.rule_id)


def test_fill_levels(node: str) -> None:
    held = backend(node)
    assert held.polyplane_fill() == ()
    held.polyplane_apply(start(wired(made(WEB))))
    fills = {fill.name: fill for fill in held.polyplane_fill()}
    found = held._kernel.fill()
    assert {name: (fill.used, fill.capacity) for name, fill in fills.items() if name != "connections"} == {
        name: level for name, level in found.items() if name != "connections"
    }
    assert fills["policy"].remedy == "raise [backend.ebpf] max_rows"
    assert fills["owners"].used == 4
    assert all(fill.remedy.rpartition(" ")[2] in SIZES for fill in fills.values())


def forward(node: str, *ports: int) -> None:
    """Let the program that is in force decide about the first packets of connections to these ports of the server."""
    (pin,) = directory(node).glob("program_polyplane_filter_*")
    program = syscall.open_pinned(str(pin))
    packet = Packet(source=CLIENT, destination=SERVER, protocol=6, source_port=40000, port=81)
    for port in ports:
        context = struct.pack("=BB", Hook.FORWARD, 2).ljust(48, b"\0")
        syscall.try_program(program, frame_of(replace(packet, port=port)), context=context)
    os.close(program)


def test_denied_packets_come_to_the_log(node: str) -> None:
    held = backend(node)
    program = wired(made(WEB))
    held.polyplane_apply(start(program))
    observers = Observers([("log", LogObserver({"denied": True}))])
    reports = Reports(Dataplane("ebpf", held), observers, count_interval=15, event_interval=1)
    forward(node, 80, 81)
    with capture_logs() as entries:
        reports.step(0, program)
    (entry,) = entries
    assert (entry["kind"], entry["rule"], entry["by"]) == ("deny", ISOLATION, "isolated by Test x/t ingress[0]")
    assert (entry["source"], entry["traffic"]) == ("10.0.0.1", "tcp 40000 > 81")


def test_events_name_the_rule(node: str) -> None:
    held = backend(node, events=3)
    held.polyplane_apply(start(wired(made(WEB))))
    forward(node, 80, *[81] * 10)
    events = held.polyplane_events()
    assert 3 <= len(events) <= 3 * syscall.possible_processors() * 2, "no more than asked for in a second"
    assert set(events) == {
        PacketEvent(
            kind=PacketEventKind.DENY,
            rule_id=ISOLATION,
            direction=Direction.INGRESS,
            source=CLIENT,
            destination=SERVER,
            protocol=6,
            source_port=40000,
            port=81,
        )
    }
    assert held.polyplane_events() == ()


def test_only_connections_that_live_count(node: str) -> None:
    held = backend(node)
    held.polyplane_apply(start(wired(made(WEB))))
    connections = held._kernel.descriptor("connections")

    def connection(number: int, protocol: int, age: float, *, closing: bool = False) -> None:
        key = struct.pack("=52xB3x", protocol)[:-1] + bytes([number])
        value = struct.pack("=8xQ9xB6x", time.monotonic_ns() - int(age * 1e9), closing)
        syscall.update(connections, key, value)

    connection(1, 6, 3600)
    connection(2, 17, 179)
    connection(3, 58, 1)
    connection(4, 6, 3600, closing=True)
    connection(5, 17, 181)
    assert {fill.name: fill.used for fill in held.polyplane_fill()}["connections"] == 3


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


def test_show_reads_the_kernel(node: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--netns", f"/run/netns/{node}", "show"]) == 1
    backend(node).polyplane_apply(start(wired(made(WEB))))
    for command, expected in (("show", "otherwise = deny rule 99"), ("fill", "owners 4 of"), ("counters", ""), ("forget", "")):
        capsys.readouterr()
        assert main(["--netns", f"/run/netns/{node}", command]) == 0
        assert expected in capsys.readouterr().out


def test_options_are_checked() -> None:
    for options, said in (
        ({"netns": "x"}, "absolute path"),
        ({"atach": "tcx"}, "did you mean attach"),
        ({"attach": "xdp"}, "none of auto, tcx, clsact"),
        ({"max_rows": 0}, "not a number from 1"),
        ({"priority": 100}, "from -99 to 99"),
        ({"instance": "../x"}, "no usable name"),
    ):
        with pytest.raises(ConfigError, match=said):
            EbpfBackend(options)


def test_this_machine_says_what_it_can_do() -> None:
    assert detect.missing(EbpfOptions()) == ()
    told = dict(detect.details(EbpfOptions()))
    assert {told[name] for name in ("netfilter link", "tcx", "lru", "lpm", "ringbuf", "btf")} == {"yes"}
    assert set(told) >= {"kernel", "bytecode"}


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


def test_an_older_kernel_is_told_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    class Old:
        release = "6.1.0-30-amd64"

    monkeypatch.setattr(os, "uname", Old)
    (gap,) = detect.missing(EbpfOptions())
    for said in ("this is Linux 6.1.0-30-amd64", "Linux 6.6 and CONFIG_NETFILTER_BPF_LINK=y", "backend = 'nftables'"):
        assert said in gap


def test_without_tcx_the_old_way_of_attaching_is_taken(node: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detect, "has_tcx", lambda: False)
    program = wired(made(WEB, options=REJECT))
    held = backend(node)
    held.polyplane_apply(start(program))
    assert {pin.name.partition("_")[0] for pin in directory(node).iterdir()} >= {"clsact"}
    assert not list(directory(node).glob("tcx_*"))
    assert held.polyplane_audit(program) == []


def test_the_verifiers_log_becomes_one_sentence() -> None:
    with pytest.raises(Refused) as refused:
        syscall.load_program(ProgramType.SCHED_CLS, bytes.fromhex("9500000000000000"), name="bad")
    sentence = explain("bad", refused.value)
    assert "R0 !read_ok" in sentence
    assert "\n" not in sentence


def test_a_kernel_in_lockdown_gets_a_program_that_does_not_read_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such a kernel refuses the helper; without the places it would be used for, the verifier never gets to it."""
    real, tried = syscall.load_program, []

    def strict(kind: ProgramType, code: bytes, *, name: str, attach: AttachType = AttachType.NONE) -> int:
        if name == "polyplane_filter":
            tried.append(code.count(struct.pack("=i", NOWHERE)))
            if len(tried) == 1:
                raise Refused(22, "unknown func bpf_probe_read_kernel#113")
        return real(kind, code, name=name, attach=attach)

    monkeypatch.setattr(syscall, "load_program", strict)
    with Bench() as bench:
        bench.bring(made(WEB, options=REJECT))
        packet = Packet(source=CLIENT, destination=SERVER, protocol=6, source_port=1, port=80)
        assert bench.ask(frame_of(packet))
        assert not bench.ask(frame_of(replace(packet, port=81)))
    assert tried[1] > tried[0]


def btf(types: bytes, strings: bytes) -> bytes:
    return struct.pack("=HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(strings)) + types + strings


def test_types_of_a_module_are_found_beside_the_kernels(tmp_path: Path) -> None:
    """Of a module whose structure has a name of its own and a field that is named in the kernel's strings."""
    strings, own = b"\0sk_buff\0len\0tuplehash\0", b"\0nf_conn\0"

    def structure(name: int, field: int, offset: int) -> bytes:
        return struct.pack("=III", name, 4 << 24 | 1, 64) + struct.pack("=III", field, 0, offset * 8)

    (tmp_path / "vmlinux").write_bytes(btf(structure(1, 9, 112), strings))
    fields = (("sk_buff", "len"), ("nf_conn", "tuplehash"))
    assert read_types(fields, (), tmp_path / "vmlinux").offsets == {("sk_buff", "len"): 112}
    read_types.cache_clear()
    (tmp_path / "nf_conntrack").write_bytes(btf(structure(len(strings) + 1, 13, 24), own))
    assert read_types(fields, (), tmp_path / "vmlinux").offsets == {("sk_buff", "len"): 112, ("nf_conn", "tuplehash"): 24}


def test_without_types_of_the_kernel_the_remedy_is_told(tmp_path: Path) -> None:
    with pytest.raises(BackendUnavailable, match="CONFIG_DEBUG_INFO_BTF"):
        read_types((), (), tmp_path / "none")
    (tmp_path / "bad").write_bytes(bytes(64))
    with pytest.raises(BackendUnavailable, match="not in BTF format"):
        read_types((), (), tmp_path / "bad")
