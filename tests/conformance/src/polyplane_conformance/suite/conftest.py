"""What the netns tier shares: sandboxes, built once for all scenarios whose pods are in the same places."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from polyplane_conformance.plugin import Backend
from polyplane_conformance.rig import Rigs, topology_of
from polyplane_conformance.scenario import Scenario
from polyplane_conformance.stage import BARE, Stage


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put scenarios that can share a sandbox next to each other."""
    order: dict[str, int] = {}

    def key(item: pytest.Item) -> int:
        marker = item.get_closest_marker("tier")
        params = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
        subject = params.get("scenario") or params.get("case")
        if marker is None or marker.args[0] != "netns" or not isinstance(subject, Scenario):
            return -1
        place = f"{params['backend']} {topology_of(subject)}"
        return order.setdefault(place, len(order))

    items.sort(key=key)


@pytest.fixture(scope="session")
def rigs(pytestconfig: pytest.Config) -> Iterator[Rigs]:
    """The sandboxes of this run."""
    if os.geteuid() != 0:
        if pytestconfig.getoption("--polyplane-tier"):
            pytest.fail("the netns tier makes network namespaces, which needs root; run this with sudo", pytrace=False)
        pytest.skip("the netns tier makes network namespaces, which needs root")
    made = Rigs()
    yield made
    made.close()


@pytest.fixture
def stage(rigs: Rigs, backend: Backend) -> Stage:
    """The shared cast in a sandbox, enforced by the backend on trial; no policy yet."""
    return Stage(rigs.get(topology_of(BARE), backend))
