"""What one packet and one change cost in the kernel, as ratios and counts of one run: contracts 8 and 9 of the architecture.

Cost is the CPU time of whatever touches the packet; of many short rounds, in turns, the cheapest counts, because whoever else
uses the machine can only make one dearer.
"""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from polyplane.hookspecs import BACKENDS
from polyplane.ir.program import EMPTY
from polyplane.plugins import list_plugins
from polyplane.reconcile.diff import diff
from polyplane_bench import layouts
from polyplane_bench.packets import Variant, ends, node, plane, wiring_of
from polyplane_bench.page_packets import FLAT
from polyplane_bench.programs import Load, grown, program
from polyplane_bench.traffic import Wire
from polyplane_conformance.needs import require

pytestmark = pytest.mark.netns

MANY = Load(policies=300, spread=False)
ONE = Load(policies=1)
ROUNDS, SECONDS = 40, 0.006


def available(name: str) -> None:
    if name not in {plugin.name for plugin in list_plugins(BACKENDS)}:
        pytest.skip(f"{name} is not installed")
    if name == "ovs":
        require("ovs-vswitchd")


def cheapest(wires: list[Wire]) -> list[float]:
    """CPU seconds of a datagram on each wire."""
    best = [float("inf")] * len(wires)
    for _ in range(ROUNDS):
        for at, wire in enumerate(wires):
            found = wire.udp(SECONDS)
            assert found.units, "nothing arrives"
            best[at] = min(best[at], found.cpu / found.units)
    return best


@pytest.mark.parametrize("backend", ["nftables", "ebpf", "ovs"])
def test_a_packet_does_not_pay_for_the_number_of_policies(backend: str) -> None:
    available(backend)
    wiring = wiring_of(backend)
    with ExitStack() as stack:
        wires = [stack.enter_context(node(Variant(layout=backend, load=load, wiring=wiring)))[0] for load in (ONE, MANY)]
        one, many = cheapest(wires)
    assert many <= one * FLAT


@pytest.mark.needs("iptables-legacy-restore")
def test_the_measure_sees_what_grows() -> None:
    with ExitStack() as stack:
        variants = [Variant(layout="linear", load=load, lay=layouts.linear("legacy")) for load in (ONE, MANY)]
        one, many = cheapest([stack.enter_context(node(variant))[0] for variant in variants])
    assert many > one * 2


@pytest.mark.parametrize("backend", ["nftables", "iptables-nft", "iptables-legacy", "ebpf", "ovs"])
def test_a_change_does_not_pay_for_the_number_of_policies(backend: str) -> None:
    """One address more in one of many sets is as many native operations among 200 policies as among 2."""
    available(backend.partition("-")[0])
    counted = []
    for policies in (2, 200):
        with plane(backend) as (_, made):
            before = program(Load(policies=policies), *ends())
            made.apply(diff(EMPTY, before))
            after = grown(before)
            counted.append(made.apply(diff(before, after)).operations)
            assert made.apply(diff(EMPTY, after)).operations == 0  # the same once more, as after a restart
    assert counted[0] == counted[1] > 0
