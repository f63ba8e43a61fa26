"""`ordered`: the one place that decides in which order operations are safe.

Whoever applies any prefix of the result never meets a name that does not exist, and never allows what neither the old nor
the new program allows, as far as single operations can promise that: node, sets, policies, then the endpoints that go live
with them; then removals in reverse. Two kinds of change need care:

* Members change before endpoints do. A member that leaves a set narrows rules that stay; one that joins widens them only
  to what the target allows for the policies that stay, because policies and sets are named by their content.
* Endpoints that leave go before endpoints that come: an address may pass from one to the other.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from polyplane.ir.delta import (
    ChangeMembers,
    Operation,
    PutEndpoint,
    PutNode,
    PutPolicy,
    PutSet,
    RemoveEndpoint,
    RemovePolicy,
    RemoveSet,
)

#: Stage of each operation; equal stages are sorted by name, so that the same delta always prints the same.
STAGES: Final[tuple[type[Operation], ...]] = (
    PutNode,
    PutSet,
    ChangeMembers,
    PutPolicy,
    RemoveEndpoint,
    PutEndpoint,
    RemovePolicy,
    RemoveSet,
)
_STAGE: Final = {kind: stage for stage, kind in enumerate(STAGES)}


def ordered(operations: Iterable[Operation]) -> tuple[Operation, ...]:
    """Return the operations in an order that is safe at every prefix."""
    return tuple(sorted(operations, key=lambda operation: (_STAGE[type(operation)], _name(operation))))


def _name(operation: Operation) -> str:
    match operation:
        case PutNode():
            return ""
        case PutSet(set=value):
            return value.id
        case PutPolicy(policy=policy):
            return policy.id
        case PutEndpoint(endpoint=endpoint):
            return endpoint.id
        case _:
            return operation.id
