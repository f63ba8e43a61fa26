from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from polyplane_conformance.probe.model import Outcome, Probe, Traffic
from polyplane_conformance.probe.rounds import Settings
from polyplane_conformance.sandbox import Sandbox

pytestmark = pytest.mark.netns

#: Where no twin will ever answer, waiting long for one proves nothing.
HASTY = Settings(patience=1.0)
TCP80 = [Traffic.parse("tcp/80", family) for family in (4, 6)]


def deny(sandbox: Sandbox, *rules: str) -> None:
    sandbox.run("node-1", ["nft", "-f", "-"], text="".join(f"add rule inet guard deny {rule}\n" for rule in rules))


def test_without_policy_everybody_reaches_everything_and_the_right_one_answers(sandbox: Sandbox) -> None:
    matrix = sandbox.matrix()
    assert matrix.select(Outcome.ALLOWED) == matrix.cells
    assert len(matrix.cells) == 9 * 9 * (3 * 2 + 1) * 2
    for cell, result in matrix.cells.items():
        if cell.traffic.name != "icmp":
            assert result.answered_by == cell.destination


def test_nodes_and_the_outside_are_sources_and_destinations(sandbox: Sandbox) -> None:
    sources = ["node-1", "node-2", "outside"]
    inward = sandbox.matrix(sources=sources)
    outward = sandbox.matrix(destinations=["outside"])
    echo = sandbox.matrix([Traffic.parse("icmp"), Traffic.parse("icmp", 6)], destinations=sources)
    assert [str(matrix) for matrix in (inward, outward, echo)] == ["378 allowed", "126 allowed", "54 allowed"]


def test_drops_hit_the_denied_cells_and_no_others(sandbox: Sandbox) -> None:
    deny(
        sandbox,
        "ip saddr 10.65.1.1 ip daddr 10.65.2.2 tcp dport 80 drop",
        "ip6 saddr fd65::1:2 ip6 daddr fd65::3:3 udp dport 81 drop",
        "ip daddr 10.65.2.3 sctp dport 80 drop",
        "ip6 daddr fd65::1:3 meta l4proto icmpv6 icmpv6 type echo-request drop",
    )
    pods = [pod.id for pod in sandbox.topology.pods]
    expected = {("x/a", "y/b", Traffic.parse("tcp/80")), ("x/b", "z/c", Traffic.parse("udp/81", 6))}
    expected |= {(pod, "y/c", Traffic.parse("sctp/80")) for pod in pods if pod != "y/c"}
    expected |= {(pod, "x/c", Traffic.parse("icmp", 6)) for pod in pods if pod != "x/c"}

    matrix = sandbox.matrix()

    assert set(matrix.cells) - matrix.allowed == expected
    assert set(matrix.select(Outcome.DENIED)) == expected


def test_a_matrix_of_denials(sandbox: Sandbox, record_property: Callable[[str, object], None]) -> None:
    deny(sandbox, "drop")
    began = time.monotonic()
    matrix = sandbox.matrix([*TCP80, Traffic.parse("udp/80"), Traffic.parse("udp/80", 6)])
    took = time.monotonic() - began

    own = {(pod.id, pod.id) for pod in sandbox.topology.pods}
    behind = {("z/b", "z/c"), ("z/c", "z/b")}  # both on the second node: never pass the first
    assert {(cell.source, cell.destination) for cell in matrix.allowed} == own | behind
    assert not matrix.select(Outcome.BROKEN)
    record_property("seconds", round(took, 2))


@pytest.mark.parametrize(
    ("kind", "how", "said"),
    [
        ("tcp/80", "reject with tcp reset", "TCP reset"),
        ("tcp/81", "reject with icmpx admin-prohibited", "prohibited"),
        ("udp/80", "reject with icmpx admin-prohibited", "prohibited"),
        ("udp/81", "reject with icmpx port-unreachable", "port unreachable"),
        ("sctp/80", "reject with icmpx admin-prohibited", "prohibited"),
        ("icmp", "reject with icmpx admin-prohibited", "prohibited"),
    ],
)
@pytest.mark.parametrize("family", [4, 6])
def test_refusals_are_told_from_silence(sandbox: Sandbox, kind: str, how: str, said: str, family: int) -> None:
    protocol, _, port = kind.partition("/")
    which = f"{protocol} dport {port}" if port else f"meta l4proto icmp{'v6' if family == 6 else ''}"
    deny(sandbox, f"iifname pp-x_a meta nfproto ipv{family} {which} {how}")
    traffic = Traffic.parse(kind, family)

    refused, passed = sandbox.probe(Probe(source=source, destination="y/a", traffic=traffic) for source in ("x/a", "x/b"))

    assert passed.outcome is Outcome.ALLOWED
    assert refused.outcome is Outcome.REJECTED
    assert said in refused.detail


def test_many_refusals_at_once_all_arrive(sandbox: Sandbox) -> None:
    deny(sandbox, "iifname pp-x_* reject with icmpx admin-prohibited")
    matrix = sandbox.matrix(sources=["x/a", "x/b", "x/c"], destinations=["y/a", "y/b", "z/a"])
    assert set(matrix.select(Outcome.REJECTED)) == set(matrix.cells)


def test_a_closed_port_is_no_denial(sandbox: Sandbox) -> None:
    kinds = [Traffic.parse(kind, family) for kind in ("tcp/4444", "udp/4444", "sctp/4444", "ip-253") for family in (4, 6)]
    results = sandbox.probe((Probe(source="x/a", destination="y/a", traffic=kind) for kind in kinds), HASTY)
    assert {result.outcome for result in results} == {Outcome.BROKEN}


def test_a_dead_server_is_no_denial(sandbox: Sandbox) -> None:
    nobody = Probe(source="x/a", destination="y/a", traffic=TCP80[0], address="10.65.9.9")
    sandbox.run("outside", ["ip", "route", "add", "blackhole", "10.65.9.9/32"])
    (result,) = sandbox.probe([nobody], HASTY)
    assert result.outcome is Outcome.BROKEN


def test_a_silent_node_breaks_the_proof(sandbox: Sandbox) -> None:
    """When even the twin path is blocked, silence says nothing."""
    block = "table inet wall { chain out { type filter hook output priority 0; ip daddr 10.65.2.1 drop; }; chain through { type filter hook forward priority 0; ip daddr 10.65.2.1 drop; }; }"
    sandbox.run("node-1", ["nft", "-f", "-"], text=block)
    try:
        (result,) = sandbox.probe([Probe(source="x/a", destination="y/a", traffic=TCP80[0])], HASTY)
    finally:
        sandbox.run("node-1", ["nft", "delete", "table", "inet", "wall"])
    assert result.outcome is Outcome.BROKEN
    assert "node-1" in result.detail


def test_the_nodes_own_denials_are_proved_by_the_server_itself(sandbox: Sandbox) -> None:
    sandbox.run(
        "node-1", ["nft", "-f", "-"], text="table inet wall { chain out { type filter hook output priority 0; ip daddr 10.65.2.1 drop; }; }"
    )
    kinds = [Traffic.parse(kind) for kind in ("tcp/80", "udp/80", "sctp/80", "icmp")]
    try:
        results = sandbox.probe(Probe(source="node-1", destination="y/a", traffic=kind) for kind in kinds)
    finally:
        sandbox.run("node-1", ["nft", "delete", "table", "inet", "wall"])
    assert [result.outcome for result in results] == [Outcome.DENIED] * 4


def test_a_lossy_path_is_not_denied(sandbox: Sandbox) -> None:
    """The first packet of every flow is lost; retries and new dials get through."""
    sandbox.run("node-1", ["nft", "-f", "-"], text="add set inet guard seen { type ipv4_addr . inet_service; flags dynamic; timeout 1m; }")
    deny(
        sandbox,
        "ip daddr 10.65.2.1 tcp dport 80 add @seen { ip saddr . tcp dport limit rate over 1/second burst 1 packets } accept",
        "ip daddr 10.65.2.1 tcp dport 80 drop",
    )
    (result,) = sandbox.probe([Probe(source="x/a", destination="y/a", traffic=TCP80[0])])
    assert result.outcome is Outcome.ALLOWED
    assert result.packets > 1


@pytest.mark.parametrize("kind", ["udp/80", "icmp", "sctp/80"])
def test_no_question_belongs_to_an_earlier_conversation(sandbox: Sandbox, kind: str) -> None:
    """The guard lets pass what conntrack knows; so many questions would hit a known source port, were it left to chance."""
    probes = [Probe(source="x/a", destination="y/a", traffic=Traffic.parse(kind))] * 1500
    assert {result.outcome for result in sandbox.probe(probes)} == {Outcome.ALLOWED}
    deny(sandbox, "drop")
    assert {result.outcome for result in sandbox.probe(probes)} == {Outcome.DENIED}


def test_a_starved_prober_denies_nothing(sandbox: Sandbox) -> None:
    prober = sandbox._prober.pid
    expected = {Probe(source="x/a", destination="y/a", traffic=Traffic.parse(kind)): True for kind in ("tcp/80", "udp/80", "sctp/80")}
    with sandbox.barrage(expected, 100) as barrage, ThreadPoolExecutor(1) as thread:
        matrix = thread.submit(sandbox.matrix)
        for pause in (0.2, 0.2, 1.0):  # the last is longer than a barrage waits for an answer
            time.sleep(0.04)
            os.kill(prober, signal.SIGSTOP)
            time.sleep(pause)
            os.kill(prober, signal.SIGCONT)
        assert str(matrix.result()) == "1134 allowed"
    assert barrage.stop().clean


def test_conntrack_finds_no_fault_with_the_packets(sandbox: Sandbox) -> None:
    sandbox.run("node-1", ["nft", "insert", "rule", "inet", "guard", "forward", "ct", "state", "invalid", "drop"])
    matrix = sandbox.matrix()
    assert set(matrix.cells) == matrix.allowed


def test_source_ports_can_be_chosen(sandbox: Sandbox) -> None:
    deny(sandbox, "th sport 7777 drop")
    kinds = [Traffic.parse(kind, family) for kind in ("tcp/80", "udp/80", "sctp/80") for family in (4, 6)]
    for port, outcome in ((7777, Outcome.DENIED), (7778, Outcome.ALLOWED)):
        results = sandbox.probe(Probe(source="x/a", destination="y/a", traffic=kind, source_port=port) for kind in kinds)
        assert [result.outcome for result in results] == [outcome] * len(kinds)
