"""Netns tier: generated cases with real packets, when they are asked for."""

from __future__ import annotations

import pytest

from polyplane_conformance.foresee import foresee
from polyplane_conformance.generate import ACTORS
from polyplane_conformance.plugin import Backend, Judge
from polyplane_conformance.rig import Rigs, play, topology_of
from polyplane_conformance.scenario import Scenario

pytestmark = [pytest.mark.tier("netns"), pytest.mark.netns]


def test_generated(backend: Backend, generated: Scenario, rigs: Rigs, judge: Judge, pytestconfig: pytest.Config) -> None:
    """What the oracle says is what packets meet."""
    record = pytestconfig.getoption("--polyplane-pcap")
    judge(play(rigs.get(topology_of(generated), backend), foresee(generated, ACTORS), record=record))
