"""Schemas of custom resource definitions: what they constrain, objects on either side of each constraint, and whether an object fits.

Only what the definitions of network-policy-api use is known here; anything else in a schema is an error, so that a newer definition
is noticed.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Final

from jsonschema import Draft4Validator, ValidationError
from jsonschema.validators import extend

Schema = Mapping[str, Any]
#: Names of members; ``[]`` are the items of a list, ``{}`` the values of a map.
Path = tuple[str, ...]

#: Keywords that constrain nothing by themselves. Numbers have their bounds besides their format.
_SILENT: Final = {"description", "format", "properties", "items", "additionalProperties", "default", "example", "x-kubernetes-map-type"}
_WRONG: Final[Mapping[str, tuple[Any, ...]]] = {
    "object": ("text", [1], 7),
    "array": ({"a": 1}, "text"),
    "string": (7, {"a": "b"}, ["a"], True),
    "integer": ("7", 7.5, True),
}
#: What stands for a member when any will do, before any other.
_PLAIN: Final = ("namespaces", "tcp", "number", "portNumber")


def is_cidr(text: Any) -> bool:
    """CEL's ``isCIDR``: no leading zeros, no zones, no IPv4 inside IPv6; bits beyond the prefix do not matter."""
    address, slash, length = str(text).partition("/")
    if not slash or not re.fullmatch("0|[1-9][0-9]{0,2}", length, re.ASCII):
        return False
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return "%" not in address and getattr(parsed, "ipv4_mapped", None) is None and int(length) <= parsed.max_prefixlen


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule in CEL: the same in Python, and values on either side of it."""

    holds: Callable[[Any], bool]
    good: tuple[Any, ...]
    bad: tuple[Any, ...]


def _names_rule(ports: str, named: str, *nameless: str) -> Rule:
    def holds(rule: Any) -> bool:
        return not any(set(nameless) & set(peer) for peer in rule["to"]) or not any(named in port for port in rule.get(ports, ()))

    peers = {"networks": ["10.0.0.0/8"], "nodes": {}, "domainNames": ["example.org"]}
    number = {"portNumber": {"port": 80, "protocol": "TCP"}} if ports == "ports" else {"tcp": {"destinationPort": {"number": 80}}}
    deny, name, pods = {"action": "Deny"}, [{named: "web"}], {"namespaces": {}}
    strangers = [{peer: peers[peer]} for peer in nameless]
    return Rule(
        holds,
        good=(
            {**deny, "to": [pods], ports: name},
            *({**deny, "to": [stranger]} for stranger in strangers),
            *({**deny, "to": [pods, stranger], ports: [number]} for stranger in strangers),
        ),
        bad=tuple({**deny, "to": [pods, stranger], ports: [number, *name]} for stranger in strangers),
    )


_NETWORKS: Final = ("10.0.0.0/8", "10.1.2.3/8", "0.0.0.0/0", "::/0", "fd00::1:2/64", "2001:DB8::/32", "1:2:3:4:5:6:7:8/128")
_NO_NETWORKS: Final = (
    *("", "10.0.0.0", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/08", "10.0.0.0/+8", "10.0.0.0/8 ", "010.0.0.0/8", "10.0.0/8", "fd00::/129"),
    *("::ffff:10.0.0.0/104", "fe80::1%eth0/64", "localhost/8", "10.0.0.0/-1", "10.0.0.0/8/8"),
)
#: The rules of all definitions, by their text.
RULES: Final[Mapping[str, Rule]] = {
    "isCIDR(self)": Rule(is_cidr, _NETWORKS, _NO_NETWORKS),
    "self.start < self.end": Rule(
        lambda ends: ends["start"] < ends["end"],
        good=({"start": 1, "end": 2}, {"start": 1, "end": 65535}),
        bad=({"start": 80, "end": 80}, {"start": 81, "end": 80}),
    ),
    "self.metadata.name == 'default'": Rule(lambda raw: raw["metadata"]["name"] == "default", good=(), bad=()),
    "!(self.to.exists(peer, has(peer.networks) || has(peer.nodes) || has(peer.domainNames)) && has(self.protocols)"
    " && self.protocols.exists(protocol, has(protocol.destinationNamedPort)))": _names_rule(
        "protocols", "destinationNamedPort", "networks", "nodes", "domainNames"
    ),
    "!(self.to.exists(peer, has(peer.networks) || has(peer.nodes) || has(peer.domainNames)) && has(self.ports)"
    " && self.ports.exists(port, has(port.namedPort)))": _names_rule("ports", "namedPort", "networks", "nodes", "domainNames"),
    "!(self.to.exists(peer, has(peer.networks) || has(peer.nodes)) && has(self.ports)"
    " && self.ports.exists(port, has(port.namedPort)))": _names_rule("ports", "namedPort", "networks", "nodes"),
}
_HOSTS: Final = ("example.org", "*.example.org", "a.b.example.org.", "A-1.b_c.org", "1.2")
_NO_HOSTS: Final = (
    "",
    "org",
    "*",
    "*.org",
    "a..b",
    "-a.example.org",
    "a-.example.org",
    "*.*.example.org",
    "a.*.example.org",
    "example.org..",
    "a b.org",
)


#: What members of this name hold.
_EXAMPLES: Final = {"operator": "Exists", "start": 1, "end": 65535}
_LONGEST_NETWORK: Final = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128"


def constraints(schema: Schema, base: Path = ()) -> Iterator[tuple[Path, str, tuple[Any, ...], tuple[Any, ...]]]:
    """Yield every constraint of a schema and below it: where, which, and values of that place on either side."""
    for keyword in schema:
        if keyword not in _SILENT:
            good, bad = _sides(schema, keyword)
            yield base, keyword, good, bad
    for step, child in _children(schema).items():
        yield from constraints(child, (*base, step))


def _children(schema: Schema) -> dict[str, Schema]:
    children = dict(schema.get("properties", {}))
    if "items" in schema:
        children["[]"] = schema["items"]
    if "additionalProperties" in schema:
        children["{}"] = schema["additionalProperties"]
    return children


def _sides(schema: Schema, keyword: str) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    value, whole, members = schema[keyword], example(schema), schema.get("properties", {})
    good: Iterable[Any] = (whole,)
    bad: Iterable[Any]
    match keyword:
        case "type":
            bad = _WRONG[value]
        case "required":
            # What has a default is there even where nobody wrote it.
            needed = [name for name in value if "default" not in members[name]]
            bad = [{name: item for name, item in whole.items() if name != left} for left in needed]
        case "enum":
            good, bad = value, ("", "Other", value[0].lower())
        case "minItems":
            good, bad = [_many(schema, value)], [_many(schema, value - 1)]
        case "maxItems":
            good, bad = [_many(schema, value)], [_many(schema, value + 1)]
        case "minProperties" if value == 1:
            good, bad = [{name: example(child)} for name, child in members.items()], ({},)
        case "maxProperties" if value == 1:
            each = [(name, example(child)) for name, child in members.items()]
            good, bad = [dict([one]) for one in each], [dict(pair) for pair in combinations(each, 2)]
        case "minimum":
            good, bad = (value,), (value - 1, -(1 << 40))
        case "maximum":
            good, bad = (value,), (value + 1, 1 << 40)
        case "maxLength":
            longest = _LONGEST_NETWORK if schema.get("x-kubernetes-validations") else "n" * value
            assert len(longest) == value
            good, bad = (longest,), (longest + "0",)
        case "pattern":
            good, bad = _HOSTS, _NO_HOSTS
        case "x-kubernetes-list-type" if value == "set":
            good, bad = [_many(schema, 3)], [_many(schema, 2) + _many(schema, 1)]
        case "x-kubernetes-list-type" if value == "atomic":
            good, bad = [_many(schema, 1) * 2], ()
        case "x-kubernetes-validations":
            rules = [RULES[rule["rule"]] for rule in value]
            good, bad = [item for rule in rules for item in rule.good], [item for rule in rules for item in rule.bad]
        case _:
            raise AssertionError(f"the schema has {keyword} {value!r}, of which nothing is known here")
    return tuple(good), tuple(bad)


def with_examples(schema: Schema, name: str = "") -> Schema:
    """Return a schema that says of free texts what they are in truth."""
    steps = {step: with_examples(child, step) for step, child in _children(schema).items()}
    inner: dict[str, Any] = {"example": _EXAMPLES[name]} if name in _EXAMPLES else {}
    if "properties" in schema:
        inner["properties"] = {step: steps[step] for step in schema["properties"]}
    return {
        **schema,
        **inner,
        **{keyword: steps[step] for keyword, step in (("items", "[]"), ("additionalProperties", "{}")) if step in steps},
    }


def example(schema: Schema, path: Path = (), at_end: Any = None) -> Any:
    """Return a small value that fits; with a path, one that has ``at_end`` there."""
    if path:
        step, rest = path[0], path[1:]
        inner = example(_children(schema)[step], rest, at_end) if rest else at_end
        if step == "[]":
            return [inner]
        if step == "{}":
            return {"a": inner}
        made = {name: example(schema["properties"][name]) for name in schema.get("required", ()) if name != step}
        # What keeps these company must go with them.
        made |= {"operator": "In"} if step == "values" and inner else {}
        return {**made, step: inner}
    if "enum" in schema:
        return schema["enum"][0]
    if given := schema.get("example", schema.get("default")):
        return given
    match schema["type"]:
        case "object":
            members = schema.get("properties", {})
            names = list(schema.get("required", ()))
            if schema.get("minProperties"):
                names += [next((name for name in _PLAIN if name in members), next(iter(members)))]
            value: Any = {name: example(members[name]) for name in names}
        case "array":
            value = _many(schema, schema.get("minItems", 0))
        case "integer":
            value = schema.get("minimum", 0)
        case _:
            (value,) = _texts(schema, 1)
    return value


def _texts(schema: Schema, count: int) -> list[str]:
    if schema.get("x-kubernetes-validations"):
        return [f"10.{number}.0.0/16" for number in range(count)]
    return [f"a{number}.example.org" if "pattern" in schema else f"a{number}" for number in range(count)]


def _many(schema: Schema, count: int) -> list[Any]:
    items = schema["items"]
    return _texts(items, count) if items["type"] == "string" else [example(items) for _ in range(count)]


def errors(schema: Schema, value: Any) -> list[str]:
    """Return what an API server would find wrong with a value."""
    return [error.message for error in _Validator(schema).iter_errors(_as_stored(schema, value))]


def _as_stored(schema: Schema, value: Any) -> Any:
    """Return what an API server looks at: without nulls and members that it does not know, with defaults."""
    if isinstance(value, list):
        return [_as_stored(schema["items"], item) for item in value] if "items" in schema else value
    if not isinstance(value, Mapping):
        return value
    members, more = schema.get("properties", {}), schema.get("additionalProperties")
    defaults = {name: child["default"] for name, child in members.items() if "default" in child}
    kept = {name: item for name, item in value.items() if item is not None and (name in members or more is not None)}
    return defaults | {name: _as_stored(members.get(name, more), item) for name, item in kept.items()}


def _list_type(_validator: Any, kind: str, value: Any, _schema: Schema) -> Iterator[ValidationError]:
    if kind == "set" and isinstance(value, list) and any(item in value[:at] for at, item in enumerate(value)):
        yield ValidationError(f"{value} has an item twice")


def _rules(_validator: Any, rules: Iterable[Mapping[str, str]], value: Any, _schema: Schema) -> Iterator[ValidationError]:
    for rule in rules:
        # Members that are not as they should be are found on their own.
        with suppress(TypeError, KeyError):
            if not RULES[rule["rule"]].holds(value):
                yield ValidationError(f"{value} breaks {rule['rule']}")


_Validator: Final = extend(Draft4Validator, {"x-kubernetes-list-type": _list_type, "x-kubernetes-validations": _rules})
