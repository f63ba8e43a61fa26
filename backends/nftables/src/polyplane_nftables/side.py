"""`Side`: one direction's tables in native form.

A packet of a subject endpoint is classified by the address at its other end (exact address, else range, else no class), and
the class's chain sends it by the endpoint's interface or address to the decision chain of that endpoint's stack for that
class. Where a class makes no difference to a stack there is no element, and the packet falls to the stack's default.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from polyplane.backend_kit.attachments import Attachment, Attachments
from polyplane.ir.cidr import BITS, Cidr
from polyplane.ir.delta import Delta
from polyplane.ir.program import Direction, EndpointId
from polyplane.ir.tabulate import ClassId, StackId, Tabulated, Tabulator
from polyplane_nftables.decisions import Decisions
from polyplane_nftables.native import Chain, Kind, Native, Rule
from polyplane_nftables.owned import ADDRESS_TYPE, KEYWORD, PROTOCOL_FAMILY, Names
from polyplane_nftables.ranges import Segments, address_text, span_text

_PROTOCOL_NAME: Final = {4: "ipv4", 6: "ipv6"}
_INTERFACES: Final = Kind("ifname", is_map=False)
_BY_INTERFACE: Final = Kind("ifname", is_map=True)


@dataclass(slots=True)
class _Stack:
    """A stack's decision chains, and who uses it."""

    default: dict[int, str]
    classes: dict[ClassId, str] = field(default_factory=dict)
    users: set[EndpointId] = field(default_factory=set)


@dataclass(slots=True)
class _Own:
    """Elements that decide about an endpoint's traffic to itself, and the decision chains they hold."""

    elements: list[tuple[str, str]] = field(default_factory=list)
    held: list[str] = field(default_factory=list)
    #: Addresses whose class the elements depend on.
    classified: tuple[Cidr, ...] = ()


class Side:
    """Everything that belongs to one direction; writes into the table's `Native`."""

    def __init__(self, direction: Direction, native: Native, decisions: Decisions) -> None:
        self.names: Final = Names(direction)
        self._tabulator: Final = Tabulator(direction)
        self._native: Final = native
        self._decisions: Final = decisions
        self._ingress: Final = direction is Direction.INGRESS
        self._stacks: Final[dict[StackId, _Stack]] = {}
        self._families: Final[dict[ClassId, int]] = {}
        self._class_of_map: Final[dict[str, ClassId]] = {}
        self._segments: Final = {family: Segments(family) for family in BITS}
        self._placed: Final[dict[EndpointId, tuple[Attachment, StackId]]] = {}
        self._bound: Final[Counter[Cidr]] = Counter()
        self._own: Final[dict[EndpointId, _Own]] = {}
        self._own_addresses: Final[dict[Cidr, EndpointId]] = {}
        self._lasting: Final = frozenset(self.names.hosts(family) for family in BITS)
        #: Types of the sets and maps that are not a class's.
        self._kinds: Final[dict[str, Kind]] = {self.names.interfaces: _INTERFACES}
        for family in BITS:
            self._kinds.update(self._kinds_of(family))

    def update(self, delta: Delta, attachments: Attachments, moved: Iterable[EndpointId]) -> None:
        """Follow a delta; ``moved`` are the endpoints whose attachment may have changed."""
        tables = self._tabulator.update(delta)
        for class_id in tables.classes_added:
            for by_interface in (True, False):
                self._class_of_map[self.names.class_map(class_id, by_interface=by_interface)] = class_id
        self._families.update((class_id, self._tabulator.classes[class_id].family) for class_id in tables.classes_added)
        leaving = {endpoint_id for endpoint_id in (*tables.endpoints, *moved) if endpoint_id in self._placed}
        for endpoint_id in leaving:
            self._remove_endpoint(endpoint_id)
        self._update_stacks(tables)
        changed = {*leaving, *tables.endpoints, *moved}
        for endpoint_id in sorted(changed):
            stack_id, attachment = self._tabulator.endpoints.get(endpoint_id), attachments.of(endpoint_id)
            if stack_id is not None and attachment is not None:
                self._place_endpoint(endpoint_id, attachment, stack_id)
        self._update_addresses(tables)
        self._update_own(tables, changed)
        self._write_chains(tables)

    # --- stacks and endpoints ---

    def _update_stacks(self, tables: Tabulated) -> None:
        for stack_id in sorted(tables.stacks_added):
            default = self._tabulator.stacks[stack_id].default
            self._stacks[stack_id] = _Stack({family: self._decisions.hold(default[family]) for family in BITS})
        for (stack_id, class_id), table in sorted(tables.tables.items(), key=lambda item: item[0]):
            stack = self._stacks.get(stack_id)
            if stack is None:
                continue
            old = stack.classes.pop(class_id, None)
            chain = None
            if table is not None:
                chain = stack.classes[class_id] = self._decisions.hold(table)
            for endpoint_id in stack.users:
                self._write_class(self._placed[endpoint_id][0], class_id, chain)
            if old is not None:
                self._decisions.release(old)
        for stack_id in sorted(tables.stacks_removed):
            for chain in self._stacks.pop(stack_id).default.values():
                self._decisions.release(chain)

    def _place_endpoint(self, endpoint_id: EndpointId, attachment: Attachment, stack_id: StackId) -> None:
        self._placed[endpoint_id] = (attachment, stack_id)
        stack = self._stacks[stack_id]
        stack.users.add(endpoint_id)
        self._write_endpoint(attachment, stack, present=True)

    def _remove_endpoint(self, endpoint_id: EndpointId) -> None:
        attachment, stack_id = self._placed.pop(endpoint_id)
        stack = self._stacks[stack_id]
        stack.users.discard(endpoint_id)
        self._write_endpoint(attachment, stack, present=False)

    def _write_endpoint(self, attachment: Attachment, stack: _Stack, *, present: bool) -> None:
        names, value = self.names, "" if present else None
        if attachment.interface is not None:
            self._native.set_element(names.interfaces, _quoted(attachment.interface), value)
            for family, chain in stack.default.items():
                self._native.set_element(
                    names.default(family, by_interface=True), _quoted(attachment.interface), f"goto {chain}" if present else None
                )
            for address in attachment.own:
                self._bind(address, present=present)
        for address in attachment.addresses:
            family, text = address.family, address_text(address.family, address.address)
            self._native.set_element(names.addresses(family), text, value)
            self._native.set_element(names.default(family, by_interface=False), text, f"goto {stack.default[family]}" if present else None)
        for class_id, chain in stack.classes.items():
            self._write_class(attachment, class_id, chain if present else None)

    def _bind(self, address: Cidr, *, present: bool) -> None:
        """Hold an address to its endpoint's interface; two endpoints may claim one, so it is counted."""
        self._bound[address] += 1 if present else -1
        if not self._bound[address]:
            del self._bound[address]
        value = "" if address in self._bound else None
        self._native.set_element(self.names.bound(address.family), address_text(address.family, address.address), value)

    def _write_class(self, attachment: Attachment, class_id: ClassId, chain: str | None) -> None:
        value = None if chain is None else f"goto {chain}"
        if attachment.interface is not None:
            self._native.set_element(self.names.class_map(class_id, by_interface=True), _quoted(attachment.interface), value)
            return
        for address in attachment.addresses:
            if self._families[class_id] == address.family:
                name = self.names.class_map(class_id, by_interface=False)
                self._native.set_element(name, address_text(address.family, address.address), value)

    # --- addresses and classes ---

    def _update_addresses(self, tables: Tabulated) -> None:
        for cidr, class_id in tables.hosts.items():
            key = address_text(cidr.family, cidr.address)
            self._native.set_element(self.names.hosts(cidr.family), key, self._to_class(class_id))
        for family, segments in self._segments.items():
            changes = {cidr: class_id for cidr, class_id in tables.prefixes.items() if cidr.family == family}
            for span, class_id in segments.update(changes).items():
                key = f"{span_text(family, span)} . {PROTOCOL_FAMILY[family]}"
                self._native.set_element(self.names.networks(family), key, self._to_class(class_id))

    def _to_class(self, class_id: ClassId | None) -> str | None:
        return None if class_id is None else f"goto {self.names.class_chain(class_id)}"

    # --- traffic from an endpoint to itself ---

    def _update_own(self, tables: Tabulated, changed: set[EndpointId]) -> None:
        """Rewrite the elements of endpoints that came, went or moved, and of those whose own addresses changed class."""
        dirty = changed | {self._own_addresses[cidr] for cidr in tables.hosts if cidr in self._own_addresses}
        if tables.prefixes:
            dirty.update(self._own_addresses.values())
        for endpoint_id in sorted(dirty):
            old = self._own.pop(endpoint_id, _Own())
            for collection, key in old.elements:
                self._native.set_element(collection, key, None)
            for address in old.classified:
                self._own_addresses.pop(address, None)
            if endpoint_id in self._placed:
                own = self._write_own(*self._placed[endpoint_id])
                self._own_addresses.update(dict.fromkeys(own.classified, endpoint_id))
                if own.elements:
                    self._own[endpoint_id] = own
            for chain in old.held:
                self._decisions.release(chain)

    def _write_own(self, attachment: Attachment, stack_id: StackId) -> _Own:
        """The interface is part of the key: a forged packet from elsewhere is no traffic to itself."""
        own = _Own()
        stack = self._tabulator.stacks[stack_id]
        if stack.to_self is stack:
            return own
        by_interface = attachment.interface is not None
        where = f"{_quoted(attachment.interface)} . " if attachment.interface is not None else ""
        addresses = attachment.own if by_interface else attachment.addresses
        for source in addresses:
            for destination in (address for address in addresses if address.family == source.family):
                value = "return"
                if stack.to_self is not None:
                    class_id = self._tabulator.classify(source if self._ingress else destination)
                    chain = self._decisions.hold(stack.to_self.find(class_id, source.family))
                    own.held.append(chain)
                    value = f"goto {chain}"
                name = self.names.to_self(source.family, by_interface=by_interface)
                texts = (address_text(address.family, address.address) for address in (source, destination))
                key = where + " . ".join(texts)
                self._native.set_element(name, key, value)
                own.elements.append((name, key))
        if stack.to_self is not None:
            own.classified = addresses
        return own

    # --- definitions and the chains around the maps ---

    def _write_chains(self, tables: Tabulated) -> None:
        stale = set(tables.classes_added)
        for name in self._native.touched():
            if name in self._class_of_map:
                stale.add(self._class_of_map[name])
        for name, kind in self._kinds.items():
            self._native.set_kind(name, kind if self._exists(name) else None)
        for class_id in sorted(stale - tables.classes_removed):
            self._write_class_chain(class_id, self._families[class_id])
        for class_id in sorted(tables.classes_removed):
            for by_interface in (True, False):
                name = self.names.class_map(class_id, by_interface=by_interface)
                self._native.set_kind(name, None)
                del self._class_of_map[name]
            self._native.set_chain(self.names.class_chain(class_id), None)
            del self._families[class_id]
        self._native.set_chain(self.names.entry, Chain(tuple(self._entry_rules())))
        for family in BITS:
            self._native.set_chain(self.names.classify(family), Chain(tuple(self._classify_rules(family))))
            self._native.set_chain(self.names.rest(family), Chain(tuple(self._rest_rules(family))))

    def _write_class_chain(self, class_id: ClassId, family: int) -> None:
        rules = []
        for by_interface, kind in ((True, _BY_INTERFACE), (False, Kind(ADDRESS_TYPE[family], is_map=True))):
            name = self.names.class_map(class_id, by_interface=by_interface)
            present = name in self._native.elements
            self._native.set_kind(name, kind if present else None)
            if present:
                rules.append(Rule(f"{self._near(family, by_interface=by_interface)} vmap @{name}"))
        rules.append(Rule(f"goto {self.names.rest(family)}"))
        self._native.set_chain(self.names.class_chain(class_id), Chain(tuple(rules)))

    def _entry_rules(self) -> Iterator[Rule]:
        """Let traffic that concerns no subject endpoint leave after one or two lookups."""
        names = self.names
        for family in BITS:
            if names.interfaces in self._native.elements:
                condition = f"{self._near(family, by_interface=True)} @{names.interfaces} goto {names.classify(family)}"
                protocol = PROTOCOL_FAMILY[family]
                yield Rule(f"meta nfproto {_PROTOCOL_NAME[family]} {condition}", listed=f"meta nfproto {protocol} {condition}")
            if names.addresses(family) in self._native.elements:
                yield Rule(f"{self._near(family, by_interface=False)} @{names.addresses(family)} goto {names.classify(family)}")
        # Forged, or the interface that we were told is not the endpoint's: then nothing above would have applied its policy.
        for family in BITS:
            if names.bound(family) in self._native.elements:
                yield Rule(f"{self._near(family, by_interface=False)} @{names.bound(family)} counter drop", "not at its interface")

    def _classify_rules(self, family: int) -> Iterator[Rule]:
        names, keyword = self.names, KEYWORD[family]
        peer = f"{keyword} {'saddr' if self._ingress else 'daddr'}"
        lookups = (
            (f"iifname . {keyword} saddr . {keyword} daddr", names.to_self(family, by_interface=True)),
            (f"{keyword} saddr . {keyword} daddr", names.to_self(family, by_interface=False)),
            (peer, names.hosts(family)),
            (f"{peer} . meta nfproto", names.networks(family)),
        )
        for key, name in lookups:
            if self._exists(name):
                yield Rule(f"{key} vmap @{name}")
        yield Rule(f"goto {names.rest(family)}")

    def _exists(self, name: str) -> bool:
        """Whether a map or set is there: while it has elements, and those that pods come and go in while there is any policy."""
        return name in self._native.elements or (bool(self._stacks) and name in self._lasting)

    def _rest_rules(self, family: int) -> Iterator[Rule]:
        for by_interface in (True, False):
            name = self.names.default(family, by_interface=by_interface)
            if name in self._native.elements:
                yield Rule(f"{self._near(family, by_interface=by_interface)} vmap @{name}")
        # Reached only if somebody took an element away: no decision denies.
        yield Rule("counter drop", "no decision")

    def _near(self, family: int, *, by_interface: bool) -> str:
        """The part of a packet that says whose endpoint it is."""
        if by_interface:
            return "oifname" if self._ingress else "iifname"
        return f"{KEYWORD[family]} {'daddr' if self._ingress else 'saddr'}"

    def _kinds_of(self, family: int) -> Iterator[tuple[str, Kind]]:
        names, address = self.names, ADDRESS_TYPE[family]
        yield names.addresses(family), Kind(address, is_map=False)
        yield names.bound(family), Kind(address, is_map=False)
        yield names.hosts(family), Kind(address, is_map=True)
        # The second part of the key says nothing new. It makes the map a concatenated one: nft 1.0.6 reads all plain interval
        # sets of the network namespace before it edits any element of any set (1.4 s at 100,000 ranges), but not these.
        yield names.networks(family), Kind(f"{address} . nf_proto", is_map=True, intervals=True)
        yield names.to_self(family, by_interface=True), Kind(f"ifname . {address} . {address}", is_map=True)
        yield names.to_self(family, by_interface=False), Kind(f"{address} . {address}", is_map=True)
        yield names.default(family, by_interface=True), _BY_INTERFACE
        yield names.default(family, by_interface=False), Kind(address, is_map=True)


def _quoted(interface: str) -> str:
    """Quote an interface name; `is_usable_interface` has admitted only names that need no escapes."""
    return f'"{interface}"'
