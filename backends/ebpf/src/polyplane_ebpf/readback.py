"""The maps as a program again: one that decides as they do, in the words of the IR. Pure; what ``polyplane show --from-kernel`` prints.

The kernel holds classes and decision tables, not the policies they were made of, and neither names of pods nor of policies: a stack
comes back as one policy, a class as address sets, an endpoint under its number. Rule ids are the real ones.

An address belongs to the longest prefix that it is in. In a program the first rule that matches decides, so the rules of a stack
speak of the longest prefixes first.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Final, NamedTuple

from polyplane.ir.cidr import Cidr, Family
from polyplane.ir.members import Members
from polyplane.ir.program import (
    ICMP,
    ICMPV6,
    Action,
    AddressSet,
    DenyAction,
    Direction,
    Endpoint,
    EndpointId,
    Established,
    IcmpType,
    Isolation,
    Match,
    Options,
    Origin,
    PeerTerm,
    Policy,
    PolicyId,
    PortRange,
    Program,
    Rule,
    SetId,
    Stack,
    Tier,
    TierEnd,
)
from polyplane.ir.tables import merge_ranges
from polyplane_ebpf import encode
from polyplane_ebpf.encode import EndpointValue, Settings

#: Id of a rule that stands for "no rule decided, and nothing isolates".
NO_RULE: Final = (1 << 32) - 1
_ALL: Final = (PortRange(0, 65535),)

Content = Mapping[str, Mapping[bytes, bytes]]


class _End(NamedTuple):
    """Where a packet ends, and what is logged on the way."""

    rule: int
    allow: bool
    logs: tuple[int, ...] = ()


#: Which numbers of a path (source ports, or ICMP types and codes) end where.
_Ends = tuple[tuple[tuple[PortRange, ...], _End], ...]


class _Row(NamedTuple):
    """One row of a decision table; ``protocol`` None: everything no other row speaks of."""

    protocol: int | None
    ports: tuple[PortRange, ...]
    ends: _Ends


_Table = tuple[_Row, ...]
#: What is classified for one direction and view: by family and length of the prefix, then by class.
_Addresses = dict[tuple[int, int], dict[int, list[Cidr]]]


def program_of(content: Content, settings: Settings, names: Mapping[int, str]) -> Program:
    """Return a program that decides as the maps do; ``names`` of the node's interfaces by number."""
    return _Reader(content).program(settings, names)


class _Reader:
    def __init__(self, content: Content) -> None:
        self._content: Final = content
        self._tables: Final = _tables(content["policy"], _paths(content["paths"]))
        self._addresses: Final = _addresses(content)
        self._sets: dict[SetId, AddressSet] = {}
        self._policies: dict[PolicyId, Policy] = {}

    def program(self, settings: Settings, names: Mapping[int, str]) -> Program:
        values: dict[int, EndpointValue] = {}
        addresses: defaultdict[int, list[Cidr]] = defaultdict(list)
        for key, packed in self._content["owners"].items():
            value = EndpointValue.unpack(packed)
            values[value.id] = value
            addresses[value.id].append(encode.read_owner_key(key))
        interfaces = {}
        for key, packed in self._content["interfaces"].items():
            value = EndpointValue.unpack(packed)
            values[value.id] = value  # the interface is asked before the address
            interfaces[value.id] = names.get(int.from_bytes(key, sys.byteorder))
        endpoints = {}
        for number in sorted(addresses):
            name = EndpointId(f"{number:016x}")
            own = tuple(sorted(addresses[number]))
            ingress, egress = (self._stack(side, values[number], own) for side in (Direction.INGRESS, Direction.EGRESS))
            endpoints[name] = Endpoint(id=name, interface=interfaces.get(number), addresses=own, ingress=ingress, egress=egress)
        options = Options(
            established=Established.KEEP if settings.keep else Established.RECHECK,
            deny_action=DenyAction.REJECT if settings.reject else DenyAction.DROP,
        )
        node = frozenset(encode.read_owner_key(key) for key in self._content["node"])
        return Program(endpoints=endpoints, policies=self._policies, sets=self._sets, node_addresses=node, options=options)

    def _stack(self, direction: Direction, value: EndpointValue, own: tuple[Cidr, ...]) -> Stack:
        stack, to_self = (value.ingress, value.self_ingress) if direction is Direction.INGRESS else (value.egress, value.self_egress)
        if not stack:
            return ()
        policies = [self._policy(direction, value.view, stack)]
        if to_self not in {0, stack}:
            policies.insert(0, self._policy(direction, value.view, to_self, f"{value.id:016x}", own))
        # What has no row is closed.
        closed = Isolation(id=0, origins=())
        return (Tier(name="kernel", policies=tuple(policies), end=TierEnd.DENY, isolation=closed, exempts_self=not to_self),)

    def _policy(self, direction: Direction, view: int, stack: int, who: str = "", own: tuple[Cidr, ...] = ()) -> PolicyId:
        """Return the policy for a stack; ``own``: what it says to the addresses of the endpoint ``who`` only."""
        name = PolicyId(".".join([f"{stack:016x}", *([f"view-{view}"] if view else []), *([who] if who else [])]))
        if name not in self._policies:
            only: tuple[PeerTerm, ...] = ()
            if who:
                only = (PeerTerm((self._set(f"{who}.itself", own),)),)
            origin = Origin(kind="Kernel", namespace="", name=f"{stack:016x}", direction=direction)
            rules = tuple(self._rules(direction, view, stack, only, origin))
            self._policies[name] = Policy(id=name, direction=direction, rules=rules)
        return name

    def _rules(self, direction: Direction, view: int, stack: int, only: tuple[PeerTerm, ...], origin: Origin) -> Iterator[Rule]:
        levels: list[tuple[Family, int, tuple[PeerTerm, ...], _Table]] = []
        for family in Family:
            default = self._tables.get((stack, encode.FALLBACK[family]), ())
            differs = False
            lengths = self._addresses.get((direction, view), {})
            for length in sorted(length for known, length in lengths if known == family):
                groups: defaultdict[_Table, list[SetId]] = defaultdict(list)
                for class_id, members in sorted(lengths[family, length].items()):
                    table = self._tables.get((stack, class_id), default)
                    differs = differs or table != default
                    if differs:  # else whatever is shorter says the same
                        groups[table].append(self._class_set(direction, view, class_id, length, members))
                levels += [(family, length, (PeerTerm(tuple(sorted(sets))),), table) for table, sets in groups.items()]
            levels.append((family, -1, (), default))
        levels.sort(key=lambda level: (level[0], -level[1]))
        for family, length, peer, table in levels:
            match = Match(family=None if length >= 0 else family, peer=(*only, *peer))
            for row in table:
                yield from _rules_of(row, match, origin)

    def _class_set(self, direction: Direction, view: int, class_id: int, length: int, members: list[Cidr]) -> SetId:
        name = ".".join([f"{class_id:016x}", direction, str(length), *([f"view-{view}"] if view else [])])
        return self._set(name, members)

    def _set(self, name: str, members: Iterable[Cidr]) -> SetId:
        set_id = SetId(name)
        if set_id not in self._sets:
            self._sets[set_id] = AddressSet(id=set_id, label="", members=Members(members))
        return set_id


def _rules_of(row: _Row, match: Match, origin: Origin) -> Iterator[Rule]:
    match = replace(match, protocol=row.protocol, ports=() if row.ports == _ALL else row.ports)
    for numbers, end in row.ends:
        narrowed = match
        if numbers != _ALL and row.protocol in {ICMP, ICMPV6}:
            narrowed = replace(match, icmp=tuple(_icmp_types(numbers)))
        elif numbers != _ALL and row.protocol is not None:
            narrowed = replace(match, source_ports=numbers)
        for log in end.logs:
            yield Rule(id=log, action=Action.LOG, match=narrowed, origin=origin)
        if end.rule:
            yield Rule(id=end.rule, action=Action.ALLOW if end.allow else Action.DENY, match=narrowed, origin=origin)
        else:
            yield Rule(id=NO_RULE, action=Action.PASS if end.allow else Action.DENY, match=narrowed, origin=origin)


def _icmp_types(numbers: Iterable[PortRange]) -> Iterator[IcmpType]:
    """Yield what numbers of type and code stand for."""
    for first, last in numbers:
        number = first
        while number <= last:
            if number & 255 == 0 and number + 255 <= last:
                yield IcmpType(number >> 8)
                number += 256
            else:
                yield IcmpType(number >> 8, number & 255)
                number += 1


def _addresses(content: Content) -> dict[tuple[Direction, int], _Addresses]:
    found: defaultdict[tuple[Direction, int], _Addresses] = defaultdict(dict)
    entries = {encode.read_prefix_key(key): value for key, value in content["prefixes"].items()}
    entries |= {encode.read_host_key(key): value for key, value in content["hosts"].items()}
    for (scope, cidr), value in entries.items():
        level = found[scope.direction, scope.view].setdefault((cidr.family, cidr.length), {})
        level.setdefault(encode.read_class(value), []).append(cidr)
    return found


def _paths(content: Mapping[bytes, bytes]) -> dict[int, _Ends]:
    ranges: defaultdict[int, defaultdict[_End, list[PortRange]]] = defaultdict(lambda: defaultdict(list))
    for key, value in content.items():
        path, numbers = encode.read_path_key(key)
        ranges[path][_End(*encode.read_path_value(value))].append(numbers)
    return {path: tuple((_merged(numbers), end) for end, numbers in ends.items()) for path, ends in ranges.items()}


def _tables(content: Mapping[bytes, bytes], paths: Mapping[int, _Ends]) -> dict[tuple[int, int], _Table]:
    found: defaultdict[tuple[int, int], defaultdict[tuple[int | None, bytes], list[PortRange]]]
    found = defaultdict(lambda: defaultdict(list))
    for key, value in content.items():
        stack, class_id, protocol, ports = encode.read_policy_key(key)
        found[stack, class_id][protocol, value].append(ports)
    return {
        pair: tuple(
            sorted(
                (_Row(protocol, _merged(ports), _ends(value, paths)) for (protocol, value), ports in rows.items()),
                key=lambda row: (row.protocol is None, row.protocol or 0, row.ports),
            )
        )
        for pair, rows in found.items()
    }


def _ends(value: bytes, paths: Mapping[int, _Ends]) -> _Ends:
    path, rule, allow = encode.read_policy_value(value)
    return paths.get(path, ()) if path else ((_ALL, _End(rule, allow)),)


def _merged(ranges: Iterable[PortRange]) -> tuple[PortRange, ...]:
    return tuple(PortRange(first, last) for first, last in merge_ranges(ranges))
