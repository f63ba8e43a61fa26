"""Model tier on clusters, policies and changes that nobody thought of."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings

from polyplane_conformance.model import check_model
from polyplane_conformance.scenario import Scenario
from polyplane_conformance.strategies import scenarios

pytestmark = pytest.mark.tier("model")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large], derandomize=True)
@given(scenarios())
def test_oracle_agrees(scenario_: Scenario) -> None:
    """The oracle and the program agree on every pair."""
    outcome = check_model(scenario_)
    assert outcome.passed, outcome.explain(limit=3)
