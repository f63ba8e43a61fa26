"""What a packet costs in the eBPF programs, by the number of policies and addresses; what starting and changing cost.

Times come from BPF_PROG_TEST_RUN: the program alone, without the network stack around it. The best of several rounds counts, because
whoever shares the machine can only make it slower.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from ebpf_bench import ACK, Bench, frame_of

from polyplane.ir.cidr import Cidr
from polyplane.ir.evaluate import Packet
from polyplane.ir.members import Members
from polyplane.ir.program import (
    Action,
    AddressSet,
    Direction,
    Endpoint,
    EndpointId,
    Isolation,
    Match,
    Origin,
    PeerTerm,
    Policy,
    PolicyId,
    PortRange,
    Program,
    Rule,
    SetId,
    Tier,
    TierEnd,
    digest,
)
from polyplane.reconcile.diff import diff

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to load BPF programs")

SERVER = Cidr.parse("10.0.0.1")
#: A packet may cost this much more with everything than with one policy.
FLAT = 1.25
#: The first of a connection: tries get deeper, and leave the processor's caches. Measured: 1.18.
NEARLY_FLAT = 1.4
ROUNDS, REPEATS = 15, 20_000


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with Bench(max_rows=1 << 18, max_hosts=1 << 18) as made:
        yield made


def member(number: int) -> Cidr:
    return Cidr(4, (11 << 24) + number, 32)


def with_policies(policies: int, addresses: int) -> Program:
    """Return one isolated pod with so many policies, each admitting its share of the addresses to one port of its own."""
    where = Direction.INGRESS
    share = addresses // policies
    sets, made = {}, {}
    for number in range(policies):
        set_id = SetId(f"peers-{number}")
        sets[set_id] = AddressSet(id=set_id, label="peers", members=Members(member(number * share + at) for at in range(share)))
        origin = Origin(kind="Test", namespace="x", name=f"p{number}", direction=where, index=0)
        match = Match(protocol=6, ports=(PortRange(number % 50000 + 1, number % 50000 + 1),), peer=(PeerTerm((set_id,)),))
        rules = (Rule(id=number + 1, action=Action.ALLOW, match=match, origin=origin),)
        policy_id = PolicyId(digest(repr(rules)))
        made[policy_id] = Policy(id=policy_id, direction=where, rules=rules)
    isolation = Isolation(id=1 << 31, origins=(Origin(kind="Test", namespace="x", name="all", direction=where),))
    tier = Tier(name="t", policies=tuple(sorted(made)), end=TierEnd.DENY, isolation=isolation, exempts_self=True)
    endpoint = Endpoint(id=EndpointId("x/server"), interface=None, addresses=(SERVER,), ingress=(tier,))
    return Program(endpoints={endpoint.id: endpoint}, policies=made, sets=sets)


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
        assert cost["new connection"][-1] <= cost["new connection"][0] * NEARLY_FLAT


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
        stages = recorder.cpu(size, "one address more", lambda delta=delta: bench.follow(delta)) if number == 19 else bench.follow(delta)
        assert stages is None
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
    from polyplane_ebpf.changes import Changes

    changes = Changes(puts={"hosts": hosts})
    bench.kernel.write(changes)
    seconds = time.perf_counter() - began
    recorder.rows.append({"size": "1 policy", "step": "entries written a second", "cpu_seconds": seconds, "count": int(count / seconds)})


START = """
import sys, time
began = time.perf_counter()
from polyplane_ebpf.kernel import Kernel
from polyplane_ebpf.options import EbpfOptions
kernel = Kernel(EbpfOptions.parse({"bytecode": sys.argv[1], "state": sys.argv[2], "max_rows": 4096, "max_connections": 4096}))
kernel.create(); kernel.load()
peak = next(line for line in open('/proc/self/status') if line.startswith('VmHWM'))
print(time.perf_counter() - began, int(peak.split()[1]) // 1024)
"""


@pytest.mark.parametrize("how", ["prebuilt", "compile", "compile, cached"])
def test_starting(recorder: Any, tmp_path_factory: pytest.TempPathFactory, how: str) -> None:
    state = tmp_path_factory.getbasetemp() / "ebpf-bytecode"
    choice = how.partition(",")[0]
    done = subprocess.run([sys.executable, "-c", START, choice, str(state)], capture_output=True, text=True, check=False)
    if "bcc" in done.stderr:
        pytest.skip("no bcc here")
    assert done.returncode == 0, done.stderr
    seconds, megabytes = done.stdout.split()
    recorder.rows.append(
        {"size": "one process", "step": f"start, bytecode {how}; peak MB", "cpu_seconds": float(seconds), "count": int(megabytes)}
    )
