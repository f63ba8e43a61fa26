"""Render tier, for dataplanes that no packet passes through: what a backend holds, after every step of every scenario."""

from __future__ import annotations

import pytest

from polyplane.plugins import load_backend
from polyplane_conformance.plugin import Backend, Judge
from polyplane_conformance.scenario import Scenario
from polyplane_conformance.state import check_state

pytestmark = [pytest.mark.tier("render"), pytest.mark.without_packets]


def test_state(backend: Backend, scenario: Scenario, judge: Judge) -> None:
    """Each step is brought into force, found in order, not done twice; a restart changes nothing, a teardown leaves nothing."""
    judge(check_state(scenario, lambda: load_backend(backend.name, backend.options)))
