"""Model tier: generated cases, some of them unless all are asked for."""

from __future__ import annotations

import pytest

from polyplane_conformance.model import check_model
from polyplane_conformance.plugin import Judge
from polyplane_conformance.scenario import Scenario

pytestmark = pytest.mark.tier("model")


def test_generated(generated: Scenario, judge: Judge) -> None:
    """The oracle and the program agree on every pair."""
    judge(check_model(generated))
