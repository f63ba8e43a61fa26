"""`refusal`: which policy objects an API server would not accept, and why.

An own reading of the API's validation rules; deliberately not shared with the dialect that polyplane enforces.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping
from typing import Any

from polyplane_conformance.oracle.cluster_admission import SPECS, cluster_refusals

Raw = Mapping[str, Any]

_LABEL_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_SERVICE_NAME = re.compile(r"(?=.{1,15}$)(?=.*[a-z])(?!.*--)[a-z0-9]([-a-z0-9]*[a-z0-9])?")


def refusal(policy: Raw) -> str | None:
    """Return the first reason to refuse the object, None if it is acceptable."""
    name = policy["metadata"].get("name", "")
    if len(name) > 253 or not _SUBDOMAIN.fullmatch(name):
        return "metadata.name: must be a lower-case DNS subdomain"
    if policy["kind"] in SPECS:
        return next(cluster_refusals(policy), None) or _subject_refusal(policy["spec"]["subject"])
    return next(_spec_refusals(policy.get("spec") or {}), None)


def _subject_refusal(subject: Raw) -> str | None:
    """Whom a policy is for must be clear in all it says, or nobody could say to whom it should be closed."""
    pods = subject.get("pods") or {}
    for given, known in ((subject, ("namespaces", "pods")), (pods, ("namespaceSelector", "podSelector"))):
        if unknown := [name for name, item in given.items() if item is not None and name not in known]:
            return f"spec.subject: {unknown[0]} is not known"
    selectors = (subject.get("namespaces"), pods.get("namespaceSelector"), pods.get("podSelector"))
    return next((refused for selector in selectors for refused in selector_refusals("spec.subject", selector)), None)


def _spec_refusals(spec: Raw) -> Iterator[str]:
    yield from selector_refusals("spec.podSelector", spec.get("podSelector"))
    for direction, peers in (("ingress", "from"), ("egress", "to")):
        for index, rule in enumerate(spec.get(direction) or ()):
            path = f"spec.{direction}[{index}]"
            for number, item in enumerate((rule or {}).get("ports") or ()):
                yield from _port_refusals(f"{path}.ports[{number}]", item or {})
            for number, item in enumerate((rule or {}).get(peers) or ()):
                yield from _peer_refusals(f"{path}.{peers}[{number}]", item or {})
    types = spec.get("policyTypes") or ()
    if len(types) > 2:
        yield "spec.policyTypes: may not name more than two"
    yield from (f"spec.policyTypes[{index}]: no such type" for index, kind in enumerate(types) if kind not in ("Ingress", "Egress"))


def selector_refusals(path: str, selector: Raw | None) -> Iterator[str]:
    """Yield what is wrong with a LabelSelector of the right types."""
    for key, value in ((selector or {}).get("matchLabels") or {}).items():
        yield from _key_refusals(f"{path}.matchLabels", key)
        yield from _value_refusals(f"{path}.matchLabels", value)
    for index, expression in enumerate((selector or {}).get("matchExpressions") or ()):
        where = f"{path}.matchExpressions[{index}]"
        values = expression.get("values") or ()
        yield from _key_refusals(where, expression.get("key", ""))
        match expression.get("operator"):
            case "In" | "NotIn":
                if not values:
                    yield f"{where}.values: must not be empty"
            case "Exists" | "DoesNotExist":
                if values:
                    yield f"{where}.values: must be empty"
            case _:
                yield f"{where}.operator: no such operator"
        for value in values:
            yield from _value_refusals(where, value)


def _key_refusals(path: str, key: str) -> Iterator[str]:
    prefix, slash, name = key.rpartition("/")
    bad_prefix = bool(slash) and (not prefix or len(prefix) > 253 or not _SUBDOMAIN.fullmatch(prefix))
    if bad_prefix or not _LABEL_NAME.fullmatch(name):
        yield f"{path}: {key!r} is no label key"


def _value_refusals(path: str, value: Any) -> Iterator[str]:
    if not isinstance(value, str) or (value and not _LABEL_NAME.fullmatch(value)):
        yield f"{path}: {value!r} is no label value"


def _port_refusals(path: str, item: Raw) -> Iterator[str]:
    port = item.get("port")
    end = item.get("endPort")
    if item.get("protocol", "TCP") not in ("TCP", "UDP", "SCTP"):
        yield f"{path}.protocol: must be TCP, UDP or SCTP"
    if isinstance(port, str):
        if not _SERVICE_NAME.fullmatch(port):
            yield f"{path}.port: {port!r} is no service name"
        if end is not None:
            yield f"{path}.endPort: needs a numeric port"
    elif port is None:
        if end is not None:
            yield f"{path}.endPort: needs a port"
    elif not 1 <= port <= 65535:
        yield f"{path}.port: must be 1 to 65535"
    elif end is not None and not port <= end <= 65535:
        yield f"{path}.endPort: must be {port} to 65535"


def _peer_refusals(path: str, item: Raw) -> Iterator[str]:
    block = item.get("ipBlock")
    selectors = [name for name in ("podSelector", "namespaceSelector") if item.get(name) is not None]
    for name in selectors:
        yield from selector_refusals(f"{path}.{name}", item[name])
    if block is None and not selectors:
        yield f"{path}: names no peer"
    if block is None:
        return
    if selectors:
        yield f"{path}: an ipBlock stands alone"
    network = _network(block.get("cidr"))
    if network is None:
        yield f"{path}.ipBlock.cidr: is no prefix"
        return
    for index, text in enumerate(block.get("except") or ()):
        carved = _network(text)
        strictly_inside = carved is not None and carved.version == network.version and carved.prefixlen > network.prefixlen
        if carved is None or not strictly_inside or carved.network_address not in network:
            yield f"{path}.ipBlock.except[{index}]: must lie strictly inside cidr"


def _network(text: Any) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    if not isinstance(text, str) or "/" not in text:
        return None
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None
