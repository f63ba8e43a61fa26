"""`Whereabouts`: the node's own addresses, and where on it its pods are."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from polyplane.cluster.model import Node, Pod
from polyplane.compile.places import NOWHERE, Places
from polyplane.compile.strangers import Strangers
from polyplane.ir.cidr import Cidr
from polyplane.ir.program import Endpoint, EndpointId


class Whereabouts:
    """What the compiler is told about its node, from two sides: by the cluster and by who looks at the node itself.

    :param node: name of the node
    :param given: addresses of the node, besides those its Node object states
    :param strangers: None where what belongs to no pod is left alone
    """

    def __init__(self, node: str, given: frozenset[Cidr], strangers: Strangers | None) -> None:
        self._node = node
        self._given = given
        self._stated: frozenset[Cidr] = frozenset()
        self._prefixes: tuple[Cidr, ...] = ()
        self._places: Places = NOWHERE
        self._pods: dict[EndpointId, Pod] = {}
        self._strangers = strangers

    @property
    def addresses(self) -> frozenset[Cidr]:
        """All addresses of the node, whoever said so."""
        return self._given | self._stated

    def give_addresses(self, given: frozenset[Cidr]) -> None:
        """Change the addresses besides those the Node object states."""
        self._given = given
        self._touch()

    def follow_node(self, node: Node | None) -> None:
        """Follow the node's own object; None: it is gone."""
        self._stated = frozenset(node.addresses if node is not None else ())
        self._prefixes = node.pod_prefixes if node is not None else ()
        self._touch()

    def locate(self, endpoint_id: EndpointId, pod: Pod | None) -> Pod | None:
        """Follow a pod; return it as an endpoint, with the addresses and the interface it has here, None if it is none."""
        self._touch()
        if pod is None or pod.node != self._node or pod.host_network:
            self._pods.pop(endpoint_id, None)
            return None
        self._pods[endpoint_id] = pod
        place = self._places.pods.get(endpoint_id)
        addresses = pod.addresses or (place.addresses if place is not None else ())
        interface = pod.interface or self._places.interface(endpoint_id, addresses)
        return replace(pod, addresses=addresses, interface=interface) if addresses else None

    def give_places(self, places: Places) -> list[tuple[EndpointId, Pod]]:
        """Tell where pods are; return those that must be located anew."""
        moved, named = places.moved(self._places)
        self._places = places
        self._touch()
        return [
            (endpoint_id, pod)
            for endpoint_id, pod in self._pods.items()
            if endpoint_id in named or (pod.interface is None and not moved.isdisjoint(pod.addresses))
        ]

    def follow_ids(self, names: Collection[str]) -> None:
        """Learn that these names have other rule ids now."""
        if self._strangers is not None:
            self._strangers.follow_ids(names)

    def strangers(self, pods: Collection[Pod]) -> dict[EndpointId, Endpoint | None]:
        """Return the endpoints of strangers that changed, None for those that are gone; ``pods`` are the located ones."""
        return self._strangers.changes(self._places, self._prefixes, pods, self.addresses) if self._strangers is not None else {}

    def _touch(self) -> None:
        if self._strangers is not None:
            self._strangers.dirty = True
