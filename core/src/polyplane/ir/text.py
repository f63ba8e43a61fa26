"""The canonical text of a program: golden files, ``polyplane show``, bug reports.

One fact a line, everything sorted by name, names of the cluster in JSON quotes as soon as they are not plain words; ASCII
only. `parse_program` reads back exactly what `print_program` writes, and forgives blank lines, ``#`` comments and other
indentation. A name must be defined above the line that uses it: sets, then policies, then endpoints.

::

    program version=1 revision=3 established=recheck deny-action=drop
    node 10.0.0.1
    set 5d1c0ffee "pods(app=web) in namespace=shop"
      10.1.0.4
    policy 77aa ingress
      rule 12 allow protocol=tcp ports=80,443 peer=5d1c0ffee by NetworkPolicy shop/web ingress[0]
    endpoint shop/web-1 interface=veth12
      address 10.1.0.4
      ingress tier=networkpolicy end=deny isolation=13 self=exempt
        policy 77aa
        by NetworkPolicy shop/web ingress
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Final

from polyplane.ir.delta import ChangeMembers, Delta, Operation, PutEndpoint, PutNode, PutPolicy, PutSet, RemoveEndpoint, RemovePolicy
from polyplane.ir.parse import NONE, PROTOCOL_NAMES, parse_program
from polyplane.ir.program import IR_VERSION, AddressSet, Direction, Endpoint, Match, Origin, PeerTerm, Policy, Program, Rule, Tier

__all__ = ["parse_program", "print_delta", "print_object", "print_program"]

_PLAIN: Final = re.compile(r"[A-Za-z0-9_.:-]+")
_PLAIN_ID: Final = re.compile(r"[A-Za-z0-9_.:/-]+")


def print_program(program: Program) -> str:
    """Return the canonical text; equal content gives equal text, but for the revision."""
    return "".join(line + "\n" for line in _program(program))


def print_object(value: AddressSet | Policy | Endpoint) -> str:
    """Return the lines of one object of a program."""
    match value:
        case AddressSet():
            lines = _set(value)
        case Policy():
            lines = _policy(value)
        case _:
            lines = _endpoint(value)
    return "".join(line + "\n" for line in lines)


def print_delta(delta: Delta) -> str:
    """Return the delta's operations in order, one block each: ``+`` creates or replaces, ``~`` changes, ``-`` removes."""
    lines = [f"delta {delta.base.revision} -> {delta.target.revision}: {len(delta.operations)} operations"]
    for operation in delta.operations:
        lines += _operation(operation)
    return "".join(line + "\n" for line in lines)


def _operation(operation: Operation) -> Iterator[str]:
    match operation:
        case PutNode():
            options = operation.options
            yield f"+ node established={options.established} deny-action={options.deny_action}"
            yield from (f"  {address}" for address in sorted(operation.node_addresses))
        case PutSet(set=value):
            yield from _added(_set(value))
        case ChangeMembers():
            yield f"~ set {_id(operation.id)}"
            yield from (f"  + {member}" for member in sorted(operation.added))
            yield from (f"  - {member}" for member in sorted(operation.removed))
        case PutPolicy(policy=policy):
            yield from _added(_policy(policy))
        case PutEndpoint(endpoint=endpoint):
            yield from _added(_endpoint(endpoint))
        case RemoveEndpoint():
            yield f"- endpoint {_id(operation.id)}"
        case RemovePolicy():
            yield f"- policy {_id(operation.id)}"
        case _:
            yield f"- set {_id(operation.id)}"


def _added(lines: Iterable[str]) -> Iterator[str]:
    for index, line in enumerate(lines):
        yield f"+ {line}" if index == 0 else line


def _program(program: Program) -> Iterator[str]:
    options = program.options
    yield (f"program version={IR_VERSION} revision={program.revision} established={options.established} deny-action={options.deny_action}")
    for address in sorted(program.node_addresses):
        yield f"node {address}"
    for _, address_set in sorted(program.sets.items()):
        yield from _set(address_set)
    for _, policy in sorted(program.policies.items()):
        yield from _policy(policy)
    for _, endpoint in sorted(program.endpoints.items()):
        yield from _endpoint(endpoint)


def _set(value: AddressSet) -> Iterator[str]:
    yield f"set {_id(value.id)} {json.dumps(value.label)}"
    for member in sorted(value.members):
        yield f"  {member}"


def _policy(policy: Policy) -> Iterator[str]:
    yield f"policy {_id(policy.id)} {policy.direction}"
    for rule in policy.rules:
        yield f"  {_rule(rule)}"


def _rule(rule: Rule) -> str:
    return " ".join(["rule", str(rule.id), rule.action.value, *_match(rule.match), "by", _origin(rule.origin)])


def _match(match: Match) -> Iterator[str]:
    if match.family is not None:
        yield f"family=ipv{match.family.value}"
    if match.protocol is not None:
        yield f"protocol={_protocol(match.protocol)}"
    if match.not_protocol is not None:
        yield f"not-protocol={_protocol(match.not_protocol)}"
    for key, values in (
        ("ports", match.ports),
        ("not-ports", match.not_ports),
        ("source-ports", match.source_ports),
        ("not-source-ports", match.not_source_ports),
        ("icmp", match.icmp),
        ("not-icmp", match.not_icmp),
    ):
        if values:
            yield f"{key}={','.join(map(str, values))}"
    for term in match.peer:
        yield f"peer={_term(term)}"


def _term(term: PeerTerm) -> str:
    return ("!" if term.negated else "") + (",".join(map(_id, term.sets)) or NONE)


def _protocol(number: int) -> str:
    return PROTOCOL_NAMES.get(number, str(number))


def _endpoint(endpoint: Endpoint) -> Iterator[str]:
    interface = "" if endpoint.interface is None else f" interface={_id(endpoint.interface)}"
    yield f"endpoint {_id(endpoint.id)}{interface}"
    for address in endpoint.addresses:
        yield f"  address {address}"
    for direction in Direction:
        for tier in endpoint.stack(direction):
            yield from _tier(direction, tier)


def _tier(direction: Direction, tier: Tier) -> Iterator[str]:
    isolation = "" if tier.isolation is None else f" isolation={tier.isolation.id}"
    self_traffic = " self=exempt" if tier.exempts_self else ""
    yield f"  {direction} tier={_word(tier.name)} end={tier.end}{isolation}{self_traffic}"
    for policy_id in tier.policies:
        yield f"    policy {_id(policy_id)}"
    if tier.isolation is not None:
        for origin in tier.isolation.origins:
            yield f"    by {_origin(origin)}"


def _origin(origin: Origin) -> str:
    names = [name for name in (origin.namespace, origin.name) if name] if origin.name else []
    if names and all(_PLAIN.fullmatch(name) for name in names):
        where = "/".join(names)
    else:
        where = f"{json.dumps(origin.namespace)} {json.dumps(origin.name)}"
    index = "" if origin.index is None else f"[{origin.index}]"
    return f"{_word(origin.kind)} {where} {origin.direction}{index}"


def _word(text: str) -> str:
    return text if _PLAIN.fullmatch(text) else json.dumps(text)


def _id(text: str) -> str:
    return text if text != NONE and _PLAIN_ID.fullmatch(text) else json.dumps(text)
