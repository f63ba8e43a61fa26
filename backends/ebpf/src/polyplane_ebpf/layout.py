"""`Layout`: a program as the content of the maps, kept up to date delta by delta. Pure: no I/O, and interfaces by name.

Two tabulators, one for each direction, do the work; here their tables become bytes, and changes get an order.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from polyplane.errors import InvalidProgram
from polyplane.ir.delta import Delta, Operation, PutEndpoint, RemoveEndpoint, RemovePolicy, RemoveSet
from polyplane.ir.program import EMPTY, DenyAction, Direction, Endpoint, EndpointId, Established, Program, digest
from polyplane.ir.tabulate import ClassId, StackTables, Tabulated, Tabulator
from polyplane_ebpf import encode
from polyplane_ebpf.changes import Changes
from polyplane_ebpf.encode import EndpointValue, Settings
from polyplane_ebpf.maps import DEFINED
from polyplane_ebpf.rows import Paths, Rows

#: The endpoints of a program before a change, beside those after it; no pod is named like this.
_BEFORE: Final = "before:"


class Layout:
    """What the maps hold for a program.

    :ivar content: entries of each map of `maps.DEFINED`; keys of ``interfaces`` are names here
    """

    def __init__(self, *, events: int, view: int = 0) -> None:
        self.program: Program = EMPTY
        self.view: Final = view
        self.content: Final[dict[str, dict[bytes, bytes]]] = {name: {} for name in DEFINED}
        self.settings = Settings(events=events)
        self._tabulators: Final = {direction: Tabulator(direction) for direction in Direction}
        paths = Paths()
        self._rows: Final = {direction: Rows(paths) for direction in Direction}
        #: Map and key of each entry about an endpoint, and which endpoints claim each of them.
        self._places: Final[dict[EndpointId, tuple[tuple[str, bytes], ...]]] = {}
        self._holders: Final[dict[tuple[str, bytes], list[EndpointId]]] = {}

    @classmethod
    def of(cls, delta: Delta, *, events: int, view: int = 0) -> Layout:
        """Return the layout of a delta's target, whose base must be empty."""
        layout = cls(events=events, view=view)
        layout.follow(delta)
        return layout

    def follow(self, delta: Delta) -> tuple[Changes, ...]:
        """Follow a delta whose base is our program; return the stages that bring it into the maps.

        Tables know a class only as the sets that some stack asks for. So where endpoints change their stack, what is asked for
        before and after is classified together first, then the endpoints change, then what nobody asks for any more goes.
        At no moment is a stack asked about a class that was not made for it.
        """
        if not delta.base.same_content(self.program):
            raise InvalidProgram("the delta does not start from what the layout holds")
        stages = []
        changing = [
            self.program.endpoints[operation.endpoint.id if isinstance(operation, PutEndpoint) else operation.id]
            for operation in delta.operations
            if (isinstance(operation, PutEndpoint) and operation.endpoint.id in self.program.endpoints)
            or isinstance(operation, RemoveEndpoint)
        ]
        if any(endpoint.ingress or endpoint.egress for endpoint in changing):
            both = _both(delta, changing)
            stages.append(self._step(both))
            leaving = [RemoveEndpoint(EndpointId(_BEFORE + endpoint.id)) for endpoint in changing]
            rest = [operation for operation in delta.operations if isinstance(operation, RemovePolicy | RemoveSet)]
            stages.append(self._step(Delta(base=both.target, target=delta.target, operations=(*leaving, *rest))))
        else:
            stages.append(self._step(delta))
        self.program = delta.target
        return tuple(stage for stage in stages if stage.size)

    def _step(self, delta: Delta) -> Changes:
        changes = Changes()
        program = delta.target
        for direction, tabulator in self._tabulators.items():
            self._follow_tables(tabulator, tabulator.update(delta), direction, changes)
        self._put_settings(program, changes)
        self._put_endpoints(delta.operations, program, changes)
        for name, keys in changes.deletes.items():
            held = self.content[name]
            changes.deletes[name] = {key: None for key in keys if held.pop(key, None) is not None}
        for name, entries in changes.puts.items():
            held = self.content[name]
            changes.puts[name] = {key: value for key, value in entries.items() if held.get(key) != value}
            held.update(entries)
        return changes

    # --- tables ---

    def _follow_tables(self, tabulator: Tabulator, tabulated: Tabulated, direction: Direction, changes: Changes) -> None:
        rows = self._rows[direction]
        for stack_id in sorted(tabulated.stacks_added):
            _put_stack(rows, tabulator.stacks[stack_id], changes)
        for (stack, class_id), table in tabulated.tables.items():
            if table is not None:
                rows.put(encode.number_of(stack), encode.number_of(class_id), table, changes)
        if tabulated.classes_added:
            for tables in tabulator.stacks.values():
                _put_own(rows, tables, tabulated.classes_added, changes)
        for cidr, new_class in tabulated.hosts.items():
            _set(changes, "hosts", encode.host_key(direction, cidr, self.view), new_class)
        for cidr, new_class in tabulated.prefixes.items():
            _set(changes, "prefixes", encode.prefix_key(direction, cidr, self.view), new_class)
        for stack in sorted(tabulated.stacks_removed):
            rows.drop_stack(encode.number_of(stack), changes)
            rows.drop_stack(_own_number(stack), changes)
        for class_id in sorted(tabulated.classes_removed):
            rows.drop_class(encode.number_of(class_id), changes)

    # --- everything else ---

    def _put_settings(self, program: Program, changes: Changes) -> None:
        self.settings = replace(
            self.settings,
            keep=program.options.established is Established.KEEP,
            reject=program.options.deny_action is DenyAction.REJECT,
        )
        wanted = {encode.owner_key(cidr): bytes(4) for cidr in program.node_addresses}
        for key, value in wanted.items():
            changes.put("node", key, value)
        for key in self.content["node"].keys() - wanted.keys():
            changes.delete("node", key)

    def _put_endpoints(self, operations: Iterable[Operation], program: Program, changes: Changes) -> None:
        touched = {
            operation.endpoint.id if isinstance(operation, PutEndpoint) else operation.id
            for operation in operations
            if isinstance(operation, PutEndpoint | RemoveEndpoint)
        }
        names = sorted({EndpointId(name.removeprefix(_BEFORE)) for name in touched})
        places: dict[tuple[str, bytes], None] = {}
        for endpoint_id in names:
            for place in self._places.pop(endpoint_id, ()):
                self._holders[place].remove(endpoint_id)
                places[place] = None
        for endpoint_id in names:
            if endpoint_id in program.endpoints:
                self._places[endpoint_id] = tuple(_places(program.endpoints[endpoint_id]))
                for place in self._places[endpoint_id]:
                    self._holders.setdefault(place, []).append(endpoint_id)
                    places[place] = None
        for place in places:
            holders = self._holders[place]
            if not holders:
                del self._holders[place]
            # Of several claims to one interface all but one are wrong, and none may take another pod's policy away: all go by their
            # addresses then. Two pods may have one address for a moment; it is the first one's by name, whoever came last.
            if holders and (place[0] != "interfaces" or len(holders) == 1):
                changes.put(*place, self.value_of(program.endpoints[min(holders)]).pack())
            else:
                changes.delete(*place)

    def value_of(self, endpoint: Endpoint) -> EndpointValue:
        """Return what the maps say about an endpoint."""
        numbers = {}
        for direction, tabulator in self._tabulators.items():
            stack_id = tabulator.endpoints.get(endpoint.id)
            tables = None if stack_id is None else tabulator.stacks[stack_id]
            own = None if tables is None else tables.to_self
            numbers[direction] = (
                0 if tables is None else encode.number_of(tables.id),
                0 if tables is None or own is None else encode.number_of(tables.id) if own is tables else _own_number(tables.id),
            )
        return EndpointValue(
            id=encode.number_of(digest("endpoint", endpoint.id)),
            egress=numbers[Direction.EGRESS][0],
            ingress=numbers[Direction.INGRESS][0],
            self_egress=numbers[Direction.EGRESS][1],
            self_ingress=numbers[Direction.INGRESS][1],
            view=self.view,
        )


def _put_stack(rows: Rows, tables: StackTables, changes: Changes) -> None:
    """Rows of a new stack for addresses of no class, and all rows of what it says about traffic to itself."""
    stack = encode.number_of(tables.id)
    for family, table in tables.default.items():
        rows.put(stack, encode.FALLBACK[family], table, changes)
    own = tables.to_self
    if own is not None and own is not tables:
        for family, table in own.default.items():
            rows.put(_own_number(tables.id), encode.FALLBACK[family], table, changes)
        for class_id, table in own.tables.items():
            rows.put(_own_number(tables.id), encode.number_of(class_id), table, changes)


def _put_own(rows: Rows, tables: StackTables, classes: Iterable[ClassId], changes: Changes) -> None:
    own = tables.to_self
    if own is not None and own is not tables:
        for class_id in classes:
            if class_id in own.tables:
                rows.put(_own_number(tables.id), encode.number_of(class_id), own.tables[class_id], changes)


def _both(delta: Delta, changing: Iterable[Endpoint]) -> Delta:
    """Return the first half of a delta: what comes is there, what goes is there still, endpoints before the change as extras."""
    before = {EndpointId(_BEFORE + endpoint.id): replace(endpoint, id=EndpointId(_BEFORE + endpoint.id)) for endpoint in changing}
    base, target = delta.base, delta.target
    program = replace(
        target,
        endpoints={**target.endpoints, **before},
        policies={**base.policies, **target.policies},
        sets={**base.sets, **target.sets},
    )
    extras = tuple(PutEndpoint(endpoint) for endpoint in before.values())
    kept = tuple(operation for operation in delta.operations if not isinstance(operation, RemovePolicy | RemoveSet))
    return Delta(base=base, target=program, operations=(*extras, *kept))


def _own_number(stack_id: str) -> int:
    """Number of a stack's tables about traffic from the endpoint to itself."""
    return encode.number_of(digest("to itself", stack_id))


def _places(endpoint: Endpoint) -> Iterable[tuple[str, bytes]]:
    if endpoint.interface is not None:
        yield "interfaces", endpoint.interface.encode()
    for address in endpoint.addresses:
        yield "owners", encode.owner_key(address)


def _set(changes: Changes, name: str, key: bytes, class_id: ClassId | None) -> None:
    if class_id is None:
        changes.delete(name, key)
    else:
        changes.put(name, key, encode.class_value(encode.number_of(class_id)))
