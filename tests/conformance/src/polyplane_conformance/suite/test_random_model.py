"""Model tier on clusters, policies and changes that nobody thought of."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings

from polyplane_conformance.model import check_model
from polyplane_conformance.scenario import Scenario
from polyplane_conformance.strategies import scenarios
from polyplane_conformance.tier_strategies import tiered_scenarios

pytestmark = pytest.mark.tier("model")


_QUIET = [HealthCheck.too_slow, HealthCheck.data_too_large]


@settings(max_examples=60, deadline=None, suppress_health_check=_QUIET, derandomize=True)
@given(scenarios())
def test_oracle_agrees(scenario_: Scenario) -> None:
    """The oracle and the program agree on every pair."""
    outcome = check_model(scenario_)
    assert outcome.passed, outcome.explain(limit=3)


@settings(max_examples=60, deadline=None, suppress_health_check=_QUIET, derandomize=True)
@given(tiered_scenarios())
def test_oracle_agrees_about_tiers(scenario_: Scenario) -> None:
    """The oracle and the program agree where policies of all tiers and kinds meet."""
    outcome = check_model(scenario_)
    assert outcome.passed, outcome.explain(limit=3)
