"""What a packet costs in the eBPF programs, by the number of policies and addresses; what starting and changing cost.

Times come from BPF_PROG_TEST_RUN, the program alone without the network stack around it: there the best of several rounds counts,
because whoever shares the machine can only make it slower. And from real traffic between two pods, where nodes of all sizes stand
beside each other and are visited in turns: there medians count.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from backend_programs import IN, address_set, endpoint, isolated, policy, rule
from backend_programs import program as program_of
from ebpf_bench import ACK, Bench, frame_of

from polyplane.ir.cidr import Cidr
from polyplane.ir.evaluate import Packet
from polyplane.ir.members import Members
from polyplane.ir.program import EMPTY, PortRange, Program
from polyplane.ir.text import print_program
from polyplane.reconcile.diff import diff
from polyplane_bench import layouts
from polyplane_bench.packets import Variant, node
from polyplane_bench.page_packets import FLAT
from polyplane_bench.programs import Load
from polyplane_conformance.sandbox.namespaces import new_prefix
from polyplane_ebpf import syscall
from polyplane_ebpf.backend import EbpfBackend
from polyplane_ebpf.changes import Changes
from polyplane_ebpf.kernel import ANSWER, REFUSE

pytestmark = pytest.mark.needs("root")

SERVER = Cidr.parse("10.0.0.1")
ROUNDS, REPEATS = 15, 20_000


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with Bench(max_rows=1 << 18, max_hosts=1 << 18) as made:
        yield made


def member(number: int) -> Cidr:
    return Cidr(4, (11 << 24) + number, 32)


def with_policies(policies: int, addresses: int) -> Program:
    """Return one isolated pod with so many policies, each admitting its share of the addresses to one port of its own."""
    share = addresses // policies
    sets = [address_set(f"peers-{at}", *(str(member(at * share + one)) for one in range(share))) for at in range(policies)]
    made = [
        policy(IN, rule(f"p{at}", IN, 0, sets=(each.id,), protocol=6, ports=(PortRange(at % 50000 + 1, at % 50000 + 1),)))
        for at, each in enumerate(sets)
    ]
    return program_of(endpoint("server", None, SERVER.address_text, ingress=isolated(IN, *made)), *made, *sets)


def best(bench: Bench, frame: bytes) -> int:
    return min(bench.nanoseconds(frame, REPEATS) for _ in range(ROUNDS))


def test_a_packet_costs_the_same_whatever_there_is(bench: Bench, recorder: Any, *, large: bool) -> None:
    sizes = [(1, 10), (1000, 10_000), (10_000, 100_000)] if large else [(1, 10), (200, 2000)]
    cost: dict[str, list[int]] = {"new connection": [], "established": []}
    for policies, addresses in sizes:
        size = f"{policies} policies, {addresses} addresses"
        bench.bring(with_policies(policies, addresses))
        last = Packet(source=member(addresses - 1), destination=SERVER, protocol=6, source_port=40000, port=(policies - 1) % 50000 + 1)
        bench.forget()
        assert bench.ask(frame_of(last))
        assert not bench.ask(frame_of(replace(last, port=last.port + 1)))
        for what, flags in (("new connection", 2), ("established", ACK)):
            cost[what].append(best(bench, frame_of(last, flags=flags)))
            recorder.rows.append(
                {"size": size, "step": f"packet, ns: {what}", "cpu_seconds": cost[what][-1] / 1e9, "count": cost[what][-1]}
            )
    assert cost["established"][-1] <= cost["established"][0] * FLAT
    if large:
        assert cost["new connection"][-1] <= cost["new connection"][0] * FLAT


def test_answering_costs_others_little(bench: Bench, recorder: Any) -> None:
    """With ``deny_action = "reject"`` two programs of traffic control see every packet, and leave it alone."""
    frame = frame_of(Packet(source=member(1), destination=SERVER, protocol=6, source_port=40000, port=1), flags=ACK)
    for function in (REFUSE, ANSWER):
        runs = [syscall.try_program(bench.programs[function], frame, repeat=REPEATS) for _ in range(ROUNDS)]
        assert {run.value for run in runs} == {0xFFFFFFFF}
        nanoseconds = min(run.nanoseconds for run in runs)
        recorder.rows.append({"size": function, "step": "packet of others, ns", "cpu_seconds": nanoseconds / 1e9, "count": nanoseconds})


SIZES = {
    "no rules": None,
    "1 policy": Load(policies=1),
    "1,000 policies on one pod": Load(policies=1000, spread=False),
    "1,000 policies on 250 pods": Load(policies=1000, endpoints=250),
    "10,000 policies on one pod": Load(policies=10_000, spread=False),
    "1,000 policies, 100,000 addresses": Load(policies=1000, addresses=100_000, spread=False),
}
TURNS, TURN_SECONDS = 60, 0.02


@pytest.mark.netns
@pytest.mark.needs("--benchmarks")  # test_packet_cost.py has the small sizes
def test_real_traffic_costs_the_same_whatever_there_is(recorder: Any) -> None:
    """Datagrams of one connection, and connections opened and closed; CPU time of whatever touches the packets."""
    spent: dict[tuple[str, str], list[float]] = {}
    with ExitStack() as stack:
        wires = {}
        for name, load in SIZES.items():
            variant = Variant(layout="none", load=Load(), lay=layouts.nothing) if load is None else Variant(layout="ebpf", load=load)
            wires[name], _ = stack.enter_context(node(variant))
        for _ in range(TURNS):
            for name, wire in wires.items():
                for kind, traffic in (("datagram", wire.udp), ("connection", wire.connections)):
                    found = traffic(TURN_SECONDS)
                    assert found.units
                    spent.setdefault((kind, name), []).append(found.cpu / found.units)
                    spent.setdefault((f"{kind}s a second", name), []).append(found.units / found.wall)
    medians = {what: median(values) for what, values in spent.items()}
    for (kind, name), value in medians.items():
        if kind.endswith("second"):
            recorder.rows.append({"size": name, "step": kind, "cpu_seconds": 0, "count": int(value)})
            continue
        ratio = value / medians[kind, "no rules"]
        recorder.rows.append(
            {"size": name, "step": f"real {kind}: x{ratio:.2f} of none; ns", "cpu_seconds": value, "count": int(value * 1e9)}
        )
    for kind in ("datagram", "connection"):
        for name, load in SIZES.items():
            if load is not None:
                assert medians[kind, name] <= medians[kind, "1 policy"] * FLAT, (kind, name)


def test_changing_one_address_costs_one_entry(bench: Bench, recorder: Any, *, large: bool) -> None:
    policies, addresses = (1000, 100_000) if large else (100, 1000)
    program = with_policies(policies, addresses)
    size = f"{policies} policies, {addresses} addresses"
    bench.bring(program)
    name = next(iter(program.sets))
    for number in range(20):
        grown = replace(program.sets[name], members=program.sets[name].members.changed(added=[member(1 << 20 | number)]))
        after = replace(program, sets={**program.sets, name: grown})
        delta = diff(program, after)
        written = recorder.cpu(size, "one address more", lambda delta=delta: bench.follow(delta)) if number == 19 else bench.follow(delta)
        assert written == 1
        program = after


def test_addresses_are_written_in_batches(bench: Bench, recorder: Any, *, large: bool) -> None:
    count = 100_000 if large else 2000
    program = with_policies(1, 1)
    bench.bring(program)
    name = next(iter(program.sets))
    grown = replace(program.sets[name], members=Members(member(number) for number in range(count)))
    delta = diff(program, replace(program, sets={name: grown}))
    recorder.cpu("1 policy", f"{count} addresses more, with compiling", lambda: bench.follow(delta))
    hosts = bench.layout.content["hosts"]
    assert len(hosts) == count
    began = time.perf_counter()
    changes = Changes(puts={"hosts": hosts})
    bench.kernel.write(changes)
    seconds = time.perf_counter() - began
    member_count = 300 if large else 30
    held = diff(program, replace(program, sets={name: grown})).target
    began = time.perf_counter()
    for number in range(member_count):
        more = replace(
            held, sets={name: replace(held.sets[name], members=held.sets[name].members.changed(added=[member(1 << 21 | number)]))}
        )
        bench.follow(diff(held, more))
        held = more
    singly = time.perf_counter() - began
    recorder.rows.append(
        {"size": "1 policy", "step": "changes a second, one address each", "cpu_seconds": singly, "count": int(member_count / singly)}
    )
    recorder.rows.append({"size": "1 policy", "step": "entries written a second", "cpu_seconds": seconds, "count": int(count / seconds)})


START = """
import sys, time, os
from polyplane_ebpf.kernel import Kernel
from polyplane_ebpf.options import EbpfOptions
kernel = Kernel(EbpfOptions.parse({"bytecode": sys.argv[1], "state": sys.argv[2], "max_rows": 4096, "max_connections": 4096}))
kernel.create(); kernel.load()
peak = next(line for line in open('/proc/self/status') if line.startswith('VmHWM'))
used = os.times()
print(sum(used[:4]), int(peak.split()[1]) // 1024)
"""


@pytest.mark.parametrize(
    "how", ["prebuilt", *(pytest.param(how, marks=pytest.mark.needs("bcc")) for how in ("compile", "compile, cached"))]
)
def test_starting(recorder: Any, tmp_path_factory: pytest.TempPathFactory, how: str) -> None:
    state = tmp_path_factory.getbasetemp() / "ebpf-bytecode"
    choice = how.partition(",")[0]
    done = subprocess.run([sys.executable, "-c", START, choice, str(state)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    seconds, megabytes = done.stdout.split()
    recorder.rows.append(
        {"size": "one process", "step": f"start, bytecode {how}; peak MB", "cpu_seconds": float(seconds), "count": int(megabytes)}
    )


RESTART = """
import sys, time
began, work = time.perf_counter(), time.process_time()
from polyplane.ir.text import parse_program
from polyplane.ir.program import EMPTY
from polyplane.reconcile.diff import diff
from polyplane_ebpf.backend import EbpfBackend
program = parse_program(open(sys.argv[2]).read())
read, cpu = time.perf_counter(), time.process_time()
result = EbpfBackend({"netns": sys.argv[1]}).polyplane_apply(diff(EMPTY, program))
peak = next(line for line in open('/proc/self/status') if line.startswith('VmHWM'))
print(result.operations, read - began, time.perf_counter() - read, time.process_time() - cpu, int(peak.split()[1]) // 1024)
"""


@pytest.mark.parametrize(("policies", "addresses"), [(1, 10), (1000, 10_000)])
def test_starting_over_what_is_pinned(recorder: Any, tmp_path: Path, policies: int, addresses: int) -> None:
    """A restart compiles, loads and attaches nothing: it reads back and compares."""
    name = f"{new_prefix()}bench"
    subprocess.run(["ip", "netns", "add", name], check=True)
    backend = EbpfBackend({"netns": f"/run/netns/{name}"})
    try:
        program = with_policies(policies, addresses)
        backend.polyplane_apply(diff(EMPTY, program))
        text = tmp_path / "program"
        text.write_text(print_program(program))
        done = subprocess.run([sys.executable, "-c", RESTART, f"/run/netns/{name}", str(text)], capture_output=True, text=True, check=True)
        operations, _, _, cpu, megabytes = done.stdout.split()
        assert int(operations) == 0
        size = f"{policies} policies, {addresses} addresses"
        recorder.rows.append({"size": size, "step": "restart over pins; peak MB", "cpu_seconds": float(cpu), "count": int(megabytes)})
    finally:
        backend.polyplane_teardown()
        subprocess.run(["ip", "netns", "del", name], check=True)
