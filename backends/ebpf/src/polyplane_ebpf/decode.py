"""Entries of the maps as text for people: what `render` shows, what an audit reports, what ``polyplane show`` reads back."""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Mapping
from typing import Final

from polyplane.ir.cidr import Family
from polyplane_ebpf import encode
from polyplane_ebpf.encode import EndpointValue
from polyplane_ebpf.maps import LOGS

_PROTOCOLS: Final = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmpv6", 132: "sctp"}
_SIDES: Final = ("egress", "ingress")


def describe(name: str, key: bytes, value: bytes | None = None) -> str:
    """Return one entry as text; without ``value`` only what it is about."""
    show_key, show_value = _SHOW[name]
    return f"{name} {show_key(key)}" + ("" if value is None else f" = {show_value(value)}")


def _interface(key: bytes) -> str:
    """Names where nothing was asked of the kernel, numbers where it was read."""
    return f"number {int.from_bytes(key[1:], sys.byteorder)}" if key[:1] == b"#" else key.decode("utf-8", "replace")


def _owner(key: bytes) -> str:
    return str(encode.address_of(key[4:], key[0]))


def _endpoint(value: bytes) -> str:
    endpoint = EndpointValue.unpack(value)
    parts = [f"endpoint {endpoint.id:016x}"]
    for side, stack, own in (("egress", endpoint.egress, endpoint.self_egress), ("ingress", endpoint.ingress, endpoint.self_ingress)):
        if stack:
            parts.append(f"{side} {stack:016x}" + (f" itself {own:016x}" if own not in (0, stack) else "" if own else " itself free"))
    return " ".join(parts)


def _host(key: bytes) -> str:
    return f"{_scope(key)} {encode.address_of(key[4:], key[1])}"


def _prefix(key: bytes) -> str:
    length, family = struct.unpack_from("=I", key)[0] - 32, key[5]
    cidr = encode.address_of(key[8:], family, length - (96 if family == Family.IPV4 else 0))
    return f"{_scope(key[4:])} {cidr.address_text}/{cidr.length}"


def _scope(key: bytes) -> str:
    view = struct.unpack_from("=I", key)[0] >> 16
    return _SIDES[key[0]] + (f" view {view}" if view else "")


def _class(value: bytes) -> str:
    return f"class {struct.unpack('=Q', value)[0]:016x}"


def _policy_key(key: bytes) -> str:
    length, stack, class_id, protocol = struct.unpack_from("=IQQB", key)
    who = {number: f"other IPv{family}" for family, number in encode.FALLBACK.items()}.get(class_id, f"{class_id:016x}")
    what = "otherwise" if length < 136 else _PROTOCOLS.get(protocol, f"ip-{protocol}")
    if length > 144:
        what += f"/{_range(int.from_bytes(key[22:24], 'big'), length - 144)}"
    return f"{stack:016x} {who} {what}"


def _policy(value: bytes) -> str:
    path, rule, allow = struct.unpack("=QIB3x", value)
    return f"path {path:016x}" if path else _verdict(rule, allow)


def _path_key(key: bytes) -> str:
    length, path = struct.unpack_from("=IQ", key)
    return f"{path:016x} {_range(int.from_bytes(key[12:14], 'big'), length - 64)}"


def _path(value: bytes) -> str:
    rule, allow, count, *logs = struct.unpack(f"=IBB2x{LOGS}I", value)
    return "".join(f"log rule {log} " for log in logs[:count]) + _verdict(rule, allow)


def _verdict(rule: int, allow: int) -> str:
    return ("allow" if allow else "deny") + (f" rule {rule}" if rule else "")


def _range(first: int, bits: int) -> str:
    last = first + (1 << (16 - bits)) - 1
    return str(first) if first == last else f"{first}-{last}"


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
