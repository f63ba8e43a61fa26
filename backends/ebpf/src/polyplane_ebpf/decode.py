"""Entries of the maps as text for people: what `render` shows, what an audit reports, what ``polyplane show`` reads back."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Final

from polyplane.ir.program import PortRange
from polyplane_ebpf import encode
from polyplane_ebpf.encode import EndpointValue, Scope

_PROTOCOLS: Final = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmpv6", 132: "sctp"}
_ALL: Final = PortRange(0, 65535)


def describe(name: str, key: bytes, value: bytes | None = None) -> str:
    """Return one entry as text; without ``value`` only what it is about."""
    show_key, show_value = _SHOW[name]
    return f"{name} {show_key(key)}" + ("" if value is None else f" = {show_value(value)}")


def _interface(key: bytes) -> str:
    """Names where nothing was asked of the kernel, numbers where it was read."""
    return f"number {int.from_bytes(key[1:], sys.byteorder)}" if key[:1] == b"#" else key.decode("utf-8", "replace")


def _owner(key: bytes) -> str:
    return str(encode.read_owner_key(key))


def _endpoint(value: bytes) -> str:
    endpoint = EndpointValue.unpack(value)
    parts = [f"endpoint {endpoint.id:016x}"]
    for side, stack, own in (("egress", endpoint.egress, endpoint.self_egress), ("ingress", endpoint.ingress, endpoint.self_ingress)):
        if stack:
            parts.append(f"{side} {stack:016x}" + (f" itself {own:016x}" if own not in (0, stack) else "" if own else " itself free"))
    return " ".join(parts)


def _host(key: bytes) -> str:
    scope, cidr = encode.read_host_key(key)
    return f"{_scope(scope)} {cidr}"


def _prefix(key: bytes) -> str:
    scope, cidr = encode.read_prefix_key(key)
    return f"{_scope(scope)} {cidr.address_text}/{cidr.length}"


def _scope(scope: Scope) -> str:
    return scope.direction + (f" view {scope.view}" if scope.view else "")


def _class(value: bytes) -> str:
    return f"class {encode.read_class(value):016x}"


def _policy_key(key: bytes) -> str:
    stack, class_id, protocol, ports = encode.read_policy_key(key)
    who = {number: f"other IPv{family}" for family, number in encode.FALLBACK.items()}.get(class_id, f"{class_id:016x}")
    what = "otherwise" if protocol is None else _PROTOCOLS.get(protocol, f"ip-{protocol}")
    return f"{stack:016x} {who} {what}" + ("" if ports == _ALL else f"/{ports}")


def _policy(value: bytes) -> str:
    path, rule, allow = encode.read_policy_value(value)
    return f"path {path:016x}" if path else _verdict(rule, allow=allow)


def _path_key(key: bytes) -> str:
    path, numbers = encode.read_path_key(key)
    return f"{path:016x} {numbers}"


def _path(value: bytes) -> str:
    rule, allow, logs = encode.read_path_value(value)
    return "".join(f"log rule {log} " for log in logs) + _verdict(rule, allow=allow)


def _verdict(rule: int, *, allow: bool) -> str:
    return ("allow" if allow else "deny") + (f" rule {rule}" if rule else "")


def _present(_: bytes) -> str:
    return "present"


_SHOW: Final[Mapping[str, tuple[Callable[[bytes], str], Callable[[bytes], str]]]] = {
    "interfaces": (_interface, _endpoint),
    "owners": (_owner, _endpoint),
    "hosts": (_host, _class),
    "prefixes": (_prefix, _class),
    "policy": (_policy_key, _policy),
    "paths": (_path_key, _path),
    "node": (_owner, _present),
}
