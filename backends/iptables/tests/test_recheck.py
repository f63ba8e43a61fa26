"""Recheck by mark, with packets: connections that are cut, connections beside them that go on, and what nobody may believe."""

from __future__ import annotations

import re
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

import pytest
from backend_programs import IN, address_set, endpoint, isolated, policy, program, rule
from structlog.testing import capture_logs

from polyplane.backend_kit.namespaces import in_namespace
from polyplane.ir.program import EMPTY, PortRange, Program
from polyplane.reconcile.diff import diff
from polyplane_conformance.probe.client import Stream
from polyplane_conformance.probe.model import Probe, Traffic
from polyplane_conformance.sandbox import Sandbox, Topology
from polyplane_iptables import kernel
from polyplane_iptables.backend import IptablesBackend
from polyplane_iptables.connmarks import MarksStuck, clear
from polyplane_iptables.kernel import Kernel, Runner
from polyplane_iptables.options import IptablesOptions

pytestmark = pytest.mark.netns

MASK = 0x0FF0
#: What a rule about TCP is told apart by in a connection list.
DOOR = rule("door", IN, 0, sets=("friends",), protocol=6, ports=(PortRange(80, 80),))


class Node:
    """A node with three pods, of which x/a has a door that friends may come through."""

    def __init__(self, sandbox: Sandbox, variant: str, lock_file: str) -> None:
        self.sandbox = sandbox
        self.variant = variant
        self.options = {**sandbox.backend_options(), "variant": variant, "lock_file": lock_file}
        self._stack = ExitStack()

    def backend(self, runner: Runner | None = None, mask: int = MASK) -> IptablesBackend:
        return IptablesBackend({**self.options, "recheck_mark": mask}, runner=runner)

    def door(self, *friends: str, rules: Sequence[object] = (DOOR,)) -> Program:
        """Return the program; with other rules, friends are as they were."""
        allow = policy(IN, *rules)  # type: ignore[arg-type]  # rules are rules
        pods = {pod.id: pod for pod in self.sandbox.topology.pods}
        ends = [
            replace(endpoint("n", pod.host_interface, *pod.addresses, ingress=isolated(IN, allow) if pod.name == "a" else ()), id=pod.id)  # type: ignore[arg-type]
            for pod in pods.values()
        ]
        return program(*ends, allow, address_set("friends", *(address for name in friends for address in pods[name].addresses)))

    def stream(self, source: str, family: int = 4) -> Stream:
        probe = Probe(source=source, destination="x/a", traffic=Traffic.parse("tcp/80", family))
        return self._stack.enter_context(self.sandbox.stream(probe))

    def run(self, *argv: str) -> str:
        return self.sandbox.run("node-1", argv)

    def iptables(self, *arguments: str) -> str:
        return self.run(f"iptables-{self.variant}", *arguments)

    def marks(self) -> set[int]:
        """The marks of IPv4 connections through the door, as conntrack tells them."""
        return {int(mark) for mark in re.findall(r"dport=80 .*mark=(\d+)", self.run("conntrack", "-L", "-f", "ipv4"))}

    def mark_all(self, mark: str, then: set[int]) -> None:
        """Mark all connections of which a packet comes, until these marks are there."""
        self.iptables("-t", "mangle", "-A", "PREROUTING", "-j", "CONNMARK", "--set-xmark", mark)
        deadline = time.monotonic() + 30
        while self.marks() != then:
            assert time.monotonic() < deadline, self.marks()
            time.sleep(0.05)
        self.iptables("-t", "mangle", "-F")

    def end(self) -> None:
        self._stack.close()


@pytest.fixture(params=["nft", "legacy"])
def node(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Node]:
    with Sandbox.build(Topology.grid("x", "abc")) as sandbox:
        made = Node(sandbox, request.param, str(tmp_path / "xtables.lock"))
        with closing(ExitStack()) as stack:
            stack.callback(made.end)
            yield made


@pytest.mark.parametrize("family", [4, 6])
def test_what_is_no_longer_allowed_is_cut(node: Node, family: int) -> None:
    """By a member and by a rule; what is still allowed goes on, and is not asked about meanwhile."""
    backend = node.backend()
    both = node.door("x/b", "x/c")
    backend.polyplane_apply(diff(EMPTY, both))
    cut, kept = node.stream("x/b", family), node.stream("x/c", family)
    assert cut.flowing()
    assert kept.flowing()
    if family == 4:
        assert node.marks() == {0x10}
    asked = {count.rule_id: count.packets for count in backend.polyplane_counters()}
    assert kept.flowing()
    assert {count.rule_id: count.packets for count in backend.polyplane_counters()} == asked
    one = node.door("x/c")
    backend.polyplane_apply(diff(both, one))
    assert cut.silent()
    assert kept.flowing()
    nobody = node.door("x/c", rules=(replace(DOOR, match=replace(DOOR.match, ports=(PortRange(81, 81),))),))
    backend.polyplane_apply(diff(one, nobody))
    assert kept.silent()
    assert node.backend().polyplane_apply(diff(EMPTY, nobody)).operations == 0


class Crash(Exception):
    """The agent is killed here."""


def test_a_crash_between_members_and_table_is_made_good(node: Node) -> None:
    """Members and rules are right at the next start; only the set says that connections have not been asked about since."""
    real = Kernel(IptablesOptions.parse(node.options))

    def runner(argv: Sequence[str], text: str) -> str:
        if armed and "-restore" in argv[0]:
            raise Crash
        return real.execute(argv, text)

    armed = False
    backend, both, one = node.backend(runner), node.door("x/b", "x/c"), node.door("x/c")
    backend.polyplane_apply(diff(EMPTY, both))
    cut, kept = node.stream("x/b"), node.stream("x/c")
    assert cut.flowing()
    armed = True
    with pytest.raises(Crash):
        backend.polyplane_apply(diff(both, one))
    assert cut.flowing(), "it is still believed"
    again = node.backend()
    assert again.polyplane_audit(one)
    again.polyplane_apply(diff(EMPTY, one))
    assert cut.silent()
    assert kept.flowing()
    assert again.polyplane_audit(one) == ()
    assert node.backend().polyplane_apply(diff(EMPTY, one)).operations == 0


def test_with_one_bit_marks_are_cleared_each_time(node: Node) -> None:
    """And only that bit: what others keep in the mark stays."""
    backend, both, one = node.backend(mask=0x1), node.door("x/b", "x/c"), node.door("x/c")
    backend.polyplane_apply(diff(EMPTY, both))
    first, kept = node.stream("x/b"), node.stream("x/c")
    assert first.flowing()
    assert kept.flowing()
    node.mark_all("0x80000002/0x80000002", {0x80000003})
    for _ in range(2):
        backend.polyplane_apply(diff(both, one))
        assert first.silent()
        assert kept.flowing()
        assert node.marks() == {0x80000002, 0x80000003}
        backend.polyplane_apply(diff(one, both))
        assert first.flowing(timeout=30)


def test_a_mark_of_an_earlier_life_is_not_believed(node: Node) -> None:
    """Neither after a teardown nor when somebody took the sets away: the epoch is the same number."""
    backend, both, one = node.backend(), node.door("x/b", "x/c"), node.door("x/c")
    backend.polyplane_apply(diff(EMPTY, both))
    cut, kept = node.stream("x/b"), node.stream("x/c")
    assert cut.flowing()
    assert kept.flowing()
    backend.polyplane_teardown()
    assert node.marks() == {0x10}
    again = node.backend()
    again.polyplane_apply(diff(EMPTY, one))
    assert cut.silent()
    assert kept.flowing()
    assert node.marks() == {0, 0x10}
    node.run("sh", "-c", "for name in $(ipset list -n | grep polyplane-e); do ipset destroy $name; done")
    node.mark_all("0x10/0xff0", {0x10})
    assert again.polyplane_audit(one)
    again.polyplane_apply(diff(EMPTY, one))
    assert cut.silent()
    assert kept.flowing()
    assert again.polyplane_audit(one) == ()


def test_bits_that_others_write_are_not_relied_on(node: Node) -> None:
    """Somebody marks everything as we would mark what is allowed."""
    backend, both, one = node.backend(), node.door("x/b", "x/c"), node.door("x/c")
    backend.polyplane_apply(diff(EMPTY, both))
    cut, kept = node.stream("x/b"), node.stream("x/c")
    assert cut.flowing()
    node.iptables("-t", "mangle", "-A", "PREROUTING", "-j", "CONNMARK", "--set-mark", "0x20/0xff0")
    with capture_logs() as logs:
        assert backend.polyplane_audit(both)
        backend.polyplane_apply(diff(EMPTY, both))
        backend.polyplane_apply(diff(both, one))
        assert backend.polyplane_audit(one) == ()
    assert [(entry["log_level"], "mangle" in entry["reason"]) for entry in logs] == [("error", True)]
    assert cut.silent()
    assert kept.flowing()
    assert "connmark" not in node.run(f"iptables-{node.variant}-save", "-t", "filter")
    assert any("by direction: another's rule" in said for _, said in node.backend().polyplane_capabilities().details)
    node.iptables("-t", "mangle", "-F")
    assert backend.polyplane_audit(one)
    backend.polyplane_apply(diff(EMPTY, one))
    assert cut.silent()
    assert kept.flowing()
    assert node.marks() == {0, 0x10}, "what they left behind was cleared"


@pytest.mark.needs("nft")
def test_nor_those_that_nftables_writes_by_itself(node: Node) -> None:
    """A table of nftables' own, which no iptables-save prints; one that keeps to other bits is no harm."""
    backend, both = node.backend(), node.door("x/b", "x/c")
    for name, bits, harm in (("kept", "0x80000", False), ("taken", "0x80", True)):
        node.run("nft", f"table inet {name} {{ chain c {{ type filter hook prerouting priority 0; ct mark set ct mark or {bits}; }}; }}")
        with capture_logs() as logs:
            backend.polyplane_apply(diff(EMPTY, both))
        assert [f"inet {name} (nft)" in entry["reason"] for entry in logs] == [True] * harm
        assert ("connmark" in node.run(f"iptables-{node.variant}-save", "-t", "filter")) is not harm
    node.run("nft", "delete table inet taken")
    assert backend.polyplane_audit(both)


def test_marks_that_cannot_be_cleared_are_not_used(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_family: int, _mask: int) -> int:
        raise MarksStuck("no ctnetlink")

    monkeypatch.setattr(kernel, "clear", fail)
    backend, both, one = node.backend(), node.door("x/b", "x/c"), node.door("x/c")
    with capture_logs() as logs:
        backend.polyplane_apply(diff(EMPTY, both))
        cut, kept = node.stream("x/b"), node.stream("x/c")
        assert cut.flowing()
        backend.polyplane_apply(diff(both, one))
        assert backend.polyplane_audit(one) == ()
    assert [entry["reason"] for entry in logs] == ["no ctnetlink"]
    assert cut.silent()
    assert kept.flowing()
    assert node.marks() == {0}


def test_all_marked_connections_are_found(node: Node) -> None:
    """In all protocols and zones; more than fit into one answer."""
    entries = "".join(
        f"-I -p {protocol} -s 192.0.2.1 -d 198.51.100.{at % 200} --sport {1000 + at} --dport 80 {more} -t 600 -m {0x10 + (at << 16)} {zone}\n"
        for at in range(600)
        for protocol, more in (("tcp", "--state ESTABLISHED"), ("udp", ""), ("sctp", "--state ESTABLISHED --orig-vtag 1 --reply-vtag 2"))[
            at % 3 :
        ][:1]
        for zone in ("" if at % 2 else "-w 7",)
    )
    node.sandbox.run("node-1", ["conntrack", "--load-file", "-"], text=entries)
    path = str(node.sandbox.node_netns)
    assert in_namespace(path, lambda: clear(4, 0xFF0)) == 600
    marks = re.findall(r" mark=(\d+) ", node.run("conntrack", "-L"))
    assert sorted(map(int, marks)) == [at << 16 for at in range(600)]
    assert in_namespace(path, lambda: clear(4, 0xFF0)) == 0


def test_a_connection_that_another_brought_about_is_asked_about(node: Node) -> None:
    """The kernel gives it the mark of the one that did (passive FTP): denied where the policy says so, cut when it changes."""
    node.iptables("-t", "raw", "-A", "PREROUTING", "-p", "tcp", "--dport", "21", "-j", "CT", "--helper", "ftp")
    wide = replace(DOOR, match=replace(DOOR.match, ports=(PortRange(21, 21), PortRange(2000, 2000))))
    narrow = replace(DOOR, match=replace(DOOR.match, ports=(PortRange(21, 21),)))
    both, one = node.door("x/b", rules=(wide,)), node.door("x/b", rules=(narrow,))
    backend = node.backend()
    backend.polyplane_apply(diff(EMPTY, both))
    address = next(pod for pod in node.sandbox.topology.pods if pod.id == "x/a").addresses[0]
    server, client = (str(node.sandbox.netns(name)) for name in ("x/a", "x/b"))

    def listen(port: int) -> socket.socket:
        return in_namespace(server, lambda: socket.create_server((address, port)))

    def connect(port: int) -> socket.socket:
        return in_namespace(client, lambda: socket.create_connection((address, port), timeout=0.7))

    with ExitStack() as stack:
        control, good, bad = (stack.enter_context(listen(port)) for port in (21, 2000, 2001))
        asking = stack.enter_context(connect(21))
        telling = stack.enter_context(control.accept()[0])
        # The kernel reads lines that begin behind one it has seen end.
        telling.sendall(b"220 here\r\n")
        assert asking.recv(64)

        def announce(port: int) -> None:
            """Say where data will be, after the handshake of the control connection has been marked."""
            asking.sendall(b"PASV\r\n")
            assert telling.recv(64)
            numbers = f"{address.replace('.', ',')},{port >> 8},{port & 255}"
            telling.sendall(f"227 Entering Passive Mode ({numbers}).\r\n".encode())
            assert asking.recv(64)
            assert f"dport={port}" in node.run("conntrack", "-L", "expect"), "the kernel expects a connection"

        announce(2001)
        assert re.search(r"dport=21 .*mark=16 ", node.run("conntrack", "-L"))
        with pytest.raises(TimeoutError):
            connect(2001)
        announce(2000)
        data = stack.enter_context(connect(2000))
        incoming = stack.enter_context(good.accept()[0])
        incoming.settimeout(0.7)
        data.sendall(b"x")
        assert incoming.recv(1) == b"x"
        backend.polyplane_apply(diff(both, one))
        data.sendall(b"y")
        with pytest.raises(TimeoutError):
            incoming.recv(1)
        asking.sendall(b"x")
        assert telling.recv(1) == b"x"
        assert bad


def test_conntrack_is_here() -> None:
    """What the tests above read marks back with."""
    subprocess.run(["conntrack", "--version"], check=True, capture_output=True)
