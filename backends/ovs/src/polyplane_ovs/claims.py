"""`Claims`: which endpoint is at which port.

A port that names its endpoint in external_ids is that endpoint's, whatever others say. Any other belongs to the endpoint that
names the port as its interface. What a pod says about its interface may be written by whoever writes the pod.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from polyplane.ir.program import Endpoint, EndpointId
from polyplane_ovs.options import OvsOptions
from polyplane_ovs.ports import Attachment, Port, Ports


class Claims:
    """The endpoints and the ports they claim; a state machine without I/O."""

    def __init__(self, options: OvsOptions) -> None:
        self.ports = Ports()
        self._options: Final = options
        self._endpoints: Final[dict[EndpointId, Endpoint]] = {}
        self._names: Final[dict[str, EndpointId]] = {}
        self._by_interface: Final[dict[str, set[EndpointId]]] = {}

    def update(self, endpoints: Mapping[EndpointId, Endpoint], changed: Iterable[EndpointId]) -> set[EndpointId]:
        """Follow the endpoints that changed; return all whose attachment may differ now."""
        touched: set[EndpointId] = set()
        for endpoint_id in changed:
            old, new = self._endpoints.pop(endpoint_id, None), endpoints.get(endpoint_id)
            touched.add(endpoint_id)
            name = self._options.name_of(endpoint_id)
            for endpoint in (old, new):
                port = self.ports.by_workload.get(name)
                for interface in {port.name if port else None, endpoint.interface if endpoint else None} - {None}:
                    touched |= self._by_interface.get(str(interface), set())
            self._names.pop(name, None)
            if old is not None and old.interface is not None:
                self._by_interface[old.interface].discard(endpoint_id)
            if new is not None:
                self._endpoints[endpoint_id] = new
                self._names[name] = endpoint_id
                if new.interface is not None:
                    self._by_interface.setdefault(new.interface, set()).add(endpoint_id)
        return touched

    def find(self, endpoint_id: EndpointId) -> Attachment | None:
        """Return where an endpoint is found, None if at no port of the bridge."""
        endpoint = self._endpoints.get(endpoint_id)
        if endpoint is None:
            return None
        port = self.ports.by_workload.get(self._options.name_of(endpoint_id))
        if port is not None:
            return Attachment(port.number, port.mac)
        port = None if endpoint.interface is None else self.ports.by_name.get(endpoint.interface)
        if port is None or self._belongs_to_another(port):
            return None
        return Attachment(port.number, port.mac, shared=len(self._by_interface[port.name]) > 1)

    def _belongs_to_another(self, port: Port) -> bool:
        return bool(port.workload) and port.workload in self._names
