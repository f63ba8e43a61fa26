from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ipt_namespace import Namespace

from polyplane_conformance.sandbox.namespaces import new_prefix

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
    name = f"{new_prefix()}ipt"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        yield Namespace(name, request.param, str(tmp_path / "xtables.lock"))
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)
