"""Netns tier: every scenario with real packets."""

from __future__ import annotations

import pytest

from polyplane_conformance.plugin import Backend, Judge
from polyplane_conformance.rig import Rigs, play, topology_of
from polyplane_conformance.scenario import Scenario

pytestmark = [pytest.mark.tier("netns"), pytest.mark.netns]


def test_scenario(backend: Backend, scenario: Scenario, rigs: Rigs, judge: Judge, pytestconfig: pytest.Config) -> None:
    """What is written is what packets meet."""
    judge(play(rigs.get(topology_of(scenario), backend), scenario, record=pytestconfig.getoption("--polyplane-pcap")))
