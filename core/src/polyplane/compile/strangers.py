"""`Strangers`: what is on this node and belongs to no pod that the cluster has told of, closed by endpoints of its own.

They are ordinary endpoints, isolated both ways, so that no backend has to know of them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from itertools import chain
from typing import Final

from polyplane.cluster.model import Pod
from polyplane.compile.places import Places
from polyplane.compile.rule_ids import RuleIds
from polyplane.ir.cidr import BITS, Cidr
from polyplane.ir.program import Direction, Endpoint, EndpointId, Isolation, Origin, Tier, TierEnd

#: Prefixes with more addresses are not closed address by address: a /22, more than any node has pods.
MAX_CLOSED: Final = 1024
#: No namespace is called this, so that no pod is mistaken for a stranger.
_PREFIX: Final = "(unknown)/"
_Changes = dict[EndpointId, Endpoint | None]

#: Names of the denials in the registry of rule ids.
ISOLATIONS: Final = {direction: f"{direction} isolation of unknown pods" for direction in Direction}


def is_stranger(endpoint_id: EndpointId) -> bool:
    """Whether an endpoint closes addresses of unknown pods."""
    return endpoint_id.startswith(_PREFIX)


class Strangers:
    """The endpoints of strangers on one node.

    :param prefixes: of the node's pods, besides those its Node object states
    :param ids: registry for the denials
    """

    def __init__(self, prefixes: Iterable[Cidr], ids: RuleIds) -> None:
        self._given: Final = frozenset(prefixes)
        self._ids: Final = ids
        self._endpoints: Mapping[EndpointId, Endpoint] = {}
        #: Whether anything they depend on has changed since `changes` was asked.
        self.dirty = True
        ids.acquire(ISOLATIONS.values())

    def follow_ids(self, names: Collection[str]) -> None:
        """Learn that these names have other ids now."""
        self.dirty |= any(name in names for name in ISOLATIONS.values())

    def changes(self, places: Places, stated: Iterable[Cidr], pods: Collection[Pod], node: Collection[Cidr]) -> _Changes:
        """Return the endpoints that differ from those returned before, None for those that are gone.

        :param stated: prefixes of the node's pods that its Node object states
        :param pods: those of the node, with their addresses and interfaces
        :param node: addresses of the node itself
        """
        if not self.dirty:
            return {}
        self.dirty = False
        known = frozenset(node).union(*(pod.addresses for pod in pods))
        interfaces = {pod.interface for pod in pods if pod.interface is not None}
        before, self._endpoints = (
            self._endpoints,
            strangers(places, sorted(self._given or stated), known=known, interfaces=interfaces, ids=self._ids),
        )
        names = before.keys() | self._endpoints.keys()
        return {name: self._endpoints.get(name) for name in sorted(names) if self._endpoints.get(name) != before.get(name)}


def strangers(
    places: Places, prefixes: Iterable[Cidr], *, known: Collection[Cidr], interfaces: Collection[str], ids: RuleIds
) -> dict[EndpointId, Endpoint]:
    """Return endpoints that close what is on this node and is no pod's.

    :param prefixes: of the node's pods; those with more than `MAX_CLOSED` addresses are left out
    :param known: addresses of known pods and of the node
    :param interfaces: of known pods
    :param ids: holds `ISOLATIONS`
    """
    found: dict[EndpointId, Endpoint] = {}
    rest: set[Cidr] = set()
    at: dict[str, set[Cidr]] = {}
    located = chain(
        places.interfaces.items(), ((address, place.interface) for place in places.pods.values() for address in place.addresses)
    )
    for address, interface in located:
        if address in known:
            continue
        if interface is None or interface in interfaces:
            rest.add(address)
        else:
            at.setdefault(interface, set()).add(address)
    for interface, addresses in at.items():
        rest -= addresses
        _add(found, interface, interface, addresses, ids)
    closed = rest.union(*at.values())
    # One endpoint each, so that a pod that comes takes its address from nobody else.
    rest |= {address for prefix in prefixes for address in _hosts(prefix) if address not in known and address not in closed}
    for address in rest:
        _add(found, str(address), None, {address}, ids)
    return found


def _hosts(prefix: Cidr) -> Iterable[Cidr]:
    if prefix.last - prefix.first >= MAX_CLOSED:
        return ()
    return (Cidr(prefix.family, address, BITS[prefix.family]) for address in range(prefix.first, prefix.last + 1))


def _add(found: dict[EndpointId, Endpoint], name: str, interface: str | None, addresses: Collection[Cidr], ids: RuleIds) -> None:
    if not addresses:
        return
    endpoint_id = EndpointId(_PREFIX + name)
    found[endpoint_id] = Endpoint(
        id=endpoint_id,
        interface=interface,
        addresses=tuple(sorted(addresses)),
        ingress=_closed(Direction.INGRESS, ids),
        egress=_closed(Direction.EGRESS, ids),
    )


def _closed(direction: Direction, ids: RuleIds) -> tuple[Tier, ...]:
    origin = Origin(kind="Agent", namespace="", name="unknown-pods", direction=direction)
    return (Tier(name="unknown", policies=(), end=TierEnd.DENY, isolation=Isolation(id=ids[ISOLATIONS[direction]], origins=(origin,))),)
