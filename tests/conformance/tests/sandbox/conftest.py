from __future__ import annotations

from collections.abc import Iterator

import pytest

from polyplane_conformance.sandbox import Sandbox, Topology

NFT_HEAD = """
table inet guard {
    chain forward { type filter hook forward priority filter; ct state established,related accept; jump deny; }
    chain deny { }
}
"""


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
