"""With a real switch: a private ovs-vswitchd on the userspace datapath, one bridge, four pods."""

from __future__ import annotations

from dataclasses import replace

import pytest
from backend_programs import examples
from ovs_sandbox import backend_of, door, eventually, outcomes

from polyplane.errors import ApplyError
from polyplane.ir.cidr import Cidr
from polyplane.ir.program import EMPTY, SCTP, Established, Options
from polyplane.reconcile.diff import diff
from polyplane_conformance.probe.model import Probe, Traffic
from polyplane_conformance.sandbox import Sandbox
from polyplane_ovs.backend import OvsBackend
from polyplane_ovs.flows import difference, write_bundle
from polyplane_ovs.listing import parse_flows

pytestmark = pytest.mark.netns

#: Sends an ARP reply, a neighbour advertisement or a packet with addresses of the caller's choice; argv: what, with commas.
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
for what in sys.argv[1].split(","):
    sendp(packets[what], iface="eth0", verbose=0, count=3)
"""


@pytest.mark.parametrize("name", sorted(examples()))
def test_what_is_written_reads_the_same(sandbox: Sandbox, name: str) -> None:
    wanted = examples()[name]
    assert backend_of(sandbox).polyplane_apply(diff(EMPTY, wanted)).operations > 40
    again = backend_of(sandbox)
    assert again.polyplane_apply(diff(EMPTY, wanted)).operations == 0
    assert again.polyplane_audit(wanted) == []
    assert again._layout is not None
    assert again.polyplane_show() == write_bundle(difference({}, again._layout.book.flows))
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


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("family", [4, 6])
def test_an_association_is_kept_or_cut(sandbox: Sandbox, family: int, *, kept: bool) -> None:
    """Userspace conntrack does not follow SCTP, yet what was allowed goes on with ``keep``, and nothing else does."""
    options = Options(established=Established.KEEP if kept else Established.RECHECK)
    sctp = Traffic.parse("sctp/80", family)
    open_, closed = (door(sandbox, friend, protocol=SCTP, options=options) for friend in ("x/b", "x/d"))
    backend, port = backend_of(sandbox), 17000 + family + 100 * kept

    def passes(source: str, port: int) -> bool:
        (result,) = sandbox.probe([Probe(source=source, destination="x/a", traffic=sctp, source_port=port)])
        return result.allowed

    backend.polyplane_apply(diff(EMPTY, open_))
    assert (passes("x/b", port), passes("x/c", port)) == (True, False)
    (ways,) = backend.polyplane_fill()
    assert 0 < ways.used == sandbox.run("node-1", ["ovs-ofctl", "dump-flows", "br-int", "table=4"]).count("actions=")
    backend.polyplane_apply(diff(open_, closed))
    assert (passes("x/b", port), passes("x/b", port + 10), passes("x/c", port)) == (kept, False, False)


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

    before, forged = dropped(), ("arp", "na", "ip", "mac", "multicast")
    sandbox.run("x/c", [sys.executable, "-c", FORGE, ",".join(forged), *given])
    eventually(lambda: dropped() >= before + 3 * len(forged))
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
