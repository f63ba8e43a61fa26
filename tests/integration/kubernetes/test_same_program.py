"""Scenarios by way of the API server: whatever happens in the cluster, the program is the one that was reached straight.

Every third one; ``make conformance SOURCE=kubernetes`` plays all of them so, with packets.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from polyplane_conformance.actions import Restart
from polyplane_conformance.cast import plan
from polyplane_conformance.control import ControlPlane, writes_of
from polyplane_conformance.delivery import Direct, ThroughApiServer
from polyplane_conformance.rig import topology_of
from polyplane_conformance.scenario import Scenario, load_scenarios
from polyplane_conformance.world import World


@pytest.fixture(scope="module")
def through() -> Iterator[ThroughApiServer]:
    delivery = ThroughApiServer()
    yield delivery
    delivery.close()


@pytest.mark.parametrize("scenario", load_scenarios()[::3], ids=str)
def test_same_program(scenario: Scenario, through: ThroughApiServer) -> None:
    world = World(scenario, scenario.plan or plan(pod.id for pod in topology_of(scenario).pods))
    direct = Direct()
    through.begin()
    straight, around = ControlPlane(), ControlPlane()
    writes = writes_of(world.objects.values())
    straight.follow(direct.deliver(writes))
    around.follow(through.deliver(writes))
    for step in scenario.steps:
        for action in step.actions:
            writes = world.perform(action)
            straight.follow(direct.deliver(writes))
            if isinstance(action, Restart):
                around = ControlPlane()
                around.follow(through.restart(writes))
            else:
                around.follow(through.deliver(writes))
            for node, program in straight.programs.items():
                assert program.same_content(around.programs[node]), f"after {action} on {node}"
