"""What many policies for cluster administrators cost a packet: the same, however many there are.

What a packet meets is counted on paper, in the simulators that the backends' own tests compare with `evaluate`: rules, flows. The
programs of eBPF have no such count; their instructions are the same whatever the maps hold, and their time says the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cache
from typing import Any

import ipt_simulator
import nft_simulator
import ovs_simulator
import pytest
from ebpf_bench import ACK, Bench, frame_of
from test_operations import NODE, PODS_PER_NODE, pod, put

from polyplane import plugins
from polyplane.cluster.model import PutObject
from polyplane.cluster.store import Store
from polyplane.compile.incremental import Compiler
from polyplane.ir.cidr import Cidr
from polyplane.ir.evaluate import Packet, Verdict, evaluate
from polyplane.ir.members import Members
from polyplane.ir.program import EMPTY, Endpoint, EndpointId, Program
from polyplane.reconcile.diff import diff
from polyplane_bench.packets import CLIENT, SERVER, plane, wired
from polyplane_bench.page_packets import FLAT
from polyplane_bench.traffic import KINDS, Wire
from polyplane_iptables.layout import Layout as IptablesLayout
from polyplane_nftables.layout import Layout as NftablesLayout
from polyplane_ovs.layout import Layout as OvsLayout
from polyplane_ovs.options import OvsOptions
from polyplane_ovs.ports import Ports

API_VERSION = "policy.networking.k8s.io/v1alpha2"

# --- what a packet meets ---------------------------------------------------------------------------------------------------

#: Policies for the pods of the node. What decides a packet is the last of them, or none at all.
SIZES = [1, 10, 100, 1000]
FIRST_PEER = 100 * PODS_PER_NODE


def judging(number: int, subject: Any) -> PutObject:
    """The number-th policy: its own peer is passed on one port, and denied on the next."""
    peer = {"pods": {"podSelector": {"matchLabels": {"app": f"peer-{number}"}}}}
    tier, priority = ("Admin", "Baseline")[number % 2], number // 2
    rules = [
        {"action": action, "from": [peer], "protocols": [{"tcp": {"destinationPort": {"number": port}}}]}
        for action, port in (("Pass", 8000), ("Deny", 8001))
    ]
    spec = {"tier": tier, "priority": priority, "subject": subject, "ingress": rules}
    return put(API_VERSION, "ClusterNetworkPolicy", "", f"judge-{number}", {"spec": spec})


@cache
def judged(policies: int, *, of_others: bool = False) -> Program:
    """Return the program of a node with so many policies, each with a peer of its own; ``of_others``: all about another pod."""
    subject = {"pods": {"podSelector": {"matchLabels": {"number": "8"}}}} if of_others else {"namespaces": {}}
    store, compiler = Store(plugins.dialects()), Compiler(node=NODE)
    events = [pod(number) for number in range(PODS_PER_NODE)]
    events += [pod(FIRST_PEER + number, app=f"peer-{number}") for number in range(policies)]
    events += [judging(number, subject) for number in range(policies)]
    program = compiler.update([change for event in events for change in store.apply(event)])
    assert not store.problems
    endpoints = {key: replace(endpoint, interface=f"veth{at}") for at, (key, endpoint) in enumerate(program.endpoints.items())}
    return replace(program, endpoints=endpoints)


def packets(policies: int) -> Iterator[tuple[Packet, bool]]:
    """Yield what the last policy passes, what it denies, and what no policy speaks of, each with whether it passes."""
    (last,) = (pod(FIRST_PEER + policies - 1).raw["status"]["podIPs"][0]["ip"],)
    for source, port, passes in ((last, 8000, True), (last, 8001, False), (last, 8002, True), ("192.0.2.1", 8001, True)):
        yield Packet(source=Cidr.parse(source), destination=Cidr.parse("10.0.0.7"), protocol=6, source_port=4000, port=port), passes


class Counting(nft_simulator.Simulator):
    met = 0

    def rule(self, chain: str, text: str) -> str | None:
        self.met += 1
        return super().rule(chain, text)


class CountingIptables(ipt_simulator.Simulator):
    met = 0

    def rule(self, text: str) -> tuple[bool, str, bool]:
        self.met += 1
        return super().rule(text)


class CountingSwitch(ovs_simulator.Switch):
    met = 0

    def _step(self, *args: Any) -> int | None:
        self.met += 1
        return super()._step(*args)


def nftables(program: Program) -> Callable[[Packet], tuple[bool, int]]:
    simulator = Counting(NftablesLayout.of(program).native)

    def meets(packet: Packet) -> tuple[bool, int]:
        simulator.met = 0
        return simulator.forward(packet, "uplink", interface(program)).allowed, simulator.met

    return meets


def iptables(program: Program) -> Callable[[Packet], tuple[bool, int]]:
    simulator = CountingIptables(IptablesLayout.of(program).native({}))

    def meets(packet: Packet) -> tuple[bool, int]:
        simulator.met = 0
        return simulator.forward(packet, "uplink", interface(program)).allowed, simulator.met

    return meets


def ovs(program: Program) -> Callable[[Packet], tuple[bool, int]]:
    options = OvsOptions()
    switch = CountingSwitch(OvsLayout.of(program, Ports.on_paper(program, options), options).book.flows)

    def meets(packet: Packet) -> tuple[bool, int]:
        switch.met = 0
        return switch.forward(packet).allowed, switch.met

    return meets


def interface(program: Program) -> str:
    return program.endpoints[EndpointId("ns-0/pod-7")].interface or ""


def counts(meets: Callable[[Packet], tuple[bool, int]], program: Program, policies: int) -> list[int]:
    """Return what each of the packets meets, having seen that it ends as it should."""
    found = []
    for packet, passes in packets(policies):
        assert (evaluate(program, packet).verdict is Verdict.ALLOW) is passes
        allowed, met = meets(packet)
        assert allowed is passes
        found.append(met)
    return found


@pytest.mark.parametrize("backend", [nftables, ovs])
def test_a_packet_meets_no_more_rules_where_there_are_more_policies(backend: Any, recorder: Any) -> None:
    met = []
    for policies in SIZES:
        program = judged(policies)
        met.append(counts(backend(program), program, policies))
        note(recorder, policies, f"{backend.__name__}: rules met", 0, max(met[-1]))
    assert all(some == met[0] for some in met[1:]), met


def test_iptables_meets_its_own_pods_rules_and_no_others(recorder: Any) -> None:
    met, others = [], []
    for policies in SIZES:
        program = judged(policies)
        met.append(max(counts(iptables(program), program, policies)))
        note(recorder, policies, "iptables: rules met", 0, met[-1])
        meets = iptables(judged(policies, of_others=True))
        others.append([meets(packet)[1] for packet, _ in packets(policies)])
    # Two rules of each policy that selects the pod.
    assert all(some - met[0] <= 2 * policies for some, policies in zip(met, SIZES, strict=True)), met
    assert all(some == others[0] for some in others), others


# --- what a packet costs ---------------------------------------------------------------------------------------------------

#: The first packet of a connection may cost this much more among the most policies than with one; later ones no more than `FLAT`.
NEARLY_FLAT = 1.4


@pytest.mark.needs("root")
def test_a_packet_takes_the_same_time_in_ebpf(recorder: Any) -> None:
    cost: dict[str, list[int]] = {"new connection": [], "established": []}
    with Bench(max_rows=1 << 18, max_hosts=1 << 18) as bench:
        for policies in SIZES:
            bench.bring(judged(policies))
            for packet, passes in packets(policies):
                assert bench.passes(packet) is passes
            last, _ = next(packets(policies))
            bench.forget()
            assert bench.ask(frame_of(last))
            for what, flags in (("new connection", 2), ("established", ACK)):
                frame = frame_of(last, flags=flags)
                cost[what].append(min(bench.nanoseconds(frame, 5000) for _ in range(25)))
                nanoseconds = cost[what][-1]
                note(recorder, policies, f"ebpf: packet, ns: {what}", nanoseconds / 1e9, nanoseconds)
    assert cost["established"][-1] <= cost["established"][0] * FLAT, cost
    assert cost["new connection"][-1] <= cost["new connection"][0] * NEARLY_FLAT, cost


def on_wire(policies: int, *, of_others: bool) -> Program:
    """Return the program of two pods that are really there: the server has the policies, the client is the peer of the last."""
    base = judged(policies)
    server, client = (
        Endpoint(id=EndpointId(spec.id), interface=spec.host_interface, addresses=(Cidr.parse(spec.addresses[0]),))
        for spec in (SERVER, CLIENT)
    )
    stack = base.endpoints[EndpointId("ns-0/pod-7")].ingress
    last, _ = next(packets(policies))
    other = replace(server, id=EndpointId("bench/other"), interface="elsewhere", addresses=(Cidr.parse("10.65.1.3"),), ingress=stack)
    endpoints = [client, *([server, other] if of_others else [replace(server, ingress=stack)])]
    sets = {
        key: replace(some, members=Members([*client.addresses, *some.members])) if last.source in some.members else some
        for key, some in base.sets.items()
    }
    made = Program(endpoints={one.id: one for one in endpoints}, policies=base.policies, sets=sets)
    made.check()
    return made


@contextmanager
def enforced(backend: str, wanted: Program) -> Iterator[Wire]:
    with plane(backend) as (sandbox, made):
        made.apply(diff(EMPTY, wanted))
        with wired(sandbox) as wire:
            yield wire


@pytest.mark.netns
@pytest.mark.needs("--benchmarks")
@pytest.mark.parametrize("backend", ["nftables", "ebpf", "ovs", "iptables-nft", "iptables-legacy"])
def test_traffic_costs_the_same(backend: str, recorder: Any) -> None:
    """Datagrams and new connections among 1 and 1,000 policies; for iptables those of another pod."""
    of_others = backend.startswith("iptables")
    kinds = ("UDP", "TCP_CRR")
    best: dict[tuple[int, str], float] = {}
    with ExitStack() as stack:
        sizes = (SIZES[0], SIZES[-1])
        wires = [stack.enter_context(enforced(backend, on_wire(policies, of_others=of_others))) for policies in sizes]
        for _ in range(30):
            for policies, wire in zip(sizes, wires, strict=True):
                for kind in kinds:
                    found = KINDS[kind](wire, 0.02)
                    # a switch that waits for the processor may let nothing through in so short a time
                    if found.units:
                        best[policies, kind] = min(best.get((policies, kind), 1.0), found.cpu / found.units)
    assert len(best) == len(sizes) * len(kinds), best
    for (policies, kind), seconds in best.items():
        note(recorder, policies, f"{backend}: {kind}, CPU ns", seconds, round(seconds * 1e9))
    for kind in kinds:
        assert best[sizes[1], kind] <= best[sizes[0], kind] * NEARLY_FLAT, best


def note(recorder: Any, policies: int, step: str, seconds: float, count: int) -> None:
    recorder.rows.append({"size": f"{policies} tiered policies", "step": step, "cpu_seconds": seconds, "count": count})
