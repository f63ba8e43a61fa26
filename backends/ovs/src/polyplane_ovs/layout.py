"""`Layout`: a program on a bridge's ports as flows, followed delta by delta and port by port."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from polyplane.backend_kit.deltas import whole
from polyplane.ir.cidr import Cidr
from polyplane.ir.delta import Delta, PutEndpoint, RemoveEndpoint
from polyplane.ir.program import EMPTY, DenyAction, Direction, Endpoint, EndpointId, Options, Program
from polyplane.ir.tabulate import StackTables
from polyplane_ovs.claims import Claims
from polyplane_ovs.endpoints import Place, SelfDecision, endpoint_flows, stranger_flow, trusted_flow
from polyplane_ovs.flows import Book, Flow
from polyplane_ovs.options import OvsOptions
from polyplane_ovs.pipeline import Pipeline
from polyplane_ovs.ports import Attachment, Ports
from polyplane_ovs.side import Side

# Owners in the book, in the order in which they win where they write the same flow.
_FRAME: Final = "0 frame"
_NODE: Final = "1 node"
_ENDPOINT: Final = "2 endpoint "
_PORT: Final = "3 port "


class Layout:
    """The flows for a program and ports; `follow` and `move` bring them to the next ones."""

    def __init__(self, options: OvsOptions, deny_action: DenyAction) -> None:
        self.program: Program = EMPTY
        self.book: Final = Book()
        self._options: Final = options
        self._pipeline: Final = Pipeline(options, deny_action)
        self._deny_action: Final = deny_action
        self._claims: Final = Claims(options)
        self._program_options: Options | None = None
        self._node_addresses: frozenset[Cidr] = frozenset()
        self._sides: Final = {direction: Side(direction, self._pipeline, self.book) for direction in Direction}
        self._attachments: Final[dict[EndpointId, Attachment]] = {}
        #: The endpoints at each port; more than one only while they contend for it.
        self._users: Final[dict[str, set[EndpointId]]] = {}
        #: What is held in each direction for an endpoint's traffic to itself.
        self._own: Final[dict[EndpointId, list[tuple[Direction, str]]]] = {}
        self._own_cidrs: Final[dict[EndpointId, tuple[Cidr, ...]]] = {}
        self._own_addresses: Final[dict[Cidr, set[EndpointId]]] = {}

    @classmethod
    def of(cls, program: Program, ports: Ports, options: OvsOptions) -> Layout:
        """Return the layout of a whole program."""
        layout = cls(options, program.options.deny_action)
        layout.move(ports)
        layout.follow(whole(program))
        layout.book.take_changes()
        return layout

    def can_follow(self, delta: Delta) -> bool:
        """Whether `follow` may be called: the delta starts where we are, and denied packets are treated in the same way."""
        if self._program_options is None or delta.target.options.deny_action is not self._deny_action:
            return False
        return delta.base is self.program or delta.base.same_content(self.program)

    def follow(self, delta: Delta) -> None:
        """Go from the delta's base, which must be what we hold, to its target; the book has what changed."""
        program = delta.target
        if program.options != self._program_options:
            self._program_options = program.options
            self.book.put(_FRAME, self._pipeline.frame(program.options.established))
        dirty: set[EndpointId] = set()
        if program.node_addresses != self._node_addresses:
            self._node_addresses = program.node_addresses
            self.book.put(_NODE, self._pipeline.node(sorted(program.node_addresses)))
            dirty.update(self._own)
        dirty |= {operation.endpoint.id for operation in delta.operations if isinstance(operation, PutEndpoint)}
        dirty |= {operation.id for operation in delta.operations if isinstance(operation, RemoveEndpoint)}
        self.program = program
        dirty |= self._claims.update(program.endpoints, sorted(dirty))
        for side in self._sides.values():
            changes = side.update(delta)
            dirty.update(changes.endpoints)
            dirty.update(endpoint_id for cidr in changes.hosts for endpoint_id in self._own_addresses.get(cidr, ()))
            if changes.prefixes:
                dirty.update(self._own)
        self._attach(dirty)

    def move(self, ports: Ports) -> None:
        """Follow the bridge's ports; the book has what changed."""
        old, self._claims.ports = self._claims.ports, ports
        changed = {
            port.name
            for one, other in ((old, ports), (ports, old))
            for port in one.by_name.values()
            if other.by_name.get(port.name) != port
        }
        if changed:
            self._attach(
                {
                    endpoint_id
                    for endpoint_id in self.program.endpoints
                    if self._claims.find(endpoint_id) != self._attachments.get(endpoint_id)
                }
            )
            for name in changed:
                for port in (old.by_name.get(name), ports.by_name.get(name)):
                    if port is not None:
                        self._write_port(port.number)

    # --- endpoints and ports ---

    def _attach(self, dirty: Iterable[EndpointId]) -> None:
        """Write the flows of endpoints anew."""
        touched: set[str] = set()
        for endpoint_id in sorted(dirty):
            old = self._attachments.pop(endpoint_id, None)
            if old is not None:
                touched.add(old.port)
                self._users[old.port].discard(endpoint_id)
            held = self._own.pop(endpoint_id, ())
            for cidr in self._own_cidrs.pop(endpoint_id, ()):
                self._own_addresses[cidr].discard(endpoint_id)
            if endpoint_id in self.program.endpoints:
                place = self._place(endpoint_id)
                self.book.put(_ENDPOINT + endpoint_id, endpoint_flows(self._pipeline, place))
                if place.attachment is not None:
                    self._attachments[endpoint_id] = place.attachment
                    self._users.setdefault(place.attachment.port, set()).add(endpoint_id)
                    touched.add(place.attachment.port)
            else:
                self.book.put(_ENDPOINT + endpoint_id, ())
            for direction, own_id in held:
                self._sides[direction].release_own(own_id)
        for number in sorted(touched):
            self._write_port(number)

    def _write_port(self, number: str) -> None:
        """Say what may come from a port. One with an endpoint has the endpoint's flows, and nothing else passes there."""
        port = self._claims.ports.by_number.get(number)
        flows: list[Flow] = []
        if port is not None and not self._users.get(number):
            flows = [trusted_flow(self._pipeline, number) if port.trusted else stranger_flow(self._pipeline, number)]
        self.book.put(_PORT + number, flows)

    def _place(self, endpoint_id: EndpointId) -> Place:
        endpoint = self.program.endpoints[endpoint_id]
        stacks = {direction: self._stack(direction, endpoint_id) for direction in Direction}
        return Place(
            endpoint=endpoint,
            attachment=self._claims.find(endpoint_id),
            egress=_number(stacks[Direction.EGRESS]),
            ingress=_number(stacks[Direction.INGRESS]),
            own=tuple(self._self_decisions(endpoint, stacks)),
            node_addresses=tuple(sorted(self._node_addresses)),
            service_cidrs=self._options.service_cidrs,
        )

    def _stack(self, direction: Direction, endpoint_id: EndpointId) -> StackTables | None:
        tabulator = self._sides[direction].tabulator
        stack_id = tabulator.endpoints.get(endpoint_id)
        return None if stack_id is None else tabulator.stacks[stack_id]

    def _self_decisions(self, endpoint: Endpoint, stacks: Mapping[Direction, StackTables | None]) -> Iterator[SelfDecision]:
        """Yield what differs for traffic from the endpoint to itself, for each pair of its addresses."""
        if all(stack is None for stack in stacks.values()):
            return
        self._own_cidrs[endpoint.id] = endpoint.addresses
        held = self._own[endpoint.id] = []
        for cidr in endpoint.addresses:
            self._own_addresses.setdefault(cidr, set()).add(endpoint.id)
        for source in endpoint.addresses:
            for destination in (cidr for cidr in endpoint.addresses if cidr.family == source.family):
                numbers: dict[Direction, int] = {}
                for direction, stack in stacks.items():
                    peer = destination if direction is Direction.EGRESS else source
                    numbers[direction] = self._own_number(direction, stack, peer, held)
                yield SelfDecision(source, destination, numbers[Direction.EGRESS], numbers[Direction.INGRESS])

    def _own_number(self, direction: Direction, stack: StackTables | None, peer: Cidr, held: list[tuple[Direction, str]]) -> int:
        if stack is None or stack.to_self is stack:
            return _number(stack)
        own_id = self._sides[direction].hold_own(stack, peer)
        if own_id is None:
            return 0
        held.append((direction, own_id))
        return int(own_id, 16)


def _number(stack: StackTables | None) -> int:
    return 0 if stack is None else int(stack.id, 16)
