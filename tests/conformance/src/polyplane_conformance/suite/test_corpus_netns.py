"""Foreign cases with real packets."""

from __future__ import annotations

import pytest

from polyplane_conformance.plugin import Backend, Judge
from polyplane_conformance.rig import Rigs, play, topology_of
from polyplane_conformance.scenario import Scenario

pytestmark = [pytest.mark.tier("netns"), pytest.mark.netns]


def test_case(backend: Backend, case: Scenario, rigs: Rigs, judge: Judge) -> None:
    """The foreign suite's expected table is what packets meet."""
    judge(play(rigs.get(topology_of(case), backend), case))
