"""`foresee`: what the oracle expects of a scenario that nobody wrote expectations for; and such a scenario as YAML.

The oracle has read the APIs' text and never the compiler, so what it says stands as well as what is written by hand.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

import msgspec
import yaml

from polyplane_conformance.actions import PodSpec
from polyplane_conformance.cast import HOSTS
from polyplane_conformance.expectation import Expectation, Pair, Service, print_table
from polyplane_conformance.model import ask, world_of
from polyplane_conformance.oracle import Oracle
from polyplane_conformance.scenario import Scenario, Step
from polyplane_conformance.world import World

#: What is asked where nobody says what to ask: each protocol, two ports of TCP, all of them served by every pod of the cast.
SERVICES: Final = tuple(Service.parse(text) for text in ("TCP/80", "TCP/81", "UDP/80", "SCTP/80", "ICMP"))


def foresee(scenario: Scenario, actors: Iterable[str], services: Iterable[Service] = SERVICES) -> Scenario:
    """Return the scenario with the oracle's expectations for all pairs of different actors in every step.

    :param actors: who is asked, in addition to the pods that are present in a step; of hosts only how they and pods reach each other
    """
    world = world_of(replace(scenario, steps=(*scenario.steps, Step(actions=(), expectations=(_mention(actors),)))))
    steps = []
    for step in scenario.steps:
        for action in step.actions:
            world.perform(action)
        asked = [*dict.fromkeys([*present(world), *actors])]
        steps.append(replace(step, expectations=tuple(expectations(world, pairs_of(asked), tuple(services)))))
    return replace(scenario, steps=tuple(steps))


def present(world: World) -> list[str]:
    """Return the pods that exist."""
    return [f"{namespace}/{name}" for kind, namespace, name in world.objects if kind == "Pod"]


def pairs_of(actors: Iterable[str]) -> list[Pair]:
    """Return all pairs of different actors of whom at least one is a pod."""
    names = list(actors)
    return [(one, other) for one in names for other in names if one != other and not (one in HOSTS and other in HOSTS)]


def expectations(world: World, pairs: Iterable[Pair], services: Iterable[Service]) -> list[Expectation]:
    """Ask the oracle about a world as it is; services and IP versions that are alike share an expectation."""
    oracle = Oracle(world.objects.values())
    wanted = list(pairs)
    alike: dict[tuple[tuple[bool, ...], int], list[Service]] = {}
    for service in services:
        for family in (4, 6):
            cells = tuple(ask(oracle, world, pair, service, family).allowed for pair in wanted)
            alike.setdefault((cells, family), []).append(service)
    both: dict[tuple[tuple[bool, ...], tuple[Service, ...]], list[int]] = {}
    for (cells, family), group in alike.items():
        both.setdefault((cells, tuple(group)), []).append(family)
    return [
        Expectation(services=group, families=tuple(families), cells=dict(zip(wanted, cells, strict=True)))
        for (cells, group), families in both.items()
    ]


def _mention(actors: Iterable[str]) -> Expectation:
    """An expectation that only makes actors known."""
    return Expectation(services=(), families=(), cells={(actor, actor): True for actor in actors})


def print_scenario(scenario: Scenario) -> str:
    """Return a scenario as `polyplane_conformance.scenario.read_scenarios` reads it."""
    data: dict[str, Any] = {"name": scenario.name, "description": scenario.description, "cast": []}
    data["namespaces"] = {name: dict(labels) for name, labels in scenario.namespaces.items()}
    data["pods"] = {pod: _differences(spec) for pod, spec in scenario.pods.items()}
    data["steps"] = [
        {
            "do": [_without_defaults(msgspec.to_builtins(action), action) for action in step.actions],
            "expect": [
                {
                    "ask": ", ".join(map(str, expectation.services)),
                    "families": list(expectation.families),
                    "table": print_table(expectation.cells) + "\n",
                }
                for expectation in step.expectations
            ],
        }
        for step in scenario.steps
    ]
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=140)


class _Dumper(yaml.SafeDumper):
    """Writes tables as blocks."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def _differences(spec: PodSpec) -> dict[str, Any]:
    return _without_defaults(msgspec.to_builtins(spec), spec)


def _without_defaults(data: Mapping[str, Any], value: msgspec.Struct) -> dict[str, Any]:
    defaults = {
        field.encode_name: field.default_factory() if field.default_factory is not msgspec.NODEFAULT else field.default
        for field in msgspec.structs.fields(value)
    }
    return {key: item for key, item in data.items() if key not in defaults or item != msgspec.to_builtins(_plain(defaults[key]))}


def _plain(default: Any) -> Any:
    """A default as `msgspec.to_builtins` would write it; what has none differs from everything."""
    return object.__name__ if default is msgspec.NODEFAULT else default
