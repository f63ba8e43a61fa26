"""`shrink`: makes a scenario that fails as small as it can be made, by leaving parts out, large ones first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, TypeVar

import msgspec

from polyplane_conformance.actions import Action, ApplyClusterPolicy, ApplyPolicy, PodSpec
from polyplane_conformance.model import world_of
from polyplane_conformance.scenario import Scenario, Step

_T = TypeVar("_T")


def shrink(scenario: Scenario, fails: Callable[[Scenario], bool], plays: int) -> Scenario:
    """Return the smallest scenario found that still fails; the given one must.

    :param fails: whether a scenario fails; asked only about those that can be played
    :param plays: how often it may be asked, so that what comes out does not depend on how busy the machine is
    """
    position = in_vain = 0
    candidates = list(smaller(scenario))
    while plays and in_vain < len(candidates):
        candidate = candidates[position % len(candidates)]
        if playable(candidate):
            plays -= 1
            if fails(candidate):
                # On from here rather than from the start: what could not be left out before seldom can be now.
                scenario, in_vain = candidate, 0
                candidates = list(smaller(scenario))
                continue
        position += 1
        in_vain += 1
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
    plain = {pod: PodSpec(node=spec.node, host_network=spec.host_network) for pod, spec in scenario.pods.items()}
    if plain != scenario.pods:
        yield replace(scenario, pods=plain, namespaces={name: {"ns": name} for name in scenario.namespaces})
    for fewer in _fewer(steps):
        yield replace(scenario, steps=fewer)
    for index in range(len(steps) - 1):
        joined = Step(actions=steps[index].actions + steps[index + 1].actions, expectations=())
        yield replace(scenario, steps=(*steps[:index], joined, *steps[index + 2 :]))
    for index, step in enumerate(steps):
        for actions in (*_fewer(step.actions), *_simpler(step.actions)):
            yield replace(scenario, steps=(*steps[:index], replace(step, actions=actions), *steps[index + 1 :]))
    for name, labels in scenario.namespaces.items():
        if labels != {"ns": name}:
            yield replace(scenario, namespaces={**scenario.namespaces, name: {"ns": name}})
    for pod, spec in scenario.pods.items():
        if spec != plain[pod]:
            yield replace(scenario, pods={**scenario.pods, pod: plain[pod]})


def _fewer(items: tuple[_T, ...]) -> Iterator[tuple[_T, ...]]:
    """Yield the items with some next to each other left out, never all: halves first, single ones last, from the end."""
    size = len(items) // 2
    while size:
        for start in reversed(range(0, len(items), size)):
            yield items[:start] + items[start + size :]
        size //= 2


def _simpler(actions: tuple[Action, ...]) -> Iterator[tuple[Action, ...]]:
    """Yield the actions with a part of one policy left out."""
    for number, action in enumerate(actions):
        if isinstance(action, ApplyPolicy | ApplyClusterPolicy):
            for spec in _less(action.spec):
                yield (*actions[:number], msgspec.structs.replace(action, spec=spec), *actions[number + 1 :])


def _less(value: Any) -> Iterator[Any]:
    """Yield a JSON value with one part of it left out, outer parts first.

    A policy's podSelector stays, and all of its subject: with less of it, pods of nodes could be meant that nobody enforces for.
    """
    match value:
        case Mapping():
            for key in value:
                if key not in {"podSelector", "subject"}:
                    yield {name: item for name, item in value.items() if name != key}
            for key, item in value.items():
                if key != "subject":
                    for less in _less(item):
                        yield {**value, key: less}
        case list() | tuple():
            for index in range(len(value)):
                yield [*value[:index], *value[index + 1 :]]
            for index, item in enumerate(value):
                for less in _less(item):
                    yield [*value[:index], less, *value[index + 1 :]]
