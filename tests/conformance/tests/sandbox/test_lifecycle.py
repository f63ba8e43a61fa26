from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from polyplane_conformance import netns
from polyplane_conformance.probe.model import Outcome, Probe, Traffic
from polyplane_conformance.sandbox import NodeSpec, PodSpec, Port, Sandbox, SandboxError, Topology, sweep

pytestmark = pytest.mark.netns

TCP80 = Traffic.parse("tcp/80")

BUILD_AND_WAIT = """
import sys, time
from polyplane_conformance.sandbox import Sandbox, Topology
sandbox = Sandbox.build(Topology.grid("x", "ab"))
print(sandbox.node_netns.name, sandbox._prober.pid, flush=True)
time.sleep(60)
"""


def owned(prefix: str) -> list[str]:
    return [name for name in netns.names() if name.startswith(prefix)]


def wait_until_gone(prefix: str) -> bool:
    deadline = time.monotonic() + 60
    while owned(prefix) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not owned(prefix)


def start_child() -> tuple[subprocess.Popen[str], str, int]:
    child = subprocess.Popen([sys.executable, "-c", BUILD_AND_WAIT], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    name, prober = child.stdout.readline().split()
    child.stdout.close()
    return child, name.removesuffix("node-1"), int(prober)


def test_nine_pods_are_built_in_recorded_time(record_property: Callable[[str, object], None]) -> None:
    with Sandbox.build(Topology.grid()) as sandbox:
        record_property("seconds", round(sandbox.built_in, 3))
        prefix = sandbox.node_netns.name.removesuffix("node-1")
        assert len(owned(prefix)) == 9 + 2 + 1
    assert not owned(prefix)


def test_a_killed_owner_leaves_nothing_behind() -> None:
    child, prefix, _ = start_child()
    assert owned(prefix)
    child.kill()
    child.wait()
    assert wait_until_gone(prefix)


def test_the_sweeper_removes_what_even_the_prober_could_not() -> None:
    child, prefix, prober = start_child()
    os.kill(prober, signal.SIGKILL)
    child.kill()
    child.wait()
    left = owned(prefix)
    assert len(left) == 2 + 2 + 1

    with Sandbox.build(Topology.grid("x", "a")) as living:
        assert not owned(prefix)
        assert not any(name.startswith((prefix, f"pp-{os.getpid()}-")) for name in sweep())
        assert living.node_netns.exists()


def test_the_sweeper_leaves_foreign_namespaces_alone() -> None:
    name = f"other-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        sweep()
        assert name in netns.names()
    finally:
        netns.delete(name)


def test_a_build_that_fails_leaves_nothing_behind() -> None:
    before = owned(f"pp-{os.getpid()}-")
    pod = PodSpec(namespace="x", name="a", addresses=("10.65.1.1",), interface="lo")  # exists already
    with pytest.raises(SandboxError, match="File exists"):
        Sandbox.build(Topology(pods=(pod,)))
    assert owned(f"pp-{os.getpid()}-") == before


def test_two_sandboxes_do_not_see_each_other() -> None:
    with Sandbox.build(Topology.grid("x", "ab")) as one, Sandbox.build(Topology.grid("x", "ab")) as two:
        rule = "table inet guard { chain forward { type filter hook forward priority filter; drop; }; }"
        one.run("node-1", ["nft", "-f", "-"], text=rule)
        probe = Probe(source="x/a", destination="x/b", traffic=TCP80)
        assert one.probe([probe])[0].outcome is Outcome.DENIED
        assert two.probe([probe])[0].outcome is Outcome.ALLOWED


def test_pods_have_one_family_or_both_and_any_address() -> None:
    pods = (
        PodSpec(namespace="x", name="four", addresses=("192.168.1.10",)),
        PodSpec(namespace="x", name="six", addresses=("fd00::10",)),
        PodSpec(namespace="x", name="both", addresses=("192.168.1.11", "fd00::11")),
        PodSpec(namespace="x", name="two", addresses=("192.168.1.12", "192.168.200.12")),
        PodSpec(namespace="x", name="host", host_network=True, ports=(Port(6, 8080),)),
        PodSpec(namespace="a-long-namespace-name", name="and-a-long-pod-name", addresses=("192.168.1.13",)),
    )
    with Sandbox.build(Topology(pods=pods)) as sandbox:
        matrix = sandbox.matrix([TCP80, Traffic.parse("tcp/80", 6), Traffic.parse("tcp/8080"), Traffic.parse("tcp/8080", 6)])
        assert set(matrix.cells) == matrix.allowed
        reached = {(cell.source, cell.destination) for cell in matrix.cells if cell.traffic.family == 6}
        assert reached == {(f"x/{a}", f"x/{b}") for a in ("six", "both", "host") for b in ("six", "both", "host")}
        assert {result.answered_by for cell, result in matrix.cells.items() if cell.destination == "x/host"} == {"x/host"}
        kinds = [Traffic.parse(kind) for kind in ("tcp/80", "udp/80", "sctp/80")]
        second = [Probe(source="x/four", destination="x/two", traffic=kind, address="192.168.200.12") for kind in kinds]
        assert [result.answered_by for result in sandbox.probe(second)] == ["x/two"] * 3


def test_other_protocols_by_number() -> None:
    pods = tuple(
        PodSpec(namespace="x", name=name, addresses=(f"10.65.1.{last}", f"fd65::{last}"), ports=(Port(253),))
        for last, name in enumerate("ab", 1)
    )
    with Sandbox.build(Topology(pods=pods)) as sandbox:
        rule = "table inet guard { chain forward { type filter hook forward priority filter; ip saddr 10.65.1.1 meta l4proto 253 drop; }; }"
        sandbox.run("node-1", ["nft", "-f", "-"], text=rule)
        probes = [
            Probe(source=source, destination=destination, traffic=Traffic(253, 0, family))
            for source, destination in (("x/a", "x/b"), ("x/b", "x/a"))
            for family in (4, 6)
        ]
        # the denied pod's answers are of the denied kind as well: nothing here tracks connections
        assert [result.outcome.value for result in sandbox.probe(probes)] == ["denied", "allowed", "denied", "allowed"]


def test_an_address_is_reused_by_another_pod() -> None:
    with Sandbox.build(Topology.grid("xy", "ab")) as sandbox:
        probe = Probe(source="x/a", destination="y/b", traffic=TCP80)
        old = sandbox.topology.find("y/b")
        assert isinstance(old, PodSpec)
        assert sandbox.probe([probe])[0].answered_by == "y/b"
        sandbox.remove_pod("y/b")
        sandbox.add_pod(PodSpec(namespace="x", name="new", addresses=old.addresses))
        for family in (4, 6):
            again = Probe(source="x/a", destination="x/new", traffic=Traffic.parse("tcp/80", family))
            assert sandbox.probe([again])[0].answered_by == "x/new"
        assert "y/b" not in [manifest["metadata"]["name"] for manifest in sandbox.manifests()]


@pytest.mark.parametrize("remote", [False, True])
def test_pods_are_renumbered_removed_and_come_back(*, remote: bool) -> None:
    with Sandbox.build(Topology.grid("x", "ab", remote=["x/b"] if remote else [])) as sandbox:
        probe = Probe(source="x/a", destination="x/b", traffic=TCP80)
        sandbox.renumber_pod("x/b", ["10.77.0.1", "fd77::1"])
        assert sandbox.matrix().allowed == set(sandbox.matrix().cells)
        assert sandbox.pod_manifest("x/b")["status"]["podIPs"] == [{"ip": "10.77.0.1"}, {"ip": "fd77::1"}]
        gone = sandbox.topology.find("x/b")
        assert isinstance(gone, PodSpec)
        sandbox.remove_pod("x/b")
        sandbox.add_pod(gone)
        assert sandbox.probe([probe])[0].answered_by == "x/b"


def test_manifests_describe_the_pods() -> None:
    node = NodeSpec(name="node-1", addresses=("172.31.250.1",), labels={"zone": "here"})
    pod = PodSpec(
        namespace="x", name="a", addresses=("10.65.1.1",), labels={"pod": "a"}, ports=(Port(6, 80), Port(17, 53, "dns"), Port(253))
    )
    with Sandbox.build(Topology(pods=(pod,), nodes=(node,), hosts=(), namespaces={"x": {"ns": "x"}})) as sandbox:
        namespace, described_node, described = sandbox.manifests()
        assert namespace["metadata"]["labels"] == {"ns": "x", "kubernetes.io/metadata.name": "x"}
        assert described_node["metadata"]["labels"] == {"zone": "here"}
        assert described["spec"]["nodeName"] == "node-1"
        assert described["metadata"]["annotations"] == {"polyplane.dev/host-interface": "pp-x_a"}
        assert [port["name"] for port in described["spec"]["containers"][0]["ports"]] == ["serve-80-tcp", "dns"]
        assert Path("/sys/class/net/lo").exists()
        assert "pp-x_a" in sandbox.run("node-1", ["ip", "-br", "link"])
        assert "annotations" not in sandbox.manifests(interfaces=False)[2]["metadata"]
