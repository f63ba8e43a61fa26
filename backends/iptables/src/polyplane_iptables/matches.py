"""`alternatives`: a match of the IR as the conditions of iptables rules.

One rule of iptables can say "and" but hardly "or": a match with several sets of peers becomes several rules, one for each. Port
lists do not: ``multiport`` holds 15 numbers, a range counting two, and what does not fit there becomes a set of ports.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product
from typing import Final, Protocol

from polyplane.ir.cidr import Family
from polyplane.ir.program import ICMP, ICMPV6, SCTP, TCP, UDP, Action, IcmpType, Match, PeerTerm, PortRange, SetId
from polyplane.ir.tables import merge_ranges, subtract_ranges

#: Protocols as iptables-save prints them; it knows these without /etc/protocols.
PROTOCOL_NAMES: Final = {TCP: "tcp", UDP: "udp", SCTP: "sctp", ICMP: "icmp", ICMPV6: "ipv6-icmp"}
_SLOTS: Final = 15
_LAST_PORT: Final = 65535
#: A range of so many ports stays in a multiport.
_LONG: Final = 64
_SIDES: Final = {"dport": "dst", "sport": "src"}
_ICMP: Final = {ICMP: ("icmp", "--icmp-type", Family.IPV4), ICMPV6: ("icmp6", "--icmpv6-type", Family.IPV6)}
#: The kernel's ipt_icmp takes type 255 for "any".
_ANY_ICMP: Final = 255
#: Protocol 0 means "all" to iptables; in IPv4 the byte itself can be asked, in IPv6 no packet arrives with it.
_PROTOCOL_0: Final = '-m u32 --u32 "0x6&0xff=0x0"'
_NOT_PROTOCOL_0: Final = '-m u32 ! --u32 "0x6&0xff=0x0"'

#: One way to satisfy a condition: its text, with a space behind it.
_Parts = list[str]


class Names(Protocol):
    """How sets are called: asked by `alternatives` for whatever a rule must ask."""

    def addresses(self, set_id: SetId, family: int) -> str:
        """Return the kernel's name of an address set's members of one family."""
        ...

    def ports(self, ports: tuple[PortRange, ...]) -> str | None:
        """Return the name of the set of these ports, None where the kernel has no such sets."""
        ...


def protocol_text(protocol: int) -> str:
    """Return a protocol as iptables-save prints it where it needs no file to know it, otherwise its number."""
    return PROTOCOL_NAMES.get(protocol, str(protocol))


def alternatives(match: Match, family: int, names: Names, *, ingress: bool, action: Action) -> list[str]:
    """Return texts of conditions, each with a space behind it, of which any one means that the match holds; none: it never does.

    :param family: 4 or 6, the table the rule is for
    :param ingress: whether the peer is the packet's source
    :param action: of the rule; where iptables cannot say exactly what the match means, a denial covers more and all else less
    """
    if match.family not in (None, family):
        return []
    ways = [
        _protocol(match, family),
        _ports(match.ports, match.not_ports, match.protocol, "dport", names),
        _ports(match.source_ports, match.not_source_ports, match.protocol, "sport", names),
        _icmp(match, family, broad=action is Action.DENY),
        *_peer(match.peer, family, names, "src" if ingress else "dst"),
    ]
    return ["".join(way) for way in product(*ways)]


def _protocol(match: Match, family: int) -> _Parts:
    if match.protocol == 0:
        return [f"{_PROTOCOL_0} "] if family == Family.IPV4 else []
    if match.protocol is not None:
        return [f"-p {protocol_text(match.protocol)} "]
    if match.not_protocol == 0:
        return [f"{_NOT_PROTOCOL_0} "] if family == Family.IPV4 else [""]
    if match.not_protocol is not None:
        return [f"! -p {protocol_text(match.not_protocol)} "]
    return [""]


def _ports(wanted: Sequence[PortRange], unwanted: Sequence[PortRange], protocol: int | None, what: str, names: Names) -> _Parts:
    """Ask for what is left of the wanted ports: iptables-nft prints a rule that asks and excludes at once in another way.

    What is too much for one multiport goes into a set, except for long ranges, which would be listed port by port.
    """
    if not wanted and not unwanted:
        return [""]
    whole = merge_ranges(wanted) if wanted else [(0, _LAST_PORT)]
    left = [PortRange(first, last) for first, last in subtract_ranges(whole, merge_ranges(unwanted))]
    if left == [PortRange(0, _LAST_PORT)]:
        return [""]
    single = [ports for ports in left if ports.last - ports.first < _LONG]
    name = names.ports(tuple(single)) if len(_groups(single)) > 1 else None
    groups = _groups(left if name is None else [ports for ports in left if ports.last - ports.first >= _LONG])
    ways = [_port_text(group, protocol, what) for group in groups]
    return ways if name is None else [f"-m set --match-set {name} {_SIDES[what]} ", *ways]


def _groups(ranges: Iterable[PortRange]) -> list[list[PortRange]]:
    """Cut ranges into lists that a multiport can hold."""
    groups: list[list[PortRange]] = []
    room = 0
    for ports in ranges:
        size = 1 if ports.first == ports.last else 2
        if size > room:
            groups.append([])
            room = _SLOTS
        groups[-1].append(ports)
        room -= size
    return groups


def _port_text(group: list[PortRange], protocol: int | None, what: str) -> str:
    texts = [str(ports.first) if ports.first == ports.last else f"{ports.first}:{ports.last}" for ports in group]
    if len(texts) == 1 and what == "dport" and protocol in (TCP, UDP):
        return f"-m {PROTOCOL_NAMES[protocol]} --{what} {texts[0]} "
    return f"-m multiport --{what}s {','.join(texts)} "


def _icmp(match: Match, family: int, *, broad: bool) -> _Parts:
    if not (match.icmp or match.not_icmp):
        return [""]
    assert match.protocol is not None, "Match checks that ICMP types come with their protocol"
    module, option, home = _ICMP[match.protocol]
    if family != home:
        # No stack sends ICMP of the other family's kind, and its matches are not there.
        return [""] if broad else []
    wild = family == Family.IPV4 and any(icmp.type == _ANY_ICMP for icmp in (*match.icmp, *match.not_icmp))
    if wild:
        return [""] if broad else []
    excluded = "".join(f"-m {module} ! {option} {_icmp_text(icmp)} " for icmp in _distinct(match.not_icmp))
    if not match.icmp:
        return [excluded]
    return [f"-m {module} {option} {_icmp_text(icmp)} {excluded}" for icmp in _distinct(match.icmp)]


def _distinct(types: Iterable[IcmpType]) -> list[IcmpType]:
    """Leave out codes of types that are there as a whole."""
    whole = {icmp.type for icmp in types if icmp.code is None}
    kept = {icmp for icmp in types if icmp.code is None or icmp.type not in whole}
    return sorted(kept, key=lambda icmp: (icmp.type, -1 if icmp.code is None else icmp.code))


def _icmp_text(icmp: IcmpType) -> str:
    return str(icmp.type) if icmp.code is None else f"{icmp.type}/{icmp.code}"


def _peer(terms: Sequence[PeerTerm], family: int, names: Names, side: str) -> Iterable[_Parts]:
    for term in terms:
        found = [names.addresses(set_id, family) for set_id in term.sets]
        if term.negated:
            yield ["".join(f"-m set ! --match-set {name} {side} " for name in found)]
        else:
            yield [f"-m set --match-set {name} {side} " for name in found]
