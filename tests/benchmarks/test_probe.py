"""The probe of the kit tells a way that is closed from a switch that is busy, and refuses to measure what was there before."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from polyplane_bench.packets import CLIENT, SERVER, TOPOLOGY
from polyplane_bench.probe import Probe, WrongStateError
from polyplane_bench.traffic import pid_in
from polyplane_conformance.sandbox import Sandbox, Wiring

pytestmark = [pytest.mark.netns, pytest.mark.needs("ovs-vswitchd")]

PORT, ALWAYS = 7000, 7001


class Way:
    """A switch between two pods, and a flow that closes one port."""

    def __init__(self, sandbox: Sandbox, probe: Probe) -> None:
        self._sandbox, self.probe = sandbox, probe
        self.switch = pid_in(sandbox.switches["node-1"].directory / "ovs-vswitchd.pid")

    def close(self) -> None:
        self._flows("add-flow", f"priority=99,udp,tp_dst={PORT},actions=drop")

    def open(self) -> None:
        self._flows("del-flows", f"udp,tp_dst={PORT}")

    def _flows(self, *argv: str) -> None:
        self._sandbox.run("node-1", ["ovs-ofctl", argv[0], "br-int", *argv[1:]])


@pytest.fixture
def way() -> Iterator[Way]:
    with ExitStack() as stack:
        sandbox = stack.enter_context(Sandbox.build(TOPOLOGY, Wiring.BRIDGE))
        beside = stack.enter_context(Probe(sandbox, CLIENT, SERVER, ALWAYS))
        yield Way(sandbox, stack.enter_context(Probe(sandbox, CLIENT, SERVER, PORT, beside=beside)))


def test_a_busy_switch_is_no_closed_way(way: Way) -> None:
    """The switch forwards nothing for ten times as long as a closed way takes to be seen, and only then takes in the flow that closes it."""
    awake: list[float] = []

    def wake() -> None:
        time.sleep(10 * Probe.CLOSED)
        awake.append(time.monotonic())
        os.kill(way.switch, signal.SIGCONT)
        way.close()

    waker = threading.Thread(target=wake)

    def change() -> None:
        os.kill(way.switch, signal.SIGSTOP)
        waker.start()

    began = time.monotonic()
    try:
        seconds = way.probe.closes(change, limit=30)
    finally:
        os.kill(way.switch, signal.SIGCONT)
        waker.join()
    assert began + seconds >= awake[0]
    # What was held back has been accounted for: nothing of it passes for the effect of the change that opens the way.
    assert way.probe.opens(way.open) > 0


def test_what_was_there_before_is_not_measured(way: Way) -> None:
    def close_at_once() -> None:
        way.close()
        way.probe.until_closed()

    with pytest.raises(WrongStateError, match="open although"):
        way.probe.opens(way.open)
    close_at_once()
    with pytest.raises(RuntimeError, match="does not open"):
        way.probe.closes(way.close, limit=0.2)
    assert way.probe.opens(way.open) > 0
    with pytest.raises(WrongStateError, match="as soon as"):
        way.probe.closes(close_at_once)
