"""A packet's way through the native model, in Python: enough of nftables to compare a layout with `evaluate`.

It knows only the words this backend writes and fails on any other, and it takes each packet for the first of a connection.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from polyplane.ir.evaluate import Packet
from polyplane_nftables.native import Native

_PORT_WORDS = {"tcp": 6, "udp": 17, "sctp": 132}
_ICMP_WORDS = {"icmp": 1, "icmpv6": 58}
_PROTOCOL_FAMILY = {4: 2, 6: 10}
_FAMILY_WORDS = {"ip": 4, "ip6": 6, "ipv4": 4, "ipv6": 6}
_FIELD = r"(?:iifname|oifname|meta l4proto|meta nfproto|th dport|(?:tcp|udp|sctp) [sd]port|icmp(?:v6)? (?:type|code)|ip6? [sd]addr)"
_CONDITION = re.compile(rf"({_FIELD}(?: \. {_FIELD})*) (vmap )?(!= )?(@\S+|\{{ [^}}]* \}}|\S+)(?: |$)")
_VERDICT = re.compile(r"(?:goto|jump) \S+|accept|drop|return|reject with tcp reset|reject with icmpx \S+")


@dataclass(frozen=True)
class Seen:
    """What the table decided, the chains that counted, and the ids logged."""

    allowed: bool
    counted: tuple[str, ...]
    logged: tuple[int, ...]


class Simulator:
    def __init__(self, native: Native) -> None:
        self.native = native
        self.counted: list[str] = []
        self.logged: list[int] = []

    def forward(self, packet: Packet, iifname: str, oifname: str, hook: str = "forward") -> Seen:
        self.counted, self.logged = [], []
        self.packet, self.iifname, self.oifname = packet, iifname, oifname
        verdict = self.chain(hook, 0)
        return Seen(verdict in {"accept", "return"}, tuple(self.counted), tuple(self.logged))

    def chain(self, name: str, depth: int) -> str:
        assert depth < 16, "the kernel follows 16 chains"
        for rule in self.native.chains[name].rules:
            verdict = self.rule(name, rule.text)
            if verdict is None:
                continue
            if verdict.startswith("jump "):
                inner = self.chain(verdict.split()[1], depth + 1)
                if inner != "return":
                    return inner
            elif verdict.startswith("goto "):
                return self.chain(verdict.split()[1], depth + 1)
            else:
                return verdict.split()[0]
        return "return"

    def rule(self, chain: str, text: str) -> str | None:
        """Return the verdict of a rule, None if it does not match or has none."""
        rest = text
        while rest:
            if verdict := _VERDICT.fullmatch(rest):
                return "drop" if verdict[0].startswith("reject") else verdict[0]
            if rest.startswith("counter"):
                self.counted.append(chain)
                rest = rest.removeprefix("counter").strip()
                continue
            if found := re.fullmatch(r'limit rate 10/second log prefix "polyplane ([0-9a-f]{8}) "(?: group \d+)?', rest):
                self.logged.append(int(found[1], 16))
                return None
            if rest.startswith(("ct ", "tcp flags ", "meta l4proto { 1, 58 } ct ")):
                return None
            found = _CONDITION.match(rest)
            assert found, rest
            key, is_vmap, negated, right = found.groups()
            value = self.lookup(key, right)
            if is_vmap:
                return value
            if (value is not None) is bool(negated) or (negated and self.fields(key) is None):
                return None
            rest = rest[len(found[0]) :]
        return None

    def lookup(self, key: str, right: str) -> str | None:
        fields = self.fields(key)
        if fields is None:
            return None
        if right.startswith("@"):
            assert right[1:] in self.native.kinds
            elements = self.native.elements.get(right[1:], {})
        else:
            elements = {key: value for key, _, value in (part.partition(" : ") for part in right.strip("{ }").split(", "))}
        hits = [value for element, value in elements.items() if covers(element.split(" . "), fields)]
        assert len(hits) <= 1, f"{right} is ambiguous for {fields}"
        return hits[0] if hits else None

    def fields(self, key: str) -> list[str | int] | None:
        """Return the packet's fields, None if the packet lacks one."""
        values: list[str | int] = []
        for part in key.split(" . "):
            value = self.field(part)
            if value is None:
                return None
            values.append(value)
        return values

    def field(self, part: str) -> str | int | None:
        packet, (first, *rest) = self.packet, part.split()
        second = rest[0] if rest else ""
        if first in _PORT_WORDS:
            ports = {"sport": packet.source_port, "dport": packet.port}
            return ports[second] if packet.protocol == _PORT_WORDS[first] else None
        if first in _ICMP_WORDS:
            if packet.protocol != _ICMP_WORDS[first] or packet.icmp is None:
                return None
            return packet.icmp.type if second == "type" else packet.icmp.code
        if first in _FAMILY_WORDS:
            addresses = {"saddr": packet.source.address_text, "daddr": packet.destination.address_text}
            return addresses[second] if packet.source.family == _FAMILY_WORDS[first] else None
        return {
            "iifname": f'"{self.iifname}"',
            "oifname": f'"{self.oifname}"',
            "meta l4proto": packet.protocol,
            "meta nfproto": _PROTOCOL_FAMILY[packet.source.family],
            "th dport": packet.port,
        }[part]


def covers(element: list[str], fields: list[str | int]) -> bool:
    return len(element) == len(fields) and all(part_covers(part, field) for part, field in zip(element, fields, strict=True))


def part_covers(part: str, field: str | int) -> bool:
    if part.startswith('"'):
        return part == field
    if part in _FAMILY_WORDS:
        return _PROTOCOL_FAMILY[_FAMILY_WORDS[part]] == field
    if isinstance(field, int):
        first, _, last = part.partition("-")
        return int(first) <= field <= int(last or first)
    address = ipaddress.ip_address(field)
    if "-" in part:
        low, _, high = part.partition("-")
        return int(ipaddress.ip_address(low)) <= int(address) <= int(ipaddress.ip_address(high))
    return address in ipaddress.ip_network(part)
