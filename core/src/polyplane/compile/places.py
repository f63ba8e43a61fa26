"""`Places`: where on this node pods are attached, as the node itself knows it.

The node often knows a pod before the API server has told its address, since its network plugin made the interface: a pod that
is named there has its address, and with it its policies, at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from polyplane.ir.cidr import Cidr


class Place(NamedTuple):
    """Where one pod is: its interface on the node's side, None if it is unknown or cannot be told apart there, and its addresses."""

    interface: str | None = None
    addresses: tuple[Cidr, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """What the node knows: at which interface addresses are, and where the pods are that have a name there (``namespace/name``)."""

    interfaces: Mapping[Cidr, str] = field(default_factory=dict)
    pods: Mapping[str, Place] = field(default_factory=dict)

    def interface(self, pod_id: str, addresses: Iterable[Cidr]) -> str | None:
        """Return where the pod is, None unless that is certain: its addresses must not be at different interfaces."""
        place = self.pods.get(pod_id)
        if place is not None and place.interface is not None:
            return place.interface
        found = {self.interfaces[address] for address in addresses if address in self.interfaces}
        return found.pop() if len(found) == 1 else None

    def moved(self, before: Places) -> tuple[set[Cidr], set[str]]:
        """Return the addresses and the pods for which ``before`` said something else."""
        addresses = {at for at in self.interfaces.keys() | before.interfaces.keys() if self.interfaces.get(at) != before.interfaces.get(at)}
        pods = {pod for pod in self.pods.keys() | before.pods.keys() if self.pods.get(pod) != before.pods.get(pod)}
        return addresses, pods


NOWHERE: Final = Places()
