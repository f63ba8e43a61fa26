from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from polyplane_conformance.probe.model import Outcome, Probe, Traffic
from polyplane_conformance.sandbox import PodSpec, Sandbox, Service, Translator

pytestmark = pytest.mark.netns


def deny(sandbox: Sandbox, rule: str) -> None:
    sandbox.run("node-1", ["nft", "-f", "-"], text=f"add rule inet guard deny {rule}\n")


@contextmanager
def everything_blocked(sandbox: Sandbox) -> Iterator[None]:
    wall = "table inet wall { chain forward { type filter hook forward priority -10; drop; }; }"
    sandbox.run("node-1", ["nft", "-f", "-"], text=wall)
    try:
        yield
    finally:
        sandbox.run("node-1", ["nft", "delete", "table", "inet", "wall"])


@pytest.mark.parametrize("pushed", [False, True], ids=["echo", "pushed"])
@pytest.mark.parametrize("kind", ["tcp/80", "udp/80"])
@pytest.mark.parametrize("family", [4, 6])
def test_a_stream_flows_is_cut_and_resumes(sandbox: Sandbox, kind: str, family: int, *, pushed: bool) -> None:
    probe = Probe(source="x/a", destination="z/c", traffic=Traffic.parse(kind, family))
    with sandbox.stream(probe, interval=0.02, pushed=pushed) as stream:
        assert stream.flowing()
        assert stream.state().who == "z/c"
        with everything_blocked(sandbox):
            assert stream.silent(0.3)
            assert not stream.flowing(0.2)
        assert stream.flowing()
        assert not stream.silent(0.3, timeout=0.6)
        assert (stream.state().sent <= 5) is pushed


def test_a_reset_stream_says_so(sandbox: Sandbox) -> None:
    probe = Probe(source="x/a", destination="y/a", traffic=Traffic.parse("tcp/80"))
    with sandbox.stream(probe) as stream:
        assert stream.flowing()
        # before the fixture's "established" rule
        sandbox.run("node-1", ["nft", "insert", "rule", "inet", "guard", "forward", "iifname", "pp-x_a", "reject", "with", "tcp", "reset"])
        assert stream.silent(0.3)
        assert stream.state().error == "Connection reset by peer"


def test_a_barrage_over_quiet_policy_is_clean(sandbox: Sandbox) -> None:
    deny(sandbox, "iifname pp-x_b drop")
    kinds = [Traffic.parse(kind, family) for kind in ("tcp/80", "udp/81", "sctp/80", "icmp") for family in (4, 6)]
    expected = {Probe(source=source, destination="y/a", traffic=kind): source == "x/a" for source in ("x/a", "x/b") for kind in kinds}
    with sandbox.barrage(expected, 200) as barrage:
        time.sleep(0.6)
    report = barrage.stop()
    assert report.clean, report
    assert not report.broken
    assert 100 <= len(report.shots) <= 140
    assert {shot.probe for shot in report.shots} == set(expected)


def test_a_barrage_notices_an_outage_of_300_ms(sandbox: Sandbox) -> None:
    expected = {
        Probe(source="x/a", destination=pod, traffic=Traffic.parse(kind)): True for pod in ("y/a", "z/b") for kind in ("tcp/80", "udp/80")
    }
    with sandbox.barrage(expected, 100) as barrage:
        time.sleep(0.3)
        with everything_blocked(sandbox):
            began = time.monotonic()
            time.sleep(0.3)
            ended = time.monotonic()
        time.sleep(0.3)
    report = barrage.stop()
    assert not report.leaked
    assert 0.2 < report.outage < (ended - began) + 0.2
    assert len(report.lost) >= 20
    assert all(began - 0.1 < shot.when < ended + 0.1 for shot in report.lost)


def test_a_barrage_notices_a_single_leak(sandbox: Sandbox) -> None:
    deny(sandbox, "iifname pp-x_b drop")
    open_, closed = (Probe(source=source, destination="y/a", traffic=Traffic.parse("udp/80")) for source in ("x/a", "x/b"))
    with sandbox.barrage({open_: True, closed: False}, 100) as barrage:
        time.sleep(0.2)
        sandbox.run("node-1", ["nft", "flush", "chain", "inet", "guard", "deny"])
        time.sleep(0.05)
        deny(sandbox, "iifname pp-x_b drop")
        time.sleep(0.2)
    report = barrage.stop()
    assert not report.lost
    assert report.leaked
    assert all(shot.result.answered_by == "y/a" and shot.probe == closed for shot in report.leaked)


@pytest.mark.parametrize("translator", list(Translator))
@pytest.mark.parametrize("family", [4, 6])
def test_services_lead_to_their_pod(sandbox: Sandbox, translator: Translator, family: int) -> None:
    address = {4: f"10.96.0.{len(translator)}", 6: f"fd96::{len(translator)}"}[family]
    target = sandbox.topology.address_of("y/a", family)
    assert target is not None
    sandbox.add_service(Service(address=address, port=8080, protocol=6, target=target, target_port=80), translator)
    traffic = Traffic(6, 8080, family)
    sources = ["x/a", "z/c", "y/a", "node-1", "outside"]

    def ask() -> list[Outcome]:
        results = sandbox.probe(Probe(source=source, destination="y/a", traffic=traffic, address=address) for source in sources)
        assert {result.answered_by for result in results} <= {"y/a", ""}
        return [result.outcome for result in results]

    assert ask() == [Outcome.ALLOWED] * 5
    deny(sandbox, f"iifname pp-x_a {'ip' if family == 4 else 'ip6'} daddr {target} drop")
    assert ask() == [Outcome.DENIED, *[Outcome.ALLOWED] * 4]


def test_packets_are_captured(sandbox: Sandbox, tmp_path: Path) -> None:
    with sandbox.capture("node-1", tmp_path / "node.pcap", "udp port 80") as file:
        sandbox.probe([Probe(source="x/a", destination="y/a", traffic=Traffic.parse("udp/80"))])
    assert file.stat().st_size > 24 + 2 * 40


def test_daemons_end_with_the_sandbox(shared: Sandbox, tmp_path: Path) -> None:
    output = tmp_path / "log"
    process = shared.spawn("y/a", ["sh", "-c", "ip -br addr; exec sleep 60"], output=output)
    deadline = time.monotonic() + 60
    while "eth0" not in output.read_text() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert "10.65.2.1" in output.read_text()
    assert process.poll() is None
    process.terminate()
    process.wait()


def test_labels_change_in_the_manifests_only(shared: Sandbox) -> None:
    pod = shared.topology.find("x/a")
    assert isinstance(pod, PodSpec)
    shared.relabel_pod("x/a", {"pod": "z"})
    shared.relabel_namespace("x", {"ns": "other"})
    labels = {(manifest["kind"], manifest["metadata"]["name"]): manifest["metadata"]["labels"] for manifest in shared.manifests()}
    assert labels["Namespace", "x"]["ns"] == "other"
    assert shared.pod_manifest("x/a")["metadata"]["labels"] == {"pod": "z"}
    shared.relabel_pod("x/a", pod.labels)
