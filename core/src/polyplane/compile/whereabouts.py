"""`Whereabouts`: the node's own addresses, and at which of its interfaces a pod is."""

from __future__ import annotations

from collections.abc import Mapping

from polyplane.cluster.model import Node, Pod
from polyplane.ir.cidr import Cidr


class Whereabouts:
    """What the compiler is told about its node, from two sides: by the cluster and by who looks at the node itself.

    :param given: addresses of the node, besides those its Node object states
    """

    def __init__(self, given: frozenset[Cidr]) -> None:
        self._given = given
        self._stated: frozenset[Cidr] = frozenset()
        self._interfaces: dict[Cidr, str] = {}

    @property
    def addresses(self) -> frozenset[Cidr]:
        """All addresses of the node, whoever said so."""
        return self._given | self._stated

    def give_addresses(self, given: frozenset[Cidr]) -> None:
        """Change the addresses besides those the Node object states."""
        self._given = given

    def follow_node(self, node: Node | None) -> None:
        """Follow the node's own object; None: it is gone."""
        self._stated = frozenset(node.addresses if node is not None else ())

    def give_interfaces(self, interfaces: Mapping[Cidr, str]) -> set[Cidr]:
        """Tell at which interface an address is; return the addresses that are at another now, or at none."""
        moved = {
            address for address in interfaces.keys() | self._interfaces.keys() if interfaces.get(address) != self._interfaces.get(address)
        }
        self._interfaces = dict(interfaces)
        return moved

    def interface_of(self, pod: Pod) -> str | None:
        """Return what the pod says, else where its addresses are, if they are all at the same interface."""
        if pod.interface is not None:
            return pod.interface
        found = {self._interfaces[address] for address in pod.addresses if address in self._interfaces}
        return found.pop() if len(found) == 1 else None
