from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

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
