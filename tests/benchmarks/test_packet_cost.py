"""What one packet and one change cost in the kernel, as ratios and counts of one run: contracts 8 and 9 of the architecture.

Cost is the CPU time of whatever touches the packet; of many short rounds, in turns, the cheapest counts, because whoever else
uses the machine can only make one dearer.
"""

from __future__ import annotations

from contextlib import ExitStack
from itertools import pairwise

import pytest

from polyplane.ir.program import EMPTY
from polyplane.reconcile.diff import diff
from polyplane_bench import layouts
from polyplane_bench.packets import Variant, ends, node, plane, wiring_of
from polyplane_bench.page_packets import FLAT
from polyplane_bench.programs import Load, grown, program, shortened
from polyplane_bench.settings import BACKENDS, missing
from polyplane_bench.traffic import Wire

pytestmark = pytest.mark.netns

ONE = Load(policies=1)
MANY = Load(policies=300, spread=False)
OF_OTHERS = {
    "pods and policies of others": Load(policies=500, endpoints=250),
    "addresses": Load(policies=1, addresses=10_000),
}
ROUNDS, SECONDS = 40, 0.006


def available(backend: str) -> None:
    if reason := missing(backend):
        pytest.skip(f"{backend}: {reason}")


def cheapest(wires: list[Wire]) -> list[float]:
    """CPU seconds of a datagram on each wire."""
    best = [float("inf")] * len(wires)
    for _ in range(ROUNDS):
        for at, wire in enumerate(wires):
            found = wire.udp(SECONDS)
            assert found.units, "nothing arrives"
            best[at] = min(best[at], found.cpu / found.units)
    return best


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_packet_does_not_pay_for_what_else_there_is(backend: str) -> None:
    """Nor for the policies of its own pod, where the dataplane has maps; iptables renders the rules themselves."""
    available(backend)
    loads = {"one": ONE, **OF_OTHERS} | ({} if backend.startswith("iptables") else {"policies of its pod": MANY})
    with ExitStack() as stack:
        variants = [Variant(layout=backend, load=load, wiring=wiring_of(backend)) for load in loads.values()]
        one, *others = cheapest([stack.enter_context(node(variant))[0] for variant in variants])
    found = {what: cost / one for what, cost in zip(list(loads)[1:], others, strict=True)}
    assert max(found.values()) <= FLAT, found


@pytest.mark.needs("iptables-legacy-restore")
def test_the_measure_sees_what_grows() -> None:
    with ExitStack() as stack:
        variants = [Variant(layout="linear", load=load, lay=layouts.linear("legacy")) for load in (ONE, MANY)]
        one, many = cheapest([stack.enter_context(node(variant))[0] for variant in variants])
    assert many > one * 2


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_change_does_not_pay_for_what_else_there_is(backend: str) -> None:
    """An address that joins a set and leaves it, a policy that goes and comes back: as many native operations among ten times as many
    pods and policies. The same once more, as after a restart, is none."""
    available(backend)
    counted = []
    for load in (Load(policies=20), Load(policies=200, endpoints=100)):
        base = program(load, *ends())
        steps = [EMPTY, base, grown(base), base, shortened(base), base]
        with plane(backend) as (_, made):
            operations = [made.apply(diff(before, after)).operations for before, after in pairwise(steps)]
            assert made.apply(diff(EMPTY, base)).operations == 0
        counted.append(operations[1:])
    assert counted[0] == counted[1]
    assert counted[0][:2] == [1, 1]
    assert all(counted[0])
