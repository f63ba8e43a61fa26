"""Which API a scenario is about, and which features beyond that API's core it needs: what profiles are made of.

A feature is declared by the scenario or follows from what its policies say, so that none can be forgotten.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from polyplane_conformance.actions import ApplyClusterPolicy, ApplyPolicy
from polyplane_conformance.scenario import Scenario

#: API of checks that are about no policy API: restarts, drift, costs.
OPERATION: Final = "Operation"

#: Features that not every implementation of an API has, and what they are. All else is core.
EXTENDED: Final[Mapping[str, str]] = {
    "ipv6": "policies between IPv6 addresses",
    "sctp": "SCTP ports",
    "port-ranges": "endPort",
}


def api_of(scenario: Scenario) -> str:
    """Return the kind of policy that a scenario is about; of several the one beyond NetworkPolicy."""
    kinds = {action.kind for step in scenario.steps for action in step.actions if isinstance(action, ApplyClusterPolicy)}
    return min(kinds, default="NetworkPolicy")


def features_of(scenario: Scenario) -> tuple[str, ...]:
    """Return the extended features that a scenario needs, sorted."""
    specs = (action.spec for step in scenario.steps for action in step.actions if isinstance(action, ApplyPolicy | ApplyClusterPolicy))
    return tuple(sorted({*scenario.features, *(feature for spec in specs for feature in _needed(spec))}))


def _needed(value: Any) -> Iterator[str]:
    match value:
        case Mapping():
            if "endPort" in value or "portRange" in value:
                yield "port-ranges"
            if value.get("protocol") == "SCTP" or "sctp" in value:
                yield "sctp"
            for item in value.values():
                yield from _needed(item)
        case list() | tuple():
            for item in value:
                yield from _needed(item)
