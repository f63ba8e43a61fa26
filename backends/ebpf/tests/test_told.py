"""What the backend tells: counters, events, fill levels, and the maps as text and as a program."""

from __future__ import annotations

import os
import struct
import sys
import time
from dataclasses import replace

import pytest
from ebpf_bench import frame_of
from ebpf_cases import CLIENT, ISOLATION, SERVER, WEB, made, start
from ebpf_node import REJECT, backend, directory, wired
from structlog.testing import capture_logs

from polyplane.errors import BackendUnavailable
from polyplane.hookspecs import PacketEvent, PacketEventKind
from polyplane.ir.evaluate import Packet, evaluate
from polyplane.ir.program import Direction
from polyplane.ir.text import parse_program
from polyplane.observers.log import LogObserver
from polyplane.plugins import Dataplane, Observers
from polyplane.reconcile.reports import Reports
from polyplane_ebpf import syscall
from polyplane_ebpf.__main__ import main
from polyplane_ebpf.maps import Hook
from polyplane_ebpf.options import SIZES

pytestmark = pytest.mark.needs("root")


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


def test_events_name_the_rule(node: str, one_processor: None) -> None:
    held = backend(node, events=3)
    held.polyplane_apply(start(wired(made(WEB))))
    forward(node, 80, *[81] * 10)
    events = held.polyplane_events()
    assert 3 <= len(events) <= 6, "no more than asked for in a second, or in two"
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


def test_show_reads_the_kernel(node: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--netns", f"/run/netns/{node}", "show"]) == 1
    backend(node).polyplane_apply(start(wired(made(WEB))))
    for command, expected in (("show", "otherwise = deny rule 99"), ("fill", "owners 4 of"), ("counters", ""), ("forget", "")):
        capsys.readouterr()
        assert main(["--netns", f"/run/netns/{node}", command]) == 0
        assert expected in capsys.readouterr().out
