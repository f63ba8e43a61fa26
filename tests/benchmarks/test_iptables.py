"""What iptables costs: loading, one pod more, and a packet's way through the dispatch. Counts and the ratio are asserted.

A packet's cost is the time of ``send`` in a pod: veth hands it on in the sender's own context, through the node's rules up to the
receiver's socket. Layouts take turns, so that a noisy machine disturbs all alike; the quickest of many short rounds counts.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from backend_programs import IN, OUT, endpoint, isolated, policy, program, rule

from polyplane.backend_kit.namespaces import in_namespace
from polyplane.ir.cidr import Cidr
from polyplane.ir.members import Members
from polyplane.ir.program import EMPTY, AddressSet, Endpoint, Policy, PortRange, Program, SetId, digest
from polyplane.reconcile.diff import diff
from polyplane_conformance.sandbox.namespaces import new_prefix
from polyplane_iptables.backend import IptablesBackend

pytestmark = [pytest.mark.netns, pytest.mark.needs("ipset")]

VARIANTS = ("nft", "legacy")
CLIENT, SERVER = "10.9.0.2", "10.9.1.2"


@pytest.fixture
def node() -> Iterator[str]:
    """A node with a client's and a server's namespace, routed; the interfaces are named like pods'."""
    prefix = new_prefix()
    node, client, server = (f"{prefix}{what}" for what in ("node", "client", "server"))
    for name in (node, client, server):
        subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        for name, interface, gateway, address in ((client, "cali0ff", "10.9.0.1", CLIENT), (server, "cali1ff", "10.9.1.1", SERVER)):
            commands = (
                f"-n {node} link add {interface} type veth peer name eth0 netns {name}",
                f"-n {node} addr add {gateway}/24 dev {interface}",
                f"-n {node} link set {interface} up",
                f"-n {name} addr add {address}/24 dev eth0",
                f"-n {name} link set eth0 up",
                f"-n {name} route add default via {gateway}",
            )
            for command in commands:
                subprocess.run(["ip", *command.split()], check=True)
        in_namespace(f"/run/netns/{node}", lambda: Path("/proc/sys/net/ipv4/ip_forward").write_text("1"))
        yield node
    finally:
        for name in (node, client, server):
            subprocess.run(["ip", "netns", "del", name], check=True)


def backend(node: str, variant: str, tmp_path: Path) -> IptablesBackend:
    return IptablesBackend({"netns": f"/run/netns/{node}", "variant": variant, "lock_file": str(tmp_path / "lock")})


def peers(name: str, *members: str) -> AddressSet:
    return AddressSet(id=SetId(digest("bench", name)), label=name, members=Members(map(Cidr.parse, members)))


def busy_node(pods: int) -> Program:
    """So many pods with policies of their own both ways; the client and the server are the last in their branches."""
    known = peers("all", *(f"10.8.{at >> 8}.{at & 255}" for at in range(1000)), CLIENT, SERVER)
    parts: list[Endpoint | Policy | AddressSet] = [known]
    names = [f"cali{at:03x}" for at in range(pods - 2)]
    for at, name in enumerate([*names, "cali0ff", "cali1ff"]):
        inward = policy(IN, rule(f"in-{name}", IN, 0, sets=(known.id,), protocol=17, ports=(PortRange(5000 + at, 6000),)))
        outward = policy(OUT, rule(f"out-{name}", OUT, 0, sets=(known.id,), protocol=17, ports=(PortRange(5000 + at, 6000),)))
        address = {"cali0ff": CLIENT, "cali1ff": SERVER}.get(name, f"10.8.{at >> 8}.{at & 255}")
        parts += [inward, outward]
        parts.append(endpoint(name, name, address, ingress=isolated(IN, inward), egress=isolated(OUT, outward)))
    return program(*parts)


@contextlib.contextmanager
def sender(node: str) -> Iterator[Callable[[int], float]]:
    """Give what sends datagrams from the client to the server and says how many seconds one took."""
    prefix = node.removesuffix("node")

    def udp() -> socket.socket:
        return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    server = in_namespace(f"/run/netns/{prefix}server", udp)
    server.bind((SERVER, 5999))
    client = in_namespace(f"/run/netns/{prefix}client", udp)
    client.connect((SERVER, 5999))

    def send(number: int) -> float:
        began = time.perf_counter()
        for _ in range(number):
            client.send(b"x" * 18)
        seconds = (time.perf_counter() - began) / number
        server.settimeout(0)
        received = 0
        try:
            while True:
                server.recv(64)
                received += 1
        except BlockingIOError:
            assert received, "nothing arrives"
        return seconds

    with client, server:
        yield send


def linear(pods: Sequence[str]) -> str:
    """The simplest layout there is: a chain a policy, and a rule a pod that leads to it."""
    lines = ["*filter"]
    lines += [f":{way}-{name} - [0:0]" for way in ("in", "out") for name in pods]
    for way, option in (("out", "-i"), ("in", "-o")):
        lines += [f"-A {way}-{name} -p udp --dport 5000:6000 -m set --match-set bench src -j RETURN" for name in pods]
        lines += [f"-A {way}-{name} -j DROP" for name in pods]
        lines += [f"-A FORWARD {option} {name} -j {way}-{name}" for name in pods]
    return "\n".join([*lines, "COMMIT", ""])


def enter(node: str, *command: str, text: str = "") -> None:
    subprocess.run(["ip", "netns", "exec", node, *command], input=text, text=True, check=True, capture_output=True)


@pytest.mark.needs("--benchmarks")
def test_dispatch_does_not_grow_with_pods(node: str, tmp_path: Path, recorder: Any) -> None:
    """With 250 pods a packet costs at most 1.2 times what it costs with 10, in both variants."""
    with sender(node) as send:
        _compare_layouts(node, tmp_path, recorder, send)


def _compare_layouts(node: str, tmp_path: Path, recorder: Any, send: Callable[[int], float]) -> None:
    programs = {pods: busy_node(pods) for pods in (10, 250)}
    names = [one.interface or "" for one in programs[250].endpoints.values()]
    best: dict[str, float] = {}
    repetitions, rounds = 6, 150

    def measure(layout: str) -> None:
        quickest = min(send(200) for _ in range(rounds))
        best[layout] = min(best.get(layout, quickest), quickest)

    for _ in range(repetitions):
        measure("none")
        for variant in VARIANTS:
            for pods, wanted in programs.items():
                one = backend(node, variant, tmp_path)
                one.polyplane_apply(diff(EMPTY, wanted))
                measure(f"{variant}, {pods} pods")
                one.polyplane_teardown()
            enter(node, "ipset", "restore", text=f"create bench hash:net\nadd bench {CLIENT}\n")
            enter(node, f"iptables-{variant}-restore", "--noflush", "-w", "5", text=linear(names))
            measure(f"{variant}, 250 pods, one chain a policy")
            enter(node, f"iptables-{variant}", "-w", "5", "-F")
            enter(node, f"iptables-{variant}", "-w", "5", "-X")
            time.sleep(0.2)
            enter(node, "ipset", "destroy", "bench")
    for layout, seconds in best.items():
        recorder.rows.append({"size": layout, "step": "1000 packets", "cpu_seconds": round(seconds * 1000, 6), "count": None})
    for variant in VARIANTS:
        assert best[f"{variant}, 250 pods"] <= 1.2 * best[f"{variant}, 10 pods"], best


def rules_of(number: int) -> Program:
    """50 pods that share so many rules, 20 a policy, each rule with its own port and one of 50 sets."""
    sets = [peers(f"peers-{at}", *(f"10.{at}.0.{host}" for host in range(1, 11))) for at in range(50)]
    parts: list[Endpoint | Policy | AddressSet] = [*sets]
    for pod in range(50):
        rules = [
            rule(f"p{pod}", IN, at, sets=(sets[(pod + at) % 50].id,), protocol=6, ports=(PortRange(1 + at, 1 + at),))
            for at in range(number // 50)
        ]
        one = policy(IN, *rules)
        parts += [one, endpoint(f"p{pod}", f"cali{pod:03x}", f"10.200.0.{pod + 1}", ingress=isolated(IN, one))]
    return program(*parts)


@pytest.mark.parametrize("variant", VARIANTS)
def test_full_load(node: str, variant: str, tmp_path: Path, recorder: Any, *, large: bool) -> None:
    """Load everything, read it back in vain, change one policy."""
    for number in (1_000, 10_000) if large else (1_000,):
        size, wanted = f"{variant}, {number} rules", rules_of(number)
        _clock(
            recorder, size, "full load", lambda one=wanted: backend(node, variant, tmp_path).polyplane_apply(diff(EMPTY, one)).operations
        )
        again = _clock(
            recorder, size, "restart", lambda one=wanted: backend(node, variant, tmp_path).polyplane_apply(diff(EMPTY, one)).operations
        )
        assert again == 0
        _clock(recorder, size, "teardown", lambda: backend(node, variant, tmp_path).polyplane_teardown().operations)


@pytest.mark.parametrize("variant", VARIANTS)
def test_one_pod_more(node: str, variant: str, tmp_path: Path, recorder: Any, *, large: bool) -> None:
    """A peer joins the one set that so many policies share: one element, whatever their number."""
    for number in (100, 10_000) if large else (100, 1_000):
        known = peers("peers", "10.1.0.1")
        policies = [
            policy(IN, rule(f"p{at}", IN, 0, sets=(known.id,), protocol=6, ports=(PortRange(1 + at, 1 + at),))) for at in range(number)
        ]
        pods = [endpoint(f"pod{at}", f"cali{at:03x}", f"10.200.0.{at + 1}", ingress=isolated(IN, *policies[at::10])) for at in range(10)]
        before = program(known, *policies, *pods)
        after = program(peers("peers", "10.1.0.1", "10.1.0.2"), *policies, *pods)
        one, size = backend(node, variant, tmp_path), f"{variant}, {number} policies"
        one.polyplane_apply(diff(EMPTY, before))
        assert (
            _clock(recorder, size, "one pod more", lambda made=one, now=after, old=before: made.polyplane_apply(diff(old, now)).operations)
            == 1
        )
        # A pod with policies of its own, like those of another.
        more = program(known, *policies, *pods, endpoint("more", "cali00a", "10.200.0.99", ingress=pods[0].ingress))
        one.polyplane_apply(diff(after, before))
        operations = _clock(
            recorder,
            size,
            "one pod more with policy",
            lambda made=one, now=more, old=before: made.polyplane_apply(diff(old, now)).operations,
        )
        assert operations <= 24
        one.polyplane_teardown()


def _clock(recorder: Any, size: str, step: str, work: Callable[[], int]) -> int:
    """Note wall time: most of it is spent in other processes."""
    began = time.perf_counter()
    count = work()
    recorder.rows.append({"size": size, "step": step, "cpu_seconds": round(time.perf_counter() - began, 6), "count": count})
    return count
