from __future__ import annotations

from collections.abc import Iterator

import pytest

from polyplane_conformance.needs import require
from polyplane_conformance.sandbox import Sandbox, Topology, Wiring
from polyplane_ovs.backend import OvsBackend


@pytest.fixture(scope="module")
def shared() -> Iterator[Sandbox]:
    require("ovs-vswitchd")
    with Sandbox.build(Topology.grid(namespaces="x", names="abcd"), Wiring.BRIDGE) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(shared: Sandbox) -> Iterator[Sandbox]:
    """The module's sandbox; afterwards nothing of ours is there, and the switch and its own flow are."""
    yield shared
    OvsBackend(shared.backend_options()).polyplane_teardown()
    shared.run("node-1", ["ovs-vsctl", "set-fail-mode", "br-int", "secure"])
    shared.run("node-1", ["ovs-ofctl", "add-flow", "br-int", "priority=0,actions=NORMAL"])
