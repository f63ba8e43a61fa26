"""What one packet and one change cost in the kernel, as ratios and counts of one run: contracts 8 and 9 of the architecture.

Cost is the CPU time of whatever touches the packet; of many short rounds, in turns, the cheapest counts, because whoever else
uses the machine can only make one dearer.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from polyplane.hookspecs import BACKENDS
from polyplane.ir.cidr import Cidr
from polyplane.ir.members import Members
from polyplane.ir.program import EMPTY, AddressSet, Program, SetId
from polyplane.plugins import Dataplane, list_plugins, load_backend
from polyplane.reconcile.diff import diff
from polyplane_bench import layouts
from polyplane_bench.packets import SERVER, TOPOLOGY, Variant, node
from polyplane_bench.page_packets import FLAT
from polyplane_bench.programs import Load, Pod, peer_address, program
from polyplane_bench.traffic import Wire
from polyplane_conformance.needs import require
from polyplane_conformance.sandbox import Sandbox, Wiring

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
    wiring = Wiring.BRIDGE if backend == "ovs" else Wiring.ROUTED
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


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox.build(TOPOLOGY) as made:
        yield made


@pytest.mark.parametrize("backend", ["nftables", "iptables-nft", "iptables-legacy", "ebpf"])
def test_a_change_does_not_pay_for_the_number_of_policies(backend: str, sandbox: Sandbox) -> None:
    """One address more in one of many sets is as many native operations among 200 policies as among 2."""
    name, _, variant = backend.partition("-")
    available(name)
    client, server = (Pod(id=spec.id, interface=spec.host_interface, address=spec.addresses[0]) for spec in sandbox.topology.pods)
    assert server.id == SERVER.id
    counted = []
    for policies in (2, 200):
        plane = load_backend(name, sandbox.backend_options() | ({"variant": variant} if variant else {}))
        before = program(Load(policies=policies), client, server)
        plane.apply(diff(EMPTY, before))
        after = grown(before)
        counted.append(plane.apply(diff(before, after)).operations)
        assert again(plane, after) == 0
        plane.teardown()
    assert counted[0] == counted[1] > 0


def grown(base: Program) -> Program:
    first = base.sets[SetId("s000000")]
    members = Members([*first.members, Cidr.parse(peer_address(1 << 17))])
    return Program(
        endpoints=base.endpoints,
        policies=base.policies,
        sets={**base.sets, first.id: AddressSet(id=first.id, label=first.label, members=members)},
    )


def again(plane: Dataplane, wanted: Program) -> int:
    """Operations of the same once more, as after a restart."""
    return plane.apply(diff(EMPTY, wanted)).operations
