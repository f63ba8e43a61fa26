from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from polyplane_conformance.sandbox import Sandbox, Topology

NFT_HEAD = """
table inet guard {
    chain forward { type filter hook forward priority filter; ct state established,related accept; jump deny; }
    chain deny { }
}
"""


@pytest.fixture(autouse=True)
def _root(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("netns") and os.geteuid() != 0:
        pytest.skip("network namespaces need root")


@pytest.fixture(scope="module")
def shared() -> Iterator[Sandbox]:
    with Sandbox.build(Topology.grid(remote=["z/b", "z/c"])) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(shared: Sandbox) -> Iterator[Sandbox]:
    """The module's sandbox with an empty firewall on the node: rules go into chain ``deny`` of table ``guard``."""
    shared.run("node-1", ["nft", "-f", "-"], text=NFT_HEAD)
    yield shared
    shared.run("node-1", ["nft", "delete", "table", "inet", "guard"])
