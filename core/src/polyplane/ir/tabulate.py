"""`Tabulator`: classify, then decide. Turns a program into two tables for dataplanes that have maps.

Every peer match asks only "which address sets is this address in?". So addresses fall into disjoint *classes*: an address's
class is the collection of sets it is in, found by longest prefix. And an endpoint's whole stack of tiers, policies and rules,
asked about one class, shrinks to a `Table` (`polyplane.ir.tables`). A packet costs two lookups whatever the number of
policies, and a changed member is one element.

Class and stack ids are derived from content, and the table of a stack for a class is a function of the two ids alone. So
tables come and go with their class or their stack but never change: what `update` reports is small.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, NewType

from polyplane.ir.cidr import BITS, Cidr
from polyplane.ir.delta import ChangeMembers, Delta, PutEndpoint, PutSet, RemoveEndpoint
from polyplane.ir.members import Members
from polyplane.ir.program import Direction, EndpointId, Program, SetId, Stack, digest
from polyplane.ir.tables import Branch, FlatStack, Outcome, Row, Table

__all__ = ["AddressClass", "Branch", "ClassId", "Outcome", "Row", "StackId", "StackTables", "Table", "Tabulated", "Tabulator"]

#: Digest of a family and the sets an address of the class is in.
ClassId = NewType("ClassId", str)
#: Digest of a direction and a stack of tiers.
StackId = NewType("StackId", str)

_NO_MEMBERS: Final = Members()


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressClass:
    """All addresses of one family that are in exactly these sets."""

    id: ClassId
    family: int
    sets: frozenset[SetId]


@dataclass(slots=True, kw_only=True)
class StackTables:
    """The decision tables of one stack of tiers.

    ``default`` (by family) is for addresses of no class. ``tables`` holds only classes for which the table differs from it.
    ``to_self`` decides about traffic from the endpoint to itself; None: always allowed.
    """

    id: StackId
    stack: Stack
    default: Mapping[int, Table]
    tables: dict[ClassId, Table]
    to_self: StackTables | None
    flat: FlatStack
    _memo: dict[tuple[int, frozenset[SetId]], Table] = field(default_factory=dict)

    def table(self, address_class: AddressClass) -> Table | None:
        """Compute the table for a class; None where it equals the default."""
        inside = self.flat.sets & address_class.sets
        if not inside:
            return None
        key = (address_class.family, inside)
        table = self._memo.get(key)
        if table is None:
            table = self._memo[key] = self.flat.table(*key)
        return None if table == self.default[address_class.family] else table

    def find(self, class_id: ClassId | None, family: int) -> Table:
        """Return the table for addresses of a class, or of none."""
        return self.default[family] if class_id is None else self.tables.get(class_id, self.default[family])


@dataclass(slots=True, kw_only=True)
class Tabulated:
    """What an update changed. A value of None means: gone."""

    hosts: dict[Cidr, ClassId | None] = field(default_factory=dict)
    prefixes: dict[Cidr, ClassId | None] = field(default_factory=dict)
    classes_added: set[ClassId] = field(default_factory=set)
    classes_removed: set[ClassId] = field(default_factory=set)
    stacks_added: set[StackId] = field(default_factory=set)
    stacks_removed: set[StackId] = field(default_factory=set)
    tables: dict[tuple[StackId, ClassId], Table | None] = field(default_factory=dict)
    endpoints: dict[EndpointId, StackId | None] = field(default_factory=dict)


class Tabulator:
    """The tables of one direction, kept up to date delta by delta. A state machine without I/O.

    Its mappings are for reading. ``hosts`` and ``prefixes`` together classify an address: the host entry if there is one,
    else the longest prefix, else no class. ``endpoints`` has only those that are subject to policy in this direction.
    """

    def __init__(self, direction: Direction) -> None:
        self.direction: Final = direction
        self.hosts: Final[dict[Cidr, ClassId]] = {}
        self.prefixes: Final[dict[Cidr, ClassId]] = {}
        self.classes: Final[dict[ClassId, AddressClass]] = {}
        self.stacks: Final[dict[StackId, StackTables]] = {}
        self.endpoints: Final[dict[EndpointId, StackId]] = {}
        self._stack_users: Final[Counter[StackId]] = Counter()
        self._stack_ids: Final[dict[Stack, StackId]] = {}
        self._stacks_by_set: Final[dict[SetId, set[StackId]]] = {}
        self._classes_by_set: Final[dict[SetId, set[ClassId]]] = {}
        self._class_users: Final[Counter[ClassId]] = Counter()
        self._class_ids: Final[dict[tuple[int, frozenset[SetId]], ClassId]] = {}
        #: Members of the used sets as they are classified now.
        self._members: Final[dict[SetId, Members]] = {}
        #: Sets that hold exactly this prefix; the set objects are shared between prefixes.
        self._direct: Final[dict[Cidr, frozenset[SetId]]] = {}
        self._interned: Final[dict[frozenset[SetId], frozenset[SetId]]] = {}
        #: How many prefixes that are no hosts there are, by family and length.
        self._lengths: Final[Counter[tuple[int, int]]] = Counter()

    @classmethod
    def of(cls, direction: Direction, delta: Delta) -> Tabulator:
        """Return the tables of a delta's target, whose base must be empty."""
        tabulator = cls(direction)
        tabulator.update(delta)
        return tabulator

    def classify(self, address: Cidr) -> ClassId | None:
        """Return the class of a host address, None if it is in no used set."""
        if address in self.hosts:
            return self.hosts[address]
        for length in self._lengths_of(address.family):
            class_id = self.prefixes.get(address.prefix(length))
            if class_id is not None:
                return class_id
        return None

    def update(self, delta: Delta) -> Tabulated:
        """Follow a delta whose base is what the last update left; return what changed in the tables."""
        changes = Tabulated()
        doomed = self._update_endpoints(delta, changes)
        touched = {operation.set.id for operation in delta.operations if isinstance(operation, PutSet)}
        touched.update(operation.id for operation in delta.operations if isinstance(operation, ChangeMembers))
        touched.update(set_id for stack_id in (*changes.stacks_added, *doomed) for set_id in self.stacks[stack_id].flat.sets)
        for stack_id in doomed:
            for set_id in self.stacks[stack_id].flat.sets:
                self._stacks_by_set[set_id].discard(stack_id)
                if not self._stacks_by_set[set_id]:
                    del self._stacks_by_set[set_id]
        self._update_addresses(delta.target, touched, changes)
        self._add_tables(changes)
        for stack_id in doomed:
            self._remove_stack(stack_id, changes)
        return changes

    # --- endpoints and stacks ---

    def _update_endpoints(self, delta: Delta, changes: Tabulated) -> list[StackId]:
        """Point endpoints at their stacks; return the stacks that nobody uses any more."""
        left: set[StackId] = set()
        for operation in delta.operations:
            if isinstance(operation, PutEndpoint):
                endpoint_id, stack = operation.endpoint.id, operation.endpoint.stack(self.direction)
            elif isinstance(operation, RemoveEndpoint):
                endpoint_id, stack = operation.id, ()
            else:
                continue
            old = self.endpoints.get(endpoint_id)
            new = self._acquire_stack(stack, delta.target, changes) if stack else None
            if old is not None:
                self._stack_users[old] -= 1
                left.add(old)
            if new == old:
                continue
            changes.endpoints[endpoint_id] = new
            if new is None:
                del self.endpoints[endpoint_id]
            else:
                self.endpoints[endpoint_id] = new
        return sorted(stack_id for stack_id in left if self._stack_users[stack_id] == 0)

    def _acquire_stack(self, stack: Stack, program: Program, changes: Tabulated) -> StackId:
        stack_id = self._stack_ids.get(stack)
        if stack_id is None:
            stack_id = self._stack_ids[stack] = StackId(digest(self.direction, repr(stack)))
            self.stacks[stack_id] = _tables_of(stack_id, stack, program)
            for set_id in self.stacks[stack_id].flat.sets:
                self._stacks_by_set.setdefault(set_id, set()).add(stack_id)
            changes.stacks_added.add(stack_id)
        self._stack_users[stack_id] += 1
        return stack_id

    def _remove_stack(self, stack_id: StackId, changes: Tabulated) -> None:
        tables = self.stacks.pop(stack_id)
        del self._stack_ids[tables.stack], self._stack_users[stack_id]
        for class_id in tables.tables:
            changes.tables[stack_id, class_id] = None
        if stack_id in changes.stacks_added:
            changes.stacks_added.discard(stack_id)
        else:
            changes.stacks_removed.add(stack_id)

    # --- addresses and classes ---

    def _update_addresses(self, program: Program, touched: set[SetId], changes: Tabulated) -> None:
        """Bring the classes in line with the members of the used sets; ``touched`` names all sets that may differ."""
        dirty: set[Cidr] = set()
        for set_id in touched:
            used = set_id in self._stacks_by_set
            if not used and set_id not in self._members:
                continue
            wanted = program.sets[set_id].members if used else _NO_MEMBERS
            added, removed = wanted.difference_from(self._members.get(set_id, _NO_MEMBERS))
            for cidr in added:
                self._set_direct(cidr, self._direct.get(cidr, frozenset()) | {set_id})
            for cidr in removed:
                self._set_direct(cidr, self._direct[cidr] - {set_id})
            dirty |= added | removed
            if used:
                self._members[set_id] = wanted
            else:
                del self._members[set_id]
        self._reclassify(dirty, changes)

    def _set_direct(self, cidr: Cidr, sets: frozenset[SetId]) -> None:
        known = cidr in self._direct
        if sets:
            if len(self._interned) > 2 * len(self._direct) + 1024:
                self._interned.clear()
            self._direct[cidr] = self._interned.setdefault(sets, sets)
        else:
            del self._direct[cidr]
        if not cidr.is_host and known != bool(sets):
            key = (cidr.family, cidr.length)
            self._lengths[key] += 1 if sets else -1
            if not self._lengths[key]:
                del self._lengths[key]

    def _reclassify(self, dirty: set[Cidr], changes: Tabulated) -> None:
        """Recompute the class of every dirty prefix and of all that a dirty prefix covers."""
        parents: dict[int, dict[int, set[Cidr]]] = {}
        for cidr in dirty:
            if not cidr.is_host:
                parents.setdefault(cidr.family, {}).setdefault(cidr.length, set()).add(cidr)
        affected = set(dirty)
        if parents:
            affected.update(
                cidr
                for cidr in self._direct
                if any(cidr.length > length and cidr.prefix(length) in group for length, group in parents.get(cidr.family, {}).items())
            )
        lengths = {family: self._lengths_of(family) for family in BITS}
        released: list[ClassId] = []
        for cidr in affected:
            where, report = (self.hosts, changes.hosts) if cidr.is_host else (self.prefixes, changes.prefixes)
            old = where.get(cidr)
            new = self._class_of(cidr, lengths[cidr.family], changes) if cidr in self._direct else None
            if new == old:
                continue
            report[cidr] = new
            if new is None:
                del where[cidr]
            else:
                where[cidr] = new
                self._class_users[new] += 1
            if old is not None:
                self._class_users[old] -= 1
                released.append(old)
        for class_id in released:
            if class_id in self.classes and not self._class_users[class_id]:
                self._remove_class(class_id, changes)

    def _lengths_of(self, family: int) -> list[int]:
        """Lengths of the prefixes in use that are no hosts, longest first."""
        return sorted((length for of, length in self._lengths if of == family), reverse=True)

    def _class_of(self, cidr: Cidr, lengths: Iterable[int], changes: Tabulated) -> ClassId:
        sets = self._direct[cidr]
        for length in lengths:
            if length < cidr.length:
                sets |= self._direct.get(cidr.prefix(length), frozenset())
        key = (cidr.family, sets)
        class_id = self._class_ids.get(key)
        if class_id is None:
            class_id = self._class_ids[key] = ClassId(digest(str(int(cidr.family)), *sorted(sets)))
            self.classes[class_id] = AddressClass(id=class_id, family=cidr.family, sets=sets)
            for set_id in sets:
                self._classes_by_set.setdefault(set_id, set()).add(class_id)
            changes.classes_added.add(class_id)
        return class_id

    def _remove_class(self, class_id: ClassId, changes: Tabulated) -> None:
        address_class = self.classes.pop(class_id)
        del self._class_ids[address_class.family, address_class.sets], self._class_users[class_id]
        for set_id in address_class.sets:
            self._classes_by_set[set_id].discard(class_id)
            if not self._classes_by_set[set_id]:
                del self._classes_by_set[set_id]
        for stack_id in {stack_id for set_id in address_class.sets for stack_id in self._stacks_by_set.get(set_id, ())}:
            tables = self.stacks[stack_id]
            if tables.tables.pop(class_id, None) is not None:
                changes.tables[stack_id, class_id] = None
            if tables.to_self is not None:
                tables.to_self.tables.pop(class_id, None)
        changes.classes_removed.add(class_id)

    # --- tables ---

    def _add_tables(self, changes: Tabulated) -> None:
        """Compute the tables of every new stack for the classes it can tell apart, and of every new class for its stacks."""
        pairs = {
            (stack_id, class_id)
            for stack_id in changes.stacks_added
            for set_id in self.stacks[stack_id].flat.sets
            for class_id in self._classes_by_set.get(set_id, ())
        }
        pairs.update(
            (stack_id, class_id)
            for class_id in changes.classes_added
            for set_id in self.classes[class_id].sets
            for stack_id in self._stacks_by_set.get(set_id, ())
        )
        for stack_id, class_id in sorted(pairs):
            tables, address_class = self.stacks[stack_id], self.classes[class_id]
            table = tables.table(address_class)
            if table is not None:
                tables.tables[class_id] = table
                changes.tables[stack_id, class_id] = table
            if tables.to_self is not None and tables.to_self is not tables:
                own = tables.to_self.table(address_class)
                if own is not None:
                    tables.to_self.tables[class_id] = own


def _tables_of(stack_id: StackId, stack: Stack, program: Program) -> StackTables:
    flat = FlatStack(stack, program.policies)
    default = {family: flat.table(family, frozenset()) for family in BITS}
    tables = StackTables(id=stack_id, stack=stack, default=default, tables={}, to_self=None, flat=flat)
    reduced = tuple(tier for tier in stack if not tier.exempts_self)
    if reduced == stack:
        tables.to_self = tables
    elif reduced:
        tables.to_self = _tables_of(StackId(digest("to self", stack_id)), reduced, program)
    return tables
