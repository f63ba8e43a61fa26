from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from ipt_namespace import Namespace

from polyplane_conformance.sandbox.lone import lone_node


@pytest.fixture(params=["nft", "legacy"])
def namespace(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Namespace]:
    """An empty network namespace for each variant; gone afterwards, also after a failure."""
    with lone_node("ipt") as node:
        yield Namespace(node.name, request.param, str(tmp_path / "xtables.lock"))
