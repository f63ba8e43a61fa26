"""`shrink`: makes a scenario that fails as small as it can be made in the time, by leaving parts out, large ones first."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import msgspec

from polyplane_conformance.actions import ApplyClusterPolicy, ApplyPolicy, PodSpec
from polyplane_conformance.model import world_of
from polyplane_conformance.scenario import Scenario, Step


def shrink(scenario: Scenario, fails: Callable[[Scenario], bool], seconds: float) -> Scenario:
    """Return the smallest scenario found that still fails; the given one must.

    :param fails: whether a scenario fails; asked only about those that can be played
    """
    deadline = time.monotonic() + seconds
    progress = True
    while progress:
        progress = False
        for candidate in smaller(scenario):
            if time.monotonic() >= deadline:
                return scenario
            if playable(candidate) and fails(candidate):
                scenario, progress = candidate, True
                break
    return scenario


def playable(scenario: Scenario) -> bool:
    """Whether every action finds what it names, and an API server would take every policy."""
    world = world_of(scenario)
    try:
        return all(write.accepted for step in scenario.steps for action in step.actions for write in world.perform(action))
    except KeyError:
        return False


def smaller(scenario: Scenario) -> Iterator[Scenario]:
    """Yield scenarios with something left out: steps, actions, parts of policies, what is special about pods and namespaces."""
    steps = scenario.steps
    for index in reversed(range(len(steps))):
        yield replace(scenario, steps=steps[:index] + steps[index + 1 :])
    for index in range(len(steps) - 1):
        joined = Step(actions=steps[index].actions + steps[index + 1].actions, expectations=())
        yield replace(scenario, steps=(*steps[:index], joined, *steps[index + 2 :]))
    for index, step in enumerate(steps):
        for number, action in enumerate(step.actions):
            before, after = step.actions[:number], step.actions[number + 1 :]
            variants = [(*before, *after)] if len(step.actions) > 1 else []
            if isinstance(action, ApplyPolicy | ApplyClusterPolicy):
                variants += [(*before, msgspec.structs.replace(action, spec=spec), *after) for spec in _less(action.spec)]
            for actions in variants:
                yield replace(scenario, steps=(*steps[:index], replace(step, actions=actions), *steps[index + 1 :]))
    for name, labels in scenario.namespaces.items():
        if labels != {"ns": name}:
            yield replace(scenario, namespaces={**scenario.namespaces, name: {"ns": name}})
    for pod, spec in scenario.pods.items():
        if spec != (plain := PodSpec(node=spec.node, host_network=spec.host_network)):
            yield replace(scenario, pods={**scenario.pods, pod: plain})


def _less(value: Any) -> Iterator[Any]:
    """Yield a JSON value with one part of it left out, outer parts first; a policy's podSelector stays."""
    match value:
        case Mapping():
            for key in value:
                if key != "podSelector":
                    yield {name: item for name, item in value.items() if name != key}
            for key, item in value.items():
                for less in _less(item):
                    yield {**value, key: less}
        case list() | tuple():
            for index in range(len(value)):
                yield [*value[:index], *value[index + 1 :]]
            for index, item in enumerate(value):
                for less in _less(item):
                    yield [*value[:index], less, *value[index + 1 :]]
