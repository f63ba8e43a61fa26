"""Section packets: what a packet costs in each dataplane and in what one could have instead, by what there is to enforce.

Every variant has a small node of its own (network namespaces, loaded once), all at the same time; rounds visit them in a new
order each, so that whatever else the machine does disturbs all alike.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from typing import Final

from polyplane.ir.program import EMPTY
from polyplane.plugins import Dataplane, load_backend
from polyplane.reconcile.diff import diff
from polyplane_bench import layouts
from polyplane_bench.figures import Figure, Samples
from polyplane_bench.programs import Load, Pod, program
from polyplane_bench.settings import Settings, Size
from polyplane_bench.traffic import KINDS, Round, Wire, cpu_of, pid_in
from polyplane_conformance.sandbox import NodeSpec, PodSpec, Sandbox, Topology, Wiring

CLIENT: Final = PodSpec(namespace="bench", name="client", addresses=("10.65.1.1",), labels={"bench/pod": "client"}, ports=())
SERVER: Final = PodSpec(namespace="bench", name="server", addresses=("10.65.1.2",), labels={"bench/pod": "server"}, ports=())
TOPOLOGY: Final = Topology(pods=(CLIENT, SERVER), nodes=(NodeSpec(name="node-1", addresses=("172.31.250.1",)),), hosts=())


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """Something to measure: a layout or a backend (``lay`` None) under a load; ``wiring`` decides what it is compared with."""

    layout: str
    load: Load
    wiring: Wiring = Wiring.ROUTED
    lay: layouts.Lay | None = None

    def case(self) -> dict[str, str | int]:
        """Return the case of its figures."""
        load = self.load
        return {
            "layout": self.layout,
            "wiring": str(self.wiring),
            "policies": load.policies,
            "endpoints": load.endpoints,
            "addresses": load.addresses,
            "placed": "spread" if load.spread else "one pod",
        }


def variants(settings: Settings) -> list[Variant]:
    """Return what to measure."""
    full = settings.size is Size.FULL
    found = [Variant(layout="none", load=Load(), lay=layouts.nothing)]
    loads = [Load(policies=0), Load(policies=1), Load(policies=1, endpoints=250), Load(policies=1000, endpoints=250)]
    loads += [Load(policies=1000, endpoints=10, spread=False)]
    if full:
        loads += [Load(policies=10_000, endpoints=250), Load(policies=1, addresses=100_000)]
    for backend in settings.backends:
        found += [Variant(layout=backend, load=load, wiring=wiring_of(backend)) for load in loads]
    # What stands beside the backends has no rules for pods that no policy selects.
    loads = [load for load in loads if load.policies > 1 or (load.policies and load.endpoints == Load().endpoints)]
    if "ovs" in settings.backends:
        found.append(Variant(layout="none", load=Load(), wiring=Wiring.BRIDGE, lay=layouts.nothing))
        found += [Variant(layout="conjunctive flows", load=load, wiring=Wiring.BRIDGE, lay=layouts.conjunctive) for load in loads]
    for variant in ("legacy", "nft"):
        if f"iptables-{variant}" not in settings.backends:
            continue
        for name, lay in (("linear chains", layouts.linear(variant)), ("ipsets and chains", layouts.ipset_chains(variant))):
            found += [Variant(layout=f"{name}, {variant}", load=load, lay=lay) for load in loads]
        by_mark = (Load(policies=1), Load(policies=1000, endpoints=10, spread=False))
        found += [Variant(layout=f"iptables-{variant}{layouts.BY_MARK}", load=load) for load in by_mark]
    if "iptables-legacy" in settings.backends:
        found.append(Variant(layout="queue to a program", load=Load(policies=1), lay=layouts.queue))
    return found


def wiring_of(backend: str) -> Wiring:
    """Return how pods are attached to what a backend programs."""
    return Wiring.BRIDGE if backend == "ovs" else Wiring.ROUTED


def ends() -> tuple[Pod, Pod]:
    """Return client and server as the node sees them."""
    client, server = (Pod(id=spec.id, interface=spec.host_interface, address=spec.addresses[0]) for spec in (CLIENT, SERVER))
    return client, server


@contextmanager
def plane(backend: str) -> Iterator[tuple[Sandbox, Dataplane]]:
    """Build a node for a backend; yield both. What the backend has made there is removed at the end."""
    with ExitStack() as stack:
        sandbox = stack.enter_context(Sandbox.build(TOPOLOGY, wiring_of(backend)))
        stack.callback(layouts.tidy, sandbox)
        made = load_backend(*layouts.own(sandbox, backend))
        stack.callback(made.teardown)
        yield sandbox, made


@contextmanager
def wired(sandbox: Sandbox, others: Collection[int] = ()) -> Iterator[Wire]:
    """Connect a node's pods; ``others`` are processes that handle packets besides the kernel and the node's switch."""
    wire = Wire.open(sandbox.netns(CLIENT.id), sandbox.netns(SERVER.id), SERVER.addresses[0], helpers=_helpers(sandbox, others))
    with closing(wire):
        yield wire


@contextmanager
def node(variant: Variant) -> Iterator[tuple[Wire, float]]:
    """Build the node of a variant, lay out its rules, connect its pods; yield the traffic and the seconds that loading took."""
    client, server = ends()
    with ExitStack() as stack:
        others: Collection[int] = ()
        if variant.lay is None:
            wanted = program(variant.load, client, server)
            sandbox, backend = stack.enter_context(plane(variant.layout))
            began = time.monotonic()
            backend.apply(diff(EMPTY, wanted))
        else:
            sandbox = stack.enter_context(Sandbox.build(TOPOLOGY, variant.wiring))
            stack.callback(layouts.tidy, sandbox)
            began = time.monotonic()
            others = variant.lay(sandbox, variant.load, client, server)
        seconds = time.monotonic() - began
        yield stack.enter_context(wired(sandbox, others)), seconds


def _helpers(sandbox: Sandbox, others: Collection[int]) -> Callable[[], float]:
    """Return what tells the CPU seconds of the processes that handle packets besides the kernel."""
    switches = [pid_in(switch.directory / "ovs-vswitchd.pid") for switch in sandbox.switches.values()]
    return lambda: sum(map(cpu_of, (*switches, *others)))


def measure(settings: Settings) -> tuple[Figure, ...]:
    """Load every variant, then measure round after round."""
    full = settings.size is Size.FULL
    rounds, seconds = (10, 0.06) if full else (5, 0.03)
    samples = Samples()
    with ExitStack() as stack:
        wires: list[tuple[Variant, Wire]] = []
        for variant in variants(settings):
            wire, seconds_to_load = stack.enter_context(node(variant))
            settings.say(f"packets: {variant.layout}, {variant.load.label}: loaded in {seconds_to_load:.2f} s")
            samples.add("load", "s", seconds_to_load, **variant.case())
            wires.append((variant, wire))
        chance = random.Random(1)  # noqa: S311 (no secret)
        for number in range(rounds):
            settings.say(f"packets: round {number + 1} of {rounds}")
            chance.shuffle(wires)
            for variant, wire in wires:
                for kind, traffic in KINDS.items():
                    _add(samples, variant, kind, traffic(wire, seconds))
    return samples.figures()


def _add(samples: Samples, variant: Variant, kind: str, found: Round) -> None:
    if not found.units:
        raise RuntimeError(f"packets: nothing arrives: {variant.layout}, {variant.load.label}, {kind}")
    scale, unit = (1e9, "ns") if kind == "UDP" else (1e6, "µs")
    if kind == "TCP_STREAM":
        samples.add(f"{kind}, CPU", "s/GiB", found.cpu / found.units * 2**30, **variant.case())
        samples.add(f"{kind}, rate", "Gbit/s", found.units * 8e-9 / found.wall, **variant.case())
        return
    samples.add(f"{kind}, CPU", unit, found.cpu / found.units * scale, **variant.case())
    samples.add(f"{kind}, rate", "/s", found.units / found.wall, **variant.case())
    if kind == "UDP":
        samples.add("UDP, lost", "", found.lost / (found.units + found.lost), **variant.case())
