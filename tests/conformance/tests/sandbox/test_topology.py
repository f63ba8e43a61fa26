from __future__ import annotations

import io

import pytest
from rich.console import Console

from polyplane_conformance.probe.model import Outcome, Result, Traffic
from polyplane_conformance.reachability import Cell, Reachability, render
from polyplane_conformance.sandbox import NodeSpec, PodSpec, Topology, TopologyError
from polyplane_conformance.sandbox.topology import interface_name


def pod(name: str, *addresses: str, node: str = "") -> PodSpec:
    return PodSpec(namespace="x", name=name, addresses=addresses, node=node)


@pytest.mark.parametrize(
    ("pods", "problem"),
    [
        ([pod("a", "10.0.0.1"), pod("a", "10.0.0.2")], "name 'x/a' is used 2 times"),
        ([pod("a", "fd00::1"), pod("b", "fd00:0::1")], "address 'fd00::1' is used 2 times"),
        ([pod("a", "172.31.250.1")], "address '172.31.250.1' is used 2 times"),
        ([pod("a", "10.0.0")], "'10.0.0' is not an IP address"),
        ([pod("a")], "needs an address"),
        ([pod("a", "10.0.0.1", node="node-9")], "node 'node-9' is not in the topology"),
        ([PodSpec(namespace="x", name="a", addresses=("10.0.0.1",), interface="sixteen-letters-")], "longer than 15"),
    ],
)
def test_contradictions_are_told(pods: list[PodSpec], problem: str) -> None:
    with pytest.raises(TopologyError, match=problem):
        Topology(pods=tuple(pods))


def test_a_remote_pod_needs_a_way_for_its_family() -> None:
    nodes = (NodeSpec(name="one", addresses=("10.1.0.1",)), NodeSpec(name="two", addresses=("10.1.0.2", "fd01::2")))
    Topology(nodes=nodes, hosts=(), pods=(pod("a", "10.0.0.1", node="two"), pod("b", "10.0.0.2", "fd00::2")))
    with pytest.raises(TopologyError, match="lack an address"):
        Topology(nodes=nodes, hosts=(), pods=(pod("a", "fd00::1", node="two"),))


def test_interface_names_fit_and_do_not_collide() -> None:
    assert PodSpec(namespace="x", name="a").host_interface == "pp-x_a"
    long = [interface_name("pp-", f"a-long-namespace_pod-{number}") for number in range(100)]
    assert len(set(long)) == 100
    assert {len(name) for name in long} == {15}
    assert PodSpec(namespace="a-b", name="c").host_interface != PodSpec(namespace="a", name="b-c").host_interface


def test_a_matrix_is_compared_with_what_should_be() -> None:
    traffic = Traffic.parse("tcp/80")
    cells = {name: Cell("x/a", name, traffic) for name in ("open", "closed", "refused", "broken", "absent")}
    outcomes = {"open": Outcome.ALLOWED, "closed": Outcome.DENIED, "refused": Outcome.REJECTED, "broken": Outcome.BROKEN}
    matrix = Reachability(
        sources=("x/a",),
        destinations=tuple(cells),
        traffic=(traffic,),
        cells={cells[name]: Result(outcome=outcome) for name, outcome in outcomes.items()},
    )
    right = {cells["open"]: True, cells["closed"]: False, cells["refused"]: False}
    assert matrix.differences(right) == ()
    assert [difference.cell for difference in matrix.differences({cell: not allowed for cell, allowed in right.items()})] == list(right)
    never_right = [cells["broken"], cells["absent"]]
    for expected in (True, False):
        assert [difference.cell for difference in matrix.differences(dict.fromkeys(never_right, expected))] == never_right
    assert len(matrix.to_json()["cells"]) == 4
    assert str(matrix) == "1 allowed, 1 denied, 1 rejected, 1 broken"


def test_rendering_shows_changes_and_marks_differences() -> None:
    both = [Traffic.parse("tcp/80", family) for family in (4, 6)]
    before = Reachability.expected({Cell("x/a", name, kind): True for name in ("y/a", "y/b") for kind in both})
    after = Reachability.expected({cell: cell.destination == "y/a" for cell in before.cells})
    console = Console(width=100, file=io.StringIO(), record=True, color_system="standard", force_terminal=True)

    console.print(render(after, before=before, expected=dict.fromkeys(after.cells, True)))
    styled = console.export_text(styles=True, clear=False)
    text = console.export_text()

    assert text.count("tcp/80 IPv4+IPv6") == 1
    assert "✓→✗" in text
    assert "\x1b[1;7;31m✓→✗" in styled or "\x1b[1;31;7m✓→✗" in styled
