"""Packets while one version takes over from another: none that may pass is lost, none that may not passes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ebpf_cases import SMALL, start
from ebpf_pods import program_of

from polyplane_conformance.probe.model import Probe, Traffic
from polyplane_conformance.sandbox import Sandbox, Topology
from polyplane_ebpf.backend import EbpfBackend

pytestmark = [pytest.mark.netns, pytest.mark.needs("ip")]


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox.build(Topology.grid(namespaces="x", names="abc")) as built:
        yield built
        EbpfBackend({"netns": str(built.node_netns)}).polyplane_teardown()


def test_another_layout_takes_over_without_a_gap(sandbox: Sandbox) -> None:
    program = program_of(sandbox)
    options = {**SMALL, "netns": str(sandbox.node_netns)}
    EbpfBackend(options).polyplane_apply(start(program))
    expected = {
        Probe(source=source, destination="x/a", traffic=Traffic.parse(service, family)): source == "x/b"
        for source in ("x/b", "x/c")
        for service in ("TCP/80", "UDP/80")
        for family in (4, 6)
    }
    with sandbox.barrage(expected, 100) as barrage:
        for sizes, older in (({}, "layout"), ({"max_rows": 8192}, "sizes"), ({"max_rows": 8192}, "without a map")):
            time.sleep(0.5)
            (current,) = Path("/sys/fs/bpf/polyplane").glob(f"v1/ns-{sandbox.node_netns.stat().st_ino}")
            if older == "layout":
                old = current.parents[1] / "v0" / current.name
                old.mkdir(parents=True)
                for pin in current.iterdir():
                    pin.rename(old / pin.name)
                current.rmdir()
            elif older == "without a map":
                (current / "map_refusals").unlink()
            taken = EbpfBackend({**options, **sizes}).polyplane_apply(start(program))
            assert taken.detail["links"] >= 12, "six came, six went"
        time.sleep(0.7)
    report = barrage.stop()
    assert report.clean, str(report)
    assert len(report.shots) > 150
