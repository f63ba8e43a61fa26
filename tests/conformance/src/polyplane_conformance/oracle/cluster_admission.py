"""Which policies for cluster administrators an API server would not accept: the schemas of their definitions, as tables.

A value is described by a small tree (`Text`, `Number`, `Many`, `Shape`) for each kind; walking it gives the refusals. Members
that the tree does not name are left alone, as an API server leaves them out. Two things a schema cannot see are let through here
and make a rule fail closed instead (`polyplane_conformance.oracle.tiers`): members nobody knows, and selectors nobody can read.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Raw = Mapping[str, Any]

_DOMAIN = re.compile(r"(\*\.)?([a-zA-Z0-9]([-\w]*[a-zA-Z0-9])?\.)+[a-zA-Z0-9]([-\w]*[a-zA-Z0-9])?\.?", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """A text: one of ``words`` if there are any; ``kind`` asks for more."""

    words: tuple[str, ...] = ()
    longest: int = 1 << 20
    kind: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Number:
    """A whole number between two bounds."""

    first: int
    last: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Many:
    """A list of so many; ``distinct``: no item twice."""

    of: Any
    most: int
    least: int = 0
    distinct: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """An object: what its members are, which of them must be there, whether two may stand side by side (``single``: no).

    ``closed``: with a member that is not known here, the others are not looked at; the object is of another version.
    """

    members: Mapping[str, Any]
    needs: tuple[str, ...] = ()
    single: bool = False
    not_empty: bool = False
    closed: bool = False
    #: Name of a check across members.
    rule: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """A map of texts."""

    of: Text = field(default_factory=Text)


_EXPRESSION = Shape(members={"key": Text(), "operator": Text(), "values": Many(of=Text(), most=1 << 20)}, needs=("key", "operator"))
_SELECTOR = Shape(members={"matchLabels": Labels(), "matchExpressions": Many(of=_EXPRESSION, most=1 << 20)})
_PORT = Number(first=1, last=65535)


def _pods(*needs: str) -> Shape:
    return Shape(members={"namespaceSelector": _SELECTOR, "podSelector": _SELECTOR}, needs=needs, closed=True)


def _spec(actions: tuple[str, ...], ports: tuple[str, Shape], most: int, pods: Shape, more: Mapping[str, Any], *, domains: bool) -> Shape:
    near = {"namespaces": _SELECTOR, "pods": pods}
    far = {
        **near,
        "nodes": _SELECTOR,
        "networks": Many(of=Text(kind="network", longest=43), least=1, most=25, distinct=True),
        **({"domainNames": Many(of=Text(kind="domain"), least=1, most=25, distinct=True)} if domains else {}),
    }

    def rules(side: str, peers: Mapping[str, Any]) -> Many:
        members = {
            "name": Text(longest=100),
            "action": Text(words=actions),
            side: Many(of=Shape(members=peers, single=True), least=1, most=most),
            ports[0]: Many(of=ports[1], least=1, most=most),
        }
        return Many(of=Shape(members=members, needs=("action", side), rule="names" if side == "to" else ""), most=most)

    subject = Shape(members=near, single=True, not_empty=True)
    return Shape(
        members={"subject": subject, "ingress": rules("from", near), "egress": rules("to", far), **more},
        needs=("subject", *more),
    )


_RANGE = Shape(members={"start": _PORT, "end": _PORT}, needs=("start", "end"), rule="range")
_TRANSPORT = Shape(members={"destinationPort": Shape(members={"number": _PORT, "range": _RANGE}, single=True)}, not_empty=True, closed=True)
_PROTOCOLS = Shape(members={**dict.fromkeys(("tcp", "udp", "sctp"), _TRANSPORT), "destinationNamedPort": Text()}, single=True)
_PORTS = Shape(
    members={
        "portNumber": Shape(members={"protocol": Text(), "port": _PORT}, needs=("port",)),
        "portRange": Shape(members={"protocol": Text(), "start": _PORT, "end": _PORT}, needs=("start", "end")),
        "namedPort": Text(),
    },
    single=True,
)
_PRIORITY = Number(first=0, last=1000)
_BOTH = ("namespaceSelector", "podSelector")

SPECS: Mapping[str, Shape] = {
    "ClusterNetworkPolicy": _spec(
        ("Accept", "Deny", "Pass"),
        ("protocols", _PROTOCOLS),
        25,
        _pods("podSelector"),
        {"tier": Text(words=("Admin", "Baseline")), "priority": _PRIORITY},
        domains=True,
    ),
    "AdminNetworkPolicy": _spec(("Allow", "Deny", "Pass"), ("ports", _PORTS), 100, _pods(*_BOTH), {"priority": _PRIORITY}, domains=True),
    "BaselineAdminNetworkPolicy": _spec(("Allow", "Deny"), ("ports", _PORTS), 100, _pods(*_BOTH), {}, domains=False),
}


def cluster_refusals(policy: Raw) -> Iterator[str]:
    """Yield the reasons to refuse a policy of one of these kinds; its name has been looked at."""
    if policy["kind"] == "BaselineAdminNetworkPolicy" and policy["metadata"]["name"] != "default":
        yield "metadata.name: there is only one, and it is called default"
    if policy.get("spec") is None:
        yield "spec: is missing"
    else:
        yield from _walk("spec", policy["spec"], SPECS[policy["kind"]])


def _walk(path: str, value: Any, wanted: Any) -> Iterator[str]:
    match wanted:
        case Text():
            yield from _text(path, value, wanted)
        case Number(first=first, last=last):
            if isinstance(value, bool) or not isinstance(value, int) or not first <= value <= last:
                yield f"{path}: must be a number from {first} to {last}"
        case Many():
            yield from _many(path, value, wanted)
        case Labels(of=text):
            if not isinstance(value, Mapping):
                yield f"{path}: must be a map"
                return
            for key, item in value.items():
                yield from _text(f"{path}.{key}", "" if item is None else item, text)
        case Shape():
            yield from _shape(path, value, wanted)


def _text(path: str, value: Any, wanted: Text) -> Iterator[str]:
    if not isinstance(value, str):
        yield f"{path}: must be a text"
    elif (wanted.words and value not in wanted.words) or len(value) > wanted.longest:
        yield f"{path}: {value!r} is none of {wanted.words}, or too long"
    elif wanted.kind == "network" and not _is_network(value):
        yield f"{path}: {value!r} is no prefix"
    elif wanted.kind == "domain" and not _DOMAIN.fullmatch(value):
        yield f"{path}: {value!r} is no domain name"


def _many(path: str, value: Any, wanted: Many) -> Iterator[str]:
    if not isinstance(value, list | tuple):
        yield f"{path}: must be a list"
        return
    if not wanted.least <= len(value) <= wanted.most:
        yield f"{path}: must have {wanted.least} to {wanted.most} items"
    for index, item in enumerate(value):
        if wanted.distinct and item in value[:index]:
            yield f"{path}[{index}]: is there twice"
        yield from _walk(f"{path}[{index}]", item, wanted.of)


def _shape(path: str, value: Any, wanted: Shape) -> Iterator[str]:
    value = {} if value is None else value
    if not isinstance(value, Mapping):
        yield f"{path}: must be an object"
        return
    given = {name: item for name, item in value.items() if item is not None}
    unknown = set(given) - set(wanted.members)
    if wanted.not_empty and not given:
        yield f"{path}: is empty"
    if (wanted.closed or wanted.single) and unknown:
        return
    yield from (f"{path}.{name}: is missing" for name in wanted.needs if name not in given)
    if wanted.single and len(given) > 1:
        yield f"{path}: has more than one member"
    for name, shape in wanted.members.items():
        if name in given:
            yield from _walk(f"{path}.{name}", given[name], shape)
    ends = [item for name in ("start", "end") if isinstance(item := given.get(name), int)]
    if wanted.rule == "range" and len(ends) == 2 and not ends[0] < ends[1]:
        yield f"{path}: must start before it ends"
    if wanted.rule == "names" and _names_the_nameless(given):
        yield f"{path}: peers without pods have no named ports"


def _names_the_nameless(rule: Raw) -> bool:
    names, nameless = {"destinationNamedPort", "namedPort"}, {"networks", "nodes", "domainNames"}
    named = any(names & _members(item) for part in ("protocols", "ports") for item in _items(rule, part))
    return named and any(nameless & _members(item) for item in _items(rule, "to"))


def _items(rule: Raw, part: str) -> Sequence[Any]:
    found = rule.get(part)
    return found if isinstance(found, list | tuple) else ()


def _members(value: Any) -> set[str]:
    return {name for name, item in value.items() if item is not None} if isinstance(value, Mapping) else set()


def _is_network(text: str) -> bool:
    """As CEL's isCIDR: an address without any zero too much or a zone, a plain length; bits behind it do not matter."""
    address, slash, length = text.partition("/")
    if not slash or not re.fullmatch(r"0|[1-9][0-9]*", length):
        return False
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, ipaddress.IPv6Address) and (parsed.scope_id is not None or parsed.ipv4_mapped is not None):
        return False
    return int(length) <= parsed.max_prefixlen
