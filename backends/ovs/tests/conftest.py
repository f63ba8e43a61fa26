from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from polyplane_conformance.needs import require
from polyplane_conformance.sandbox import Sandbox, Topology, Wiring
from polyplane_ovs.backend import OvsBackend

GOLDEN = Path(__file__).parent / "golden"


def pytest_addoption(parser: pytest.Parser) -> None:
    # every backend's tests have this option; the first to ask gets it
    try:
        parser.addoption("--update-golden", action="store_true", help="rewrite golden files instead of comparing with them")
    except ValueError as error:
        if "already added" not in str(error):
            raise


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Compare a text with the golden file of that name."""

    def compare(name: str, text: str) -> None:
        path = GOLDEN / f"{name}.flows"
        if request.config.getoption("--update-golden", default=False):
            path.write_text(text)
        assert path.exists(), f"run pytest {Path(__file__).parent} --update-golden to write {path.name}"
        assert text == path.read_text()

    return compare


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
