"""What the Open vSwitch backend costs to load, to change and to read back. Only with ``--benchmarks``.

Wall times, because the work is done by the switch, and beside them what agent, its tools and the switch spent of the processor: on
a machine with other work that says more. The sandbox's switch forwards in userspace.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from backend_programs import IN, address_set, endpoint, isolated, policy, rule
from backend_programs import program as program_of

from polyplane.ir.cidr import Cidr
from polyplane.ir.delta import Delta
from polyplane.ir.program import EMPTY, EndpointId, PortRange, Program, SetId
from polyplane.plugins import Dataplane
from polyplane.reconcile.diff import diff
from polyplane_bench.traffic import cpu_of, pid_in
from polyplane_conformance.sandbox import Sandbox, Topology, Wiring
from polyplane_ovs.backend import OvsBackend

pytestmark = [pytest.mark.netns, pytest.mark.needs("--benchmarks", "ovs-vswitchd")]


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox.build(Topology.grid(namespaces="x", names="ab", families=(4,)), Wiring.BRIDGE) as made:
        yield made


def enforced(sandbox: Sandbox, sets: list[list[str]]) -> Program:
    """Pod x/a admits the members of each set on a port of its own, and x/b on 80 last of all."""
    pods = {pod.id: pod for pod in sandbox.topology.pods}
    groups = [address_set(f"s{at}", *members) for at, members in enumerate([*sets, pods["x/b"].addresses])]
    ports = [PortRange(1000 + at % 60000, 1000 + at % 60000) for at in range(len(sets))] + [PortRange(80, 80)]
    policies = [
        policy(IN, rule(f"{each.id}-{protocol}", IN, 0, sets=(each.id,), protocol=protocol, ports=(port,)))
        for each, port in zip(groups, ports, strict=True)
        for protocol in (6, 17)
    ]
    endpoints = [
        replace(
            endpoint(pod.name, pod.host_interface, *pod.addresses, ingress=isolated(IN, *policies) if pod.name == "a" else ()),
            id=EndpointId(pod.id),
        )
        for pod in pods.values()
    ]
    return program_of(*endpoints, *policies, *groups)


Note = Callable[[str, float, int | None], None]


def timed(note: Note, what: str, sandbox: Sandbox, work: Callable[[], int]) -> int:
    """Note what some work takes, by the wall clock and of the processor; return how many operations it was."""
    switch = pid_in(sandbox.switches["node-1"].directory / "ovs-vswitchd.pid")
    began, before = time.perf_counter(), (own_cpu(), cpu_of(switch))
    operations = work()
    took, after = time.perf_counter() - began, (own_cpu(), cpu_of(switch))
    note(what, took, operations)
    note(f"{what}: CPU of the agent", after[0] - before[0], None)
    note(f"{what}: CPU of the switch", after[1] - before[1], None)
    return operations


def applied(backend: OvsBackend, delta: Delta) -> Callable[[], int]:
    return lambda: Dataplane("ovs", backend).apply(delta).operations


def own_cpu() -> float:
    """CPU seconds of this process and the tools that it has run."""
    return sum(used.ru_utime + used.ru_stime for used in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))


def addresses(first: int, count: int) -> list[str]:
    return [f"100.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}" for number in range(first, first + count)]


def more(program: Program, added: list[str]) -> Program:
    first = program.sets[SetId("s0")]
    return replace(program, sets={**program.sets, first.id: replace(first, members=first.members.changed(added=map(Cidr.parse, added)))})


@pytest.mark.parametrize("count", [1000, 10_000, 100_000])
def test_loading(sandbox: Sandbox, recorder: object, count: int) -> None:
    """A set of so many addresses: each is a flow."""
    program = enforced(sandbox, [addresses(0, count)])
    backend = OvsBackend(sandbox.backend_options())
    note = noter(recorder, f"{count} flows")
    assert timed(note, "load", sandbox, applied(backend, diff(EMPTY, program))) > count
    backend = OvsBackend(sandbox.backend_options())
    assert timed(note, "start again, nothing to do", sandbox, applied(backend, diff(EMPTY, program))) == 0
    for batch in range(3):
        grown = more(program, addresses(1 << 20 | batch << 8, 10))
        assert timed(note, "10 addresses more", sandbox, applied(backend, diff(program, grown))) == 10
        program = grown
    assert timed(note, "audit", sandbox, lambda: len(Dataplane("ovs", backend).audit(program))) == 0
    backend.polyplane_teardown()


def noter(recorder: object, size: str) -> Note:
    def note(what: str, seconds: float, count: int | None) -> None:
        recorder.rows.append({"size": size, "step": f"ovs: {what}", "cpu_seconds": round(seconds, 8), "count": count})  # type: ignore[attr-defined]

    return note
