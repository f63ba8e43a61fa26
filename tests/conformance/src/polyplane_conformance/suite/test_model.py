"""Model tier: the compiled program against the written expectations, the oracle, and itself reached by other events."""

from __future__ import annotations

import pytest

from polyplane_conformance.model import PLACEMENTS, check_expanders, check_model
from polyplane_conformance.plugin import Judge
from polyplane_conformance.results import total
from polyplane_conformance.scenario import Scenario

pytestmark = pytest.mark.tier("model")


def test_scenario(scenario: Scenario, judge: Judge) -> None:
    """What is written, what the oracle says and what the program does are the same, wherever the pods are."""
    judge(total(check_model(scenario, placement) for placement in PLACEMENTS.values()))


def test_order_of_events(scenario: Scenario, judge: Judge) -> None:
    """However a state is reached, its program is the same."""
    judge(check_expanders(scenario))
