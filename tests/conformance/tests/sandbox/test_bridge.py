"""A switch that gets little of a busy machine: it is stopped most of the time. Silence must not pass for a denial, nor hide one."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from polyplane_conformance.probe.model import Outcome
from polyplane_conformance.sandbox import Sandbox, Topology, Wiring
from polyplane_conformance.sandbox.bridges import listens

pytestmark = [pytest.mark.netns, pytest.mark.needs("ovs-vswitchd")]


@pytest.fixture(scope="module")
def shared() -> Iterator[Sandbox]:
    with Sandbox.build(Topology.grid(remote=["z/b", "z/c"]), Wiring.BRIDGE) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(shared: Sandbox) -> Iterator[Sandbox]:
    """The module's sandbox, nobody knowing any neighbour; afterwards it forwards everything."""
    for part in (*(pod.id for pod in shared.topology.pods), "node-1"):
        shared.run(part, ["ip", "neigh", "flush", "all"])
    yield shared
    shared.run("node-1", ["ovs-ofctl", "del-flows", "br-int"])
    shared.run("node-1", ["ovs-ofctl", "add-flow", "br-int", "priority=0,actions=NORMAL"])


@contextlib.contextmanager
def stuttering(sandbox: Sandbox, *, works: float = 0.02, sleeps: float = 0.25) -> Iterator[None]:
    """Let the switch of the node under test run for ``works`` seconds at a time, ``sleeps`` seconds apart."""
    pid = int((sandbox.switches["node-1"].directory / "ovs-vswitchd.pid").read_text(encoding="ascii"))
    over = threading.Event()

    def stutter() -> None:
        while not over.is_set():
            os.kill(pid, signal.SIGSTOP)
            over.wait(sleeps)
            os.kill(pid, signal.SIGCONT)
            time.sleep(works)

    thread = threading.Thread(target=stutter)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_a_slow_switch_denies_nobody(sandbox: Sandbox) -> None:
    with stuttering(sandbox):
        matrix = sandbox.matrix()
    assert len(matrix.cells) == 9 * 9 * (3 * 2 + 1) * 2
    assert matrix.select(Outcome.ALLOWED) == matrix.cells


def test_a_slow_switch_still_denies(sandbox: Sandbox) -> None:
    (target,) = (pod for pod in sandbox.topology.pods if pod.id == "x/a")
    (stranger,) = (pod for pod in sandbox.topology.pods if pod.id == "x/b")
    for at, family in enumerate(("ip", "ipv6")):
        match = f"nw_src={stranger.addresses[at]},nw_dst={target.addresses[at]}".replace("nw_", "nw_" if family == "ip" else "ipv6_")
        sandbox.run("node-1", ["ovs-ofctl", "add-flow", "br-int", f"priority=5,{family},{match},actions=drop"])
    with stuttering(sandbox):
        matrix = sandbox.matrix(destinations=["x/a"])
    denied = {(cell.source, cell.destination) for cell in matrix.select(Outcome.DENIED)}
    # ICMP neighbour discovery from x/b to x/a goes to a multicast address, what is denied here is everything else
    assert denied == {("x/b", "x/a")}
    assert set(matrix.cells) - matrix.allowed == {cell for cell in matrix.cells if cell.source == "x/b"}


def test_a_daemon_is_there_when_it_listens(tmp_path: Path) -> None:
    """ovsdb-server binds its socket a moment before it takes connections: ovs-vsctl was refused in between."""
    path = tmp_path / "db.sock"
    assert not listens(path)
    with socket.socket(socket.AF_UNIX) as daemon:
        daemon.bind(str(path))
        assert not listens(path)
        daemon.listen()
        assert listens(path)
    assert not listens(path)
