"""`Scenario` and its loader: one situation, its steps and what must be reachable after each.

Scenarios are YAML documents, several in a file; ``README.md`` describes the format, the schema is in this module.
Everything is checked while loading: a misspelt key, actor or verb is an error that names file and scenario.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import msgspec
import yaml

from polyplane_conformance.actions import Action, AddPod, FinishPod, PodSpec, RemoveNamespace, RemovePod, read_action
from polyplane_conformance.cast import HOSTS, NAMESPACES, PODS, AddressPlan
from polyplane_conformance.expectation import Expectation, Service, read_lines, read_table

#: Tiers a scenario can run in.
TIERS: Final = ("model", "render", "netns")


class ScenarioError(ValueError):
    """A scenario file that cannot be used; the message names file, scenario and remedy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Actions, then what must be reachable."""

    actions: tuple[Action, ...]
    expectations: tuple[Expectation, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One situation. ``name`` is ``topic/slug``; ``pods`` maps the pods that exist at the start to how they differ from the cast's.

    ``tiers``: where it runs. ``features``: names of what a backend must support for the written expectations to hold; one that
    does not may deny more, never less.
    """

    name: str
    description: str
    namespaces: Mapping[str, Mapping[str, str]]
    pods: Mapping[str, PodSpec]
    steps: tuple[Step, ...]
    features: frozenset[str] = frozenset()
    tiers: frozenset[str] = frozenset(TIERS)
    #: What a generated case is about.
    tags: frozenset[str] = frozenset()
    #: Addresses of its own; None: the cast's.
    plan: AddressPlan | None = None

    @property
    def topic(self) -> str:
        """First part of the name."""
        return self.name.partition("/")[0]

    @property
    def actors(self) -> frozenset[str]:
        """Everybody who ever sends or receives."""
        asked = (pair for step in self.steps for expectation in step.expectations for pair in expectation.cells)
        added = (action.pod for step in self.steps for action in step.actions if isinstance(action, AddPod))
        return frozenset((*self.pods, *added, *(actor for pair in asked for actor in pair)))

    @property
    def services(self) -> tuple[Service, ...]:
        """Every service that any step asks about, sorted."""
        asked = {service for step in self.steps for expectation in step.expectations for service in expectation.services}
        return tuple(sorted(asked, key=str))

    def __str__(self) -> str:
        return self.name


class _Expect(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, rename={"also": "with"}):
    ask: str = "TCP/80"
    families: tuple[int, ...] = (4, 6)
    #: Actors that are asked in addition to all pods present.
    also: tuple[str, ...] = ()
    #: Only these actors, instead of all pods present.
    only: tuple[str, ...] | None = None
    lines: str | None = None
    table: str | None = None


class _Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    do: tuple[dict[str, Any], ...] = ()
    expect: tuple[_Expect, ...] = ()


class _Scenario(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    name: str
    description: str
    cast: tuple[str, ...] = PODS
    namespaces: dict[str, dict[str, str]] = {}
    pods: dict[str, PodSpec] = {}
    features: frozenset[str] = frozenset()
    tiers: frozenset[str] = frozenset(TIERS)
    steps: tuple[_Step, ...]


def read_scenarios(text: str, *, where: str) -> Iterator[Scenario]:
    """Read all scenarios of one YAML text.

    :raises ScenarioError: naming ``where``, the scenario and what is wrong
    """
    try:
        documents = list(yaml.load_all(text, Loader=yaml.CSafeLoader))
    except yaml.YAMLError as error:
        raise ScenarioError(f"{where}: {error}") from error
    for index, document in enumerate(documents):
        name = document.get("name", f"document {index + 1}") if isinstance(document, dict) else f"document {index + 1}"
        try:
            yield _build(msgspec.convert(document, _Scenario))
        except (msgspec.ValidationError, ValueError) as error:
            raise ScenarioError(f"{where}: {name}: {error}") from error


def _build(raw: _Scenario) -> Scenario:
    if not re.fullmatch(r"[a-z0-9-]+/[a-z0-9-]+", raw.name):
        raise ValueError(f"name {raw.name!r} is not of the form topic/slug")
    if unknown := raw.tiers.difference(TIERS):
        raise ValueError(f"tiers {', '.join(sorted(unknown))} do not exist; choose from {', '.join(TIERS)}")
    pods = {pod: PodSpec() for pod in raw.cast} | raw.pods
    names = dict.fromkeys((*NAMESPACES, *(pod.partition("/")[0] for pod in pods)))
    namespaces = {name: {"ns": name} for name in names} | raw.namespaces
    present = list(pods)
    ever = set(pods)
    steps = []
    for step in raw.steps:
        actions = tuple(read_action(action) for action in step.do)
        for action in actions:
            present = _present_after(action, present)
        ever |= set(present)
        steps.append(Step(actions=actions, expectations=tuple(_expectation(block, present, ever) for block in step.expect)))
    return Scenario(
        name=raw.name,
        description=" ".join(raw.description.split()),
        namespaces=namespaces,
        pods=pods,
        steps=tuple(steps),
        features=raw.features,
        tiers=raw.tiers,
    )


def _present_after(action: Action, present: list[str]) -> list[str]:
    match action:
        case AddPod():
            return [*present, action.pod]
        case RemovePod() | FinishPod():
            return [pod for pod in present if pod != action.pod]
        case RemoveNamespace():
            return [pod for pod in present if not pod.startswith(f"{action.name}/")]
        case _:
            return present


def _expectation(block: _Expect, present: Iterable[str], ever: Iterable[str]) -> Expectation:
    known = sorted({*ever, *HOSTS})
    actors = list(block.only) if block.only is not None else [*dict.fromkeys(present), *block.also]
    if unknown := [actor for actor in actors if actor not in known]:
        raise ValueError(f"nobody is called {', '.join(unknown)}; known are {', '.join(known)}")
    if (block.lines is None) == (block.table is None):
        raise ValueError("an expectation needs either lines or a table")
    cells = read_lines(block.lines, actors) if block.lines is not None else read_table(block.table or "")
    if strangers := sorted({actor for pair in cells for actor in pair}.difference(known)):
        raise ValueError(f"nobody is called {', '.join(strangers)}; known are {', '.join(known)}")
    services = tuple(Service.parse(text.strip()) for text in block.ask.split(","))
    return Expectation(services=services, families=block.families, cells=cells)


@cache
def load_scenarios() -> tuple[Scenario, ...]:
    """Load all scenarios of this distribution, by name.

    :raises ScenarioError: for an unusable file, or a name given twice
    """
    folder = files("polyplane_conformance") / "scenarios"
    found: dict[str, Scenario] = {}
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if not entry.name.endswith(".yaml"):
            continue
        for scenario in read_scenarios(entry.read_text(encoding="utf-8"), where=entry.name):
            if scenario.name in found:
                raise ScenarioError(f"{entry.name}: {scenario.name} is the name of two scenarios")
            if scenario.topic != Path(entry.name).stem:
                raise ScenarioError(f"{entry.name}: {scenario.name} belongs into {scenario.topic}.yaml")
            found[scenario.name] = scenario
    return tuple(found[name] for name in sorted(found))
