"""`Delta`: how to get from one program to the next.

``operations`` come in an order that is safe at every prefix (sets before the policies that name them, policies before the
endpoints that use them, removals in reverse): `polyplane.reconcile.order` makes it. ``target`` is the whole wanted state,
for a backend that prefers to work wholesale; ``base`` is what the operations start from.
"""

from __future__ import annotations

from dataclasses import dataclass

from polyplane.ir.cidr import Cidr
from polyplane.ir.program import AddressSet, Endpoint, EndpointId, Options, Policy, PolicyId, Program, SetId


@dataclass(frozen=True, slots=True)
class PutNode:
    """Set the node's own addresses and the operator's options."""

    node_addresses: frozenset[Cidr]
    options: Options


@dataclass(frozen=True, slots=True)
class PutSet:
    """Create an address set, with all its members."""

    set: AddressSet


@dataclass(frozen=True, slots=True)
class ChangeMembers:
    """Add and remove members of an existing set."""

    id: SetId
    added: frozenset[Cidr]
    removed: frozenset[Cidr]


@dataclass(frozen=True, slots=True)
class PutPolicy:
    """Create a policy; its id is derived from its content, so it never changes afterwards."""

    policy: Policy


@dataclass(frozen=True, slots=True)
class PutEndpoint:
    """Create an endpoint, or replace it as a whole."""

    endpoint: Endpoint


@dataclass(frozen=True, slots=True)
class RemoveEndpoint:
    """Forget an endpoint: its traffic is no longer subject to policy here."""

    id: EndpointId


@dataclass(frozen=True, slots=True)
class RemovePolicy:
    """Remove a policy that no endpoint uses any more."""

    id: PolicyId


@dataclass(frozen=True, slots=True)
class RemoveSet:
    """Remove a set that no policy uses any more."""

    id: SetId


Operation = PutNode | PutSet | ChangeMembers | PutPolicy | PutEndpoint | RemoveEndpoint | RemovePolicy | RemoveSet


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """The way from ``base`` to ``target``; no operations when both enforce the same."""

    base: Program
    target: Program
    operations: tuple[Operation, ...]
