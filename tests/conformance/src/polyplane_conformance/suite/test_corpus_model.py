"""Foreign cases in the model tier."""

from __future__ import annotations

import pytest

from polyplane_conformance.model import check_model
from polyplane_conformance.plugin import Judge
from polyplane_conformance.scenario import Scenario

pytestmark = pytest.mark.tier("model")


def test_case(case: Scenario, judge: Judge) -> None:
    """The foreign suite's expected table, the oracle and the program agree."""
    judge(check_model(case))
