from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ipt_namespace import Namespace

from polyplane_conformance.sandbox.lone import lone_node

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Compare a text with the golden file of that name."""

    def compare(name: str, text: str) -> None:
        path = GOLDEN / f"{name}.txt"
        if request.config.getoption("--update-golden", default=False):
            path.write_text(text)
        assert path.exists(), f"run pytest {Path(__file__).parent} --update-golden to write {path.name}"
        assert text == path.read_text()

    return compare


@pytest.fixture(params=["nft", "legacy"])
def namespace(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Namespace]:
    """An empty network namespace for each variant; gone afterwards, also after a failure."""
    with lone_node("ipt") as node:
        yield Namespace(node.name, request.param, str(tmp_path / "xtables.lock"))
