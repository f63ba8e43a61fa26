"""What every test of the core starts from."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import structlog


@pytest.fixture(autouse=True)
def _logs_as_at_the_start() -> Iterator[None]:
    """Commands configure the log of the whole process."""
    yield
    structlog.reset_defaults()
