"""How each endpoint is told apart in the kernel: by its host-side interface, or by its addresses.

By interface is safe against forged source addresses and is used wherever it can be. By address go endpoints whose interface
is unknown, has a name that native text cannot hold, or is claimed by several endpoints (one of the claims is wrong, and no
claim may take another pod's policy away).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from polyplane.backend_kit.labels import is_usable_interface
from polyplane.ir.cidr import Cidr
from polyplane.ir.delta import Delta, PutEndpoint, RemoveEndpoint
from polyplane.ir.program import Endpoint, EndpointId


@dataclass(frozen=True, slots=True)
class Attachment:
    """Where packets of an endpoint are recognised: at ``interface``, or if that is None by ``addresses``.

    ``own`` are all addresses of the endpoint. ``addresses`` lacks those that another endpoint without interface has too:
    an address can stand for one endpoint only, and the first by name keeps it.
    """

    interface: str | None
    addresses: tuple[Cidr, ...]
    own: tuple[Cidr, ...]


class Attachments:
    """The attachments of all endpoints, followed delta by delta."""

    def __init__(self) -> None:
        self._endpoints: Final[dict[EndpointId, Endpoint]] = {}
        self._claims: Final[dict[str | Cidr, set[EndpointId]]] = {}

    def update(self, delta: Delta) -> set[EndpointId]:
        """Follow a delta; return the endpoints whose attachment may have changed, also those that share a claim."""
        changed: set[EndpointId] = set()
        for operation in delta.operations:
            if isinstance(operation, RemoveEndpoint):
                changed |= self._forget(operation.id)
            elif isinstance(operation, PutEndpoint):
                endpoint = operation.endpoint
                known = self._endpoints.get(endpoint.id)
                if known is not None and known.interface == endpoint.interface and known.addresses == endpoint.addresses:
                    continue
                changed |= self._forget(endpoint.id)
                self._endpoints[endpoint.id] = endpoint
                for claim in _claims_of(endpoint):
                    self._claims.setdefault(claim, set()).add(endpoint.id)
                    changed |= self._claims[claim]
        return changed

    def of(self, endpoint_id: EndpointId) -> Attachment | None:
        """Return an endpoint's attachment, None for an unknown endpoint."""
        endpoint = self._endpoints.get(endpoint_id)
        if endpoint is None:
            return None
        if self._has_interface(endpoint):
            return Attachment(endpoint.interface, (), endpoint.addresses)
        mine = tuple(address for address in endpoint.addresses if self._owner(address) == endpoint_id)
        return Attachment(None, mine, endpoint.addresses)

    def _forget(self, endpoint_id: EndpointId) -> set[EndpointId]:
        endpoint = self._endpoints.pop(endpoint_id, None)
        touched = {endpoint_id}
        for claim in _claims_of(endpoint) if endpoint is not None else ():
            self._claims[claim].discard(endpoint_id)
            touched |= self._claims[claim]
            if not self._claims[claim]:
                del self._claims[claim]
        return touched

    def _has_interface(self, endpoint: Endpoint) -> bool:
        interface = endpoint.interface
        return interface is not None and is_usable_interface(interface) and len(self._claims[interface]) == 1

    def _owner(self, address: Cidr) -> EndpointId:
        return min(other for other in self._claims[address] if not self._has_interface(self._endpoints[other]))


def _claims_of(endpoint: Endpoint) -> Iterable[str | Cidr]:
    return endpoint.addresses if endpoint.interface is None else (endpoint.interface, *endpoint.addresses)
