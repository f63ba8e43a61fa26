from __future__ import annotations

from collections.abc import Iterator

import pytest
from nft_namespace import Namespace

from polyplane_conformance.sandbox.lone import lone_node


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    """An empty network namespace; gone afterwards, also after a failure."""
    with lone_node("nft") as node:
        yield Namespace(node.name)
