"""Sets: long lists of ports, and changes in bulk."""

from __future__ import annotations

import re
from collections.abc import Iterable

import pytest
from backend_programs import IN, endpoint, isolated, policy, program, rule
from ipt_namespace import Namespace
from ipt_simulator import Simulator, stages

from polyplane.ir.cidr import Cidr
from polyplane.ir.evaluate import Packet
from polyplane.ir.members import Members
from polyplane.ir.program import EMPTY, Action, AddressSet, PortRange, Program, SetId
from polyplane.reconcile.diff import diff
from polyplane_iptables.decisions import Style
from polyplane_iptables.layout import Layout
from polyplane_iptables.plan import plan

SINGLE = tuple(PortRange(port, port + port % 3) for port in range(1000, 1400, 10))
LONG = (PortRange(20000, 29999), PortRange(40000, 40063))
NAMES = tuple(f"peers-{at}" for at in range(8))


def peers(name: str, members: Iterable[str]) -> AddressSet:
    return AddressSet(id=SetId(name), label=name, members=Members(map(Cidr.parse, members)))


def many_ports() -> Program:
    allow = policy(IN, rule("many", IN, 0, sets=NAMES, protocol=6, ports=(*SINGLE, *LONG), not_source_ports=SINGLE))
    sets = [peers(name, [f"10.1.0.{at}"]) for at, name in enumerate(NAMES)]
    return program(endpoint("a", "veth-a", "10.0.0.1", "fd00::1", ingress=isolated(IN, allow)), allow, *sets)


def number_of_rules(wanted: Program, style: Style) -> int:
    return sum(len(chain.rules) for chain in Layout.of(wanted, style).native({}).filters[4].chains.values())


def test_ports_and_peers_do_not_multiply() -> None:
    """Eight sets of peers, 40 short ranges and two long ones, and what is left of the source ports: not 8 · 4 · 7 rules."""
    with_sets, without = (number_of_rules(many_ports(), Style(port_sets=some)) for some in (True, False))
    assert with_sets < 60 < without


@pytest.mark.parametrize("port_sets", [True, False])
def test_long_lists_of_ports_decide_alike(port_sets: bool) -> None:
    native = Layout.of(many_ports(), Style(port_sets=port_sets)).native({})
    assert bool(native.ports) is port_sets

    def passes(port: int, source_port: int = 5) -> bool:
        packet = Packet(source=Cidr.parse("10.1.0.7"), destination=Cidr.parse("10.0.0.1"), protocol=6, source_port=source_port, port=port)
        return Simulator(native).forward(packet, "uplink", "veth-a").allowed

    for port in (1000, 1011, 1390, 20000, 25000, 29999, 40063):
        assert passes(port), port
        assert not passes(port, source_port=1000)
    assert not any(map(passes, (999, 1002, 1013, 1392, 19999, 30000, 40064)))


@pytest.mark.netns
def test_sets_of_ports_are_repaired_and_go(namespace: Namespace) -> None:
    backend, wanted = namespace.backend(), many_ports()
    backend.polyplane_apply(diff(EMPTY, wanted))
    assert namespace.backend().polyplane_apply(diff(EMPTY, wanted)).operations == 0
    whole = namespace.rules()
    name = next(line.split()[1] for line in namespace.run("ipset", "save").splitlines() if re.fullmatch("add polyplane-p-.* 1000", line))
    for damage in (f"add {name} 7-9", f"del {name} 1000", f"flush {name}"):
        namespace.run("ipset", *damage.split())
        assert backend.polyplane_audit(wanted)
        assert backend.polyplane_apply(diff(EMPTY, wanted)).operations
        assert backend.polyplane_audit(wanted) == ()
        assert sorted(namespace.rules().splitlines()) == sorted(whole.splitlines())
    backend.polyplane_apply(diff(wanted, EMPTY))
    assert namespace.run("ipset", "list", "-n") == ""


def crowd(start: int, size: int, names: tuple[str, str] = ("one", "two")) -> Program:
    """A pod that so many peers may reach, and as many others may not, 172.16 among both."""
    near_name, far_name = names
    shared = f"172.16.{start >> 8}.{start & 255}"
    near = peers(near_name, (shared, *(f"10.{at >> 8}.{at & 255}.1" for at in range(start, start + size))))
    far = peers(far_name, (shared, *(f"192.168.{at >> 8}.{at & 255}" for at in range(start, start + size))))
    both = policy(IN, rule("far", IN, 0, Action.DENY, sets=(far_name,)), rule("near", IN, 1, sets=(near_name,)))
    return program(endpoint("a", "veth-a", "10.0.0.1", ingress=isolated(IN, both)), both, near, far)


@pytest.mark.parametrize("names", [("one", "two"), ("two", "one")])
def test_a_set_that_changes_in_bulk_is_swapped(names: tuple[str, str]) -> None:
    old, new = crowd(0, 1000, names), crowd(900, 1000, names)
    layout = Layout.of(old)
    native = layout.native({})
    layout.follow(diff(old, new))
    made = plan(native, layout.native({}))
    assert sum(line.startswith("swap ") for step in made.steps for line in step.text.splitlines()) == 4
    packets = [
        Packet(source=Cidr.parse(source), destination=Cidr.parse("10.0.0.1"), protocol=6, source_port=1, port=1)
        for source in ("10.0.1.1", "192.168.0.1", "10.3.133.1", "10.7.100.1", "192.168.7.100", "172.16.0.0", "172.16.3.132")
    ]
    first, last = Simulator(native), Simulator(layout.native({}))
    may = [first.forward(packet, "uplink", "veth-a").allowed or last.forward(packet, "uplink", "veth-a").allowed for packet in packets]
    assert may == [True, False, True, True, False, False, False]
    for _ in stages(native, made):
        for packet, allowed in zip(packets, may, strict=True):
            assert allowed or not Simulator(native).forward(packet, "uplink", "veth-a").allowed
    assert native == layout.native({})


@pytest.mark.netns
def test_the_kernel_swaps_and_keeps_no_spare_set(namespace: Namespace) -> None:
    backend = namespace.backend()
    backend.polyplane_apply(diff(EMPTY, crowd(0, 1000)))
    names = namespace.run("ipset", "list", "-n")
    backend.polyplane_apply(diff(crowd(0, 1000), crowd(900, 1000)))
    assert backend.polyplane_audit(crowd(900, 1000)) == ()
    assert namespace.run("ipset", "list", "-n") == names
    # What a crash between filling and swapping leaves behind.
    namespace.run("ipset", "create", "polyplane-x-0123456789abcdef", "hash:net")
    assert namespace.backend().polyplane_audit(crowd(900, 1000))
    namespace.backend().polyplane_apply(diff(EMPTY, crowd(900, 1000)))
    assert namespace.run("ipset", "list", "-n") == names
