"""With a real switch: a private ovs-vswitchd on the userspace datapath, one bridge, four pods."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import pytest
from backend_programs import IN, address_set, endpoint, examples, isolated, policy, program, rule

from polyplane.errors import ApplyError
from polyplane.ir.cidr import Cidr
from polyplane.ir.program import EMPTY, PortRange, Program
from polyplane.reconcile.diff import diff
from polyplane_conformance.probe.model import Outcome, Probe, Traffic
from polyplane_conformance.sandbox import Sandbox, Topology, Wiring
from polyplane_ovs.backend import OvsBackend
from polyplane_ovs.listing import parse_flows

pytestmark = pytest.mark.netns

#: Sends an ARP reply, a neighbour advertisement or a packet with addresses of the caller's choice; argv: what.
FORGE = """
import sys
from scapy.all import ARP, Ether, ICMPv6ND_NA, ICMPv6NDOptDstLLAddr, IP, IPv6, UDP, get_if_hwaddr, sendp
me, victim4, victim6, gateway4, target4 = get_if_hwaddr("eth0"), *sys.argv[2:6]
packets = {
    "arp": Ether(src=me, dst="ff:ff:ff:ff:ff:ff") / ARP(op=2, psrc=victim4, hwsrc=me, pdst=gateway4, hwdst="ff:ff:ff:ff:ff:ff"),
    "na": Ether(src=me, dst="33:33:00:00:00:01") / IPv6(src=victim6, dst="ff02::1") / ICMPv6ND_NA(tgt=victim6, R=0, S=0, O=1) / ICMPv6NDOptDstLLAddr(lladdr=me),
    "ip": Ether(src=me, dst="ff:ff:ff:ff:ff:ff") / IP(src=victim4, dst=target4) / UDP(sport=1, dport=80),
    "mac": Ether(src="0a:66:66:66:66:66", dst="ff:ff:ff:ff:ff:ff") / ARP(op=1, psrc=victim4, pdst=gateway4),
    "multicast": Ether(src=me, dst="01:00:5e:00:00:fb") / IP(src=sys.argv[6], dst="224.0.0.251") / UDP(sport=5353, dport=5353),
}
sendp(packets[sys.argv[1]], iface="eth0", verbose=0, count=3)
"""


@pytest.fixture(scope="module")
def shared() -> Iterator[Sandbox]:
    if os.geteuid() != 0:
        pytest.skip("needs root to make network namespaces")
    if shutil.which("ovs-vswitchd") is None:
        pytest.skip("needs openvswitch-switch")
    with Sandbox.build(Topology.grid(namespaces="x", names="abcd"), Wiring.BRIDGE) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(shared: Sandbox) -> Iterator[Sandbox]:
    """The module's sandbox; afterwards nothing of ours is there, and the switch and its own flow are."""
    yield shared
    OvsBackend(shared.backend_options()).polyplane_teardown()
    shared.run("node-1", ["ovs-vsctl", "set-fail-mode", "br-int", "secure"])
    shared.run("node-1", ["ovs-ofctl", "add-flow", "br-int", "priority=0,actions=NORMAL"])


def backend_of(sandbox: Sandbox, **options: object) -> OvsBackend:
    return OvsBackend({**sandbox.backend_options(), **options})


def door(sandbox: Sandbox, *friends: str, port: int = 80) -> Program:
    """A pod x/a that only its friends may reach, on one TCP port, and the other pods without policy."""
    allow = policy(IN, rule("door", IN, 0, sets=("friends",), protocol=6, ports=(PortRange(port, port),)))
    places = {pod.id: pod for pod in sandbox.topology.pods}
    addresses = [address for friend in friends for address in places[friend].addresses]
    endpoints = [
        replace(endpoint("n", pod.host_interface, *pod.addresses, ingress=isolated(IN, allow) if pod.name == "a" else ()), id=pod.id)  # type: ignore[arg-type]
        for pod in places.values()
    ]
    return program(*endpoints, allow, address_set("friends", *addresses), nodes=sandbox.topology.node.addresses)


def outcomes(sandbox: Sandbox, target: str = "x/a", service: str = "tcp/80") -> Mapping[str, bool]:
    """Which pods reach the target, over both IP versions alike."""
    probes = [
        Probe(source=source, destination=target, traffic=Traffic.parse(service, family)) for source in ("x/b", "x/c") for family in (4, 6)
    ]
    results = sandbox.probe(probes)
    assert not [result for result in results if result.outcome is Outcome.BROKEN], results
    found: dict[str, set[bool]] = {}
    for probe, result in zip(probes, results, strict=True):
        found.setdefault(probe.source, set()).add(result.allowed)
    assert all(len(verdicts) == 1 for verdicts in found.values()), found
    return {source: verdicts.pop() for source, verdicts in found.items()}


def eventually(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    """Wait for a condition."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, "in vain"
        time.sleep(0.01)


def flows(sandbox: Sandbox) -> int:
    """How many flows the bridge has, seen by another call than the backend's."""
    return sandbox.run("node-1", ["ovs-ofctl", "dump-flows", "br-int"]).count("actions=")


@pytest.mark.parametrize("name", sorted(examples()))
def test_what_is_written_reads_the_same(sandbox: Sandbox, name: str) -> None:
    wanted = examples()[name]
    assert backend_of(sandbox).polyplane_apply(diff(EMPTY, wanted)).operations > 40
    again = backend_of(sandbox)
    assert again.polyplane_apply(diff(EMPTY, wanted)).operations == 0
    assert again.polyplane_audit(wanted) == []
    assert again.polyplane_apply(diff(wanted, EMPTY)).operations > 0 or name == "empty"
    assert again.polyplane_audit(EMPTY) == []


def test_the_door(sandbox: Sandbox) -> None:
    backend = backend_of(sandbox)
    open_, closed = door(sandbox, "x/b"), door(sandbox, "x/c")
    backend.polyplane_apply(diff(EMPTY, open_))
    assert outcomes(sandbox) == {"x/b": True, "x/c": False}
    assert backend.polyplane_apply(diff(open_, closed)).operations == 4  # two addresses leave the class, two enter it
    assert outcomes(sandbox) == {"x/b": False, "x/c": True}
    deciding = {count.rule_id: count.packets for count in backend.polyplane_counters()}
    assert sorted(packets > 0 for packets in deciding.values()) == [True, True]


def test_others_flows(sandbox: Sandbox) -> None:
    """Those outside our tables are left alone; those in them are removed, but not if only theirs are there."""
    elsewhere, inside = "table=200,priority=7,actions=drop", "table=14,priority=9999,actions=goto_table:17"
    sandbox.run("node-1", ["ovs-ofctl", "-O", "OpenFlow15", "add-flow", "br-int", elsewhere])
    sandbox.run("node-1", ["ovs-ofctl", "-O", "OpenFlow15", "add-flow", "br-int", inside])
    wanted = door(sandbox, "x/b")
    with pytest.raises(ApplyError, match="first_table") as caught:
        backend_of(sandbox).polyplane_apply(diff(EMPTY, wanted))
    assert caught.value.retryable
    sandbox.run("node-1", ["ovs-ofctl", "del-flows", "br-int", "table=14"])
    backend = backend_of(sandbox)
    backend.polyplane_apply(diff(EMPTY, wanted))
    sandbox.run("node-1", ["ovs-ofctl", "-O", "OpenFlow15", "add-flow", "br-int", inside])
    assert [drift.expected for drift in backend.polyplane_audit(wanted)] == ["nothing"]
    assert backend.polyplane_apply(diff(EMPTY, wanted)).operations == 1
    assert backend.polyplane_teardown().operations > 0
    left = list(parse_flows(sandbox.run("node-1", ["ovs-ofctl", "dump-flows", "br-int"])))
    assert sorted((flow.key.table, flow.value.actions) for flow in left) == [(0, "NORMAL"), (200, "drop")]
    sandbox.run("node-1", ["ovs-ofctl", "del-flows", "br-int", "table=200"])


def test_other_tables_and_a_pipeline_behind(sandbox: Sandbox) -> None:
    sandbox.run("node-1", ["ovs-ofctl", "del-flows", "br-int"])
    sandbox.run("node-1", ["ovs-ofctl", "add-flow", "br-int", "table=0,actions=resubmit(,50)"])
    sandbox.run("node-1", ["ovs-ofctl", "add-flow", "br-int", "table=7,actions=NORMAL"])
    try:
        backend = backend_of(sandbox, first_table=50, next_table=7)
        backend.polyplane_apply(diff(EMPTY, door(sandbox, "x/b")))
        assert outcomes(sandbox) == {"x/b": True, "x/c": False}
        backend.polyplane_teardown()
    finally:
        sandbox.run("node-1", ["ovs-ofctl", "del-flows", "br-int"])


def test_an_open_bridge_is_reported(sandbox: Sandbox) -> None:
    sandbox.run("node-1", ["ovs-vsctl", "del-fail-mode", "br-int"])
    wanted, backend = door(sandbox, "x/b"), backend_of(sandbox)
    with pytest.raises(ApplyError, match="set-fail-mode br-int secure"):
        backend.polyplane_apply(diff(EMPTY, wanted))
    assert outcomes(sandbox) == {"x/b": True, "x/c": False}
    assert [drift.found for drift in backend.polyplane_audit(wanted)] == ["not set"]


def test_no_bridge(sandbox: Sandbox) -> None:
    with pytest.raises(ApplyError, match="add-br br-ex") as caught:
        backend_of(sandbox, bridge="br-ex").polyplane_apply(diff(EMPTY, EMPTY))
    assert caught.value.retryable
    assert backend_of(sandbox, bridge="br-ex").polyplane_teardown().operations == 0


def test_a_switch_that_dies(sandbox: Sandbox, record_property: Callable[[str, object], None]) -> None:
    """Denied stays denied throughout; allowed returns soon after the switch does, and stays (0.3 s on an idle machine)."""
    backend = backend_of(sandbox)
    backend.polyplane_apply(diff(EMPTY, door(sandbox, "x/b")))
    before, switch = flows(sandbox), sandbox.switches["node-1"]
    expected = {
        Probe(source=source, destination="x/a", traffic=Traffic.parse(service, family)): source == "x/b" and service == "tcp/80"
        for source in ("x/b", "x/c")
        for service in ("tcp/80", "udp/80")
        for family in (4, 6)
    }
    with sandbox.barrage(expected, 100) as barrage:
        time.sleep(0.5)
        switch.kill("ovs-vswitchd")
        switch.start_forwarding()
        eventually(lambda: flows(sandbox) >= before - 1, 20)
        time.sleep(1.5)
    report = barrage.stop()
    assert not report.leaked, str(report)
    assert report.lost, str(report)
    record_property("outage in seconds", round(report.outage, 2))
    assert report.shots[-1].when - report.lost[-1].when > 0.5
    assert backend.polyplane_audit(door(sandbox, "x/b")) == []


def test_a_database_that_dies(sandbox: Sandbox) -> None:
    wanted, more = door(sandbox, "x/b"), door(sandbox, "x/b", "x/c")
    backend, switch = backend_of(sandbox), sandbox.switches["node-1"]
    backend.polyplane_apply(diff(EMPTY, wanted))
    switch.kill("ovsdb-server")
    try:
        with pytest.raises(ApplyError, match="ovsdb-server") as caught:
            backend.polyplane_apply(diff(wanted, more))
        assert caught.value.retryable
        assert "ovsdb-server" in backend.polyplane_audit(wanted)[0].found
    finally:
        switch.start_database()
    eventually(lambda: not backend.polyplane_audit(wanted), 15)
    backend.polyplane_apply(diff(wanted, more))
    eventually(lambda: outcomes(sandbox) == {"x/b": True, "x/c": True}, 20)


def test_ports_are_followed(sandbox: Sandbox) -> None:
    """A port that is made anew has another number; its policy is there without anybody calling us."""
    backend = backend_of(sandbox)
    wanted = door(sandbox, "x/b")
    backend.polyplane_apply(diff(EMPTY, wanted))
    pod = next(pod for pod in sandbox.topology.pods if pod.id == "x/a")
    sandbox.remove_pod("x/a")
    sandbox.add_pod(pod)
    eventually(lambda: not backend.polyplane_audit(wanted), 20)
    assert outcomes(sandbox) == {"x/b": True, "x/c": False}


def test_nobody_is_somebody_else(sandbox: Sandbox) -> None:
    """Forged ARP, neighbour advertisements, IP and MAC addresses, and multicast do not leave their port."""
    import sys

    pods = {pod.id: pod for pod in sandbox.topology.pods}
    backend_of(sandbox).polyplane_apply(diff(EMPTY, door(sandbox, "x/b")))
    victim, me = pods["x/b"].addresses, pods["x/c"].addresses
    given = (*victim, sandbox.topology.node.addresses[0], pods["x/a"].addresses[0], me[0])

    def dropped() -> int:
        listing = sandbox.run("node-1", ["ovs-ofctl", "dump-flows", "br-int"])
        return sum(flow.packets for flow in parse_flows(listing) if flow.value.actions == "drop" and flow.key.table in (0, 2))

    for forged in ("arp", "na", "ip", "mac", "multicast"):
        before = dropped()
        sandbox.run("x/c", [sys.executable, "-c", FORGE, forged, *given])
        eventually(lambda before=before: dropped() >= before + 3)  # type: ignore[misc]  # mypy cannot infer a lambda with a default
    neighbours = sandbox.run("x/a", ["ip", "neigh"]) + sandbox.run("node-1", ["ip", "neigh"])
    mac = sandbox.run("x/c", ["cat", "/sys/class/net/eth0/address"]).strip()
    assert not [line for line in neighbours.splitlines() if mac in line and line.split()[0] in victim]


def test_a_stranger_cannot_use_an_endpoints_address(sandbox: Sandbox) -> None:
    """A workload that polyplane knows nothing about reaches others, but not as somebody whom policy knows."""
    wanted = door(sandbox, "x/b")
    without = replace(wanted, endpoints={key: value for key, value in wanted.endpoints.items() if key != "x/c"})
    backend_of(sandbox).polyplane_apply(diff(EMPTY, without))
    assert outcomes(sandbox, "x/d") == {"x/b": True, "x/c": True}
    pods = {pod.id: pod for pod in sandbox.topology.pods}
    stolen = pods["x/b"].addresses[0]
    sandbox.run("x/c", ["ip", "addr", "add", f"{stolen}/32", "dev", "eth0"])
    try:
        say = f"import socket; s = socket.create_connection(({pods['x/a'].addresses[0]!r}, 80), 1, ({stolen!r}, 0))"
        with pytest.raises(Exception, match=r"(?i)timed out"):
            sandbox.run("x/c", ["python3", "-c", say])
    finally:
        sandbox.run("x/c", ["ip", "addr", "del", f"{stolen}/32", "dev", "eth0"])


def test_capabilities(sandbox: Sandbox) -> None:
    there = backend_of(sandbox).polyplane_capabilities()
    assert not there.missing
    assert ("datapath", "netdev") in there.details
    nowhere = OvsBackend({"run_dir": "/nowhere"}).polyplane_capabilities()
    assert "/nowhere does not exist" in nowhere.missing[0]
    assert Cidr.parse("10.96.0.0/12") in backend_of(sandbox)._options.service_cidrs
