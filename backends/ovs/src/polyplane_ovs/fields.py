"""The words of matches and actions: registers, addresses, port masks. Spelled as ``ovs-ofctl dump-flows`` spells them.

Registers, from `Stage.TUPLE` on (``N..M`` counts bits):

====================  =================================================================================
``reg0`` ``xxreg0``   source address of the connection's first packet (IPv4 in reg0, IPv6 in reg0 to reg3)
``reg4`` ``xxreg1``   its destination address, likewise
``xreg4``             egress decisions of the source: 64 bits of the stack's id, 0: not subject to policy
``xreg5``             ingress decisions of the destination, likewise
``xreg6``             class of the peer's address, 0: none; later the outcome whose conditions are asked
``reg14``             16..23 protocol, 0..15 destination port, or ICMP type and code
``reg15``             0..15 source port (only where asked for), 16.. the flags below
====================  =================================================================================
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from polyplane.backend_kit.ranges import icmp_numbers, prefixes
from polyplane.ir.cidr import Cidr
from polyplane.ir.program import Match, PortRange
from polyplane.ir.tables import merge_ranges, subtract_ranges

#: Keyword of a family in a match.
FAMILY_WORD: Final = {4: "ip", 6: "ipv6"}

EGRESS_STACK: Final = 8
INGRESS_STACK: Final = 10
CLASS: Final = 12
KEY: Final = 14
FLAGS: Final = 15
SOURCE: Final = 0
DESTINATION: Final = 4

#: The packet is a reply: what is near is the connection's destination.
REPLY: Final = 1 << 16
#: The endpoint that it comes from is subject to ingress policy, so it cannot start a connection in the middle.
NEAR_INGRESS: Final = 1 << 17
#: The endpoint that it goes to is subject to egress policy, so nobody can start in the middle towards it.
FAR_EGRESS: Final = 1 << 18
#: It has an endpoint's address and comes from a trusted port: the node has routed or translated it.
RETURNED: Final = 1 << 19
#: It comes from a trusted port.
TRUSTED: Final = 1 << 20
#: Conntrack does not follow it; see `Stage.LEARNED`.
UNTRACKED: Final = 1 << 21
#: A fragment whose first one was allowed a moment ago.
FOLLOWS: Final = 1 << 22
#: It is denied, and we are told so.
DENIED: Final = 1 << 23
#: It is denied, and its sender is to be told so.
REFUSED: Final = 1 << 24
#: Conntrack does not follow it, and it belongs to what was allowed a while ago (only with `Established.KEEP`).
KEPT: Final = 1 << 25

_FULL: Final = 0xFFFF_FFFF
_LAST_PORT: Final = 65535


def number(value: int) -> str:
    """Return a number as a dump shows it."""
    return f"{value:#x}" if value else "0"


def register(index: int, value: int, mask: int = _FULL) -> str:
    """Return a match on a 32-bit register; the mask must not be 0."""
    text = f"reg{index}={number(value & mask)}"
    return text if mask == _FULL else f"{text}/{number(mask)}"


def wide(index: int, value: int) -> tuple[str, str]:
    """Return a match on the 64 bits of two registers that begin at ``index``."""
    return register(index, value >> 32), register(index + 1, value & _FULL)


def set_wide(index: int, value: int) -> str:
    """Return the action that writes 64 bits to two registers."""
    return f"set_field:{number(value)}->xreg{index // 2}"


def flags(value: int, mask: int | None = None) -> str:
    """Return a match on flags: those of ``mask`` must be as in ``value``."""
    return register(FLAGS, value, value if mask is None else mask)


def set_flags(value: int) -> str:
    """Return the action that raises flags."""
    return f"set_field:{number(value)}/{number(value)}->reg{FLAGS}"


def address(first: int, cidr: Cidr) -> list[str]:
    """Return a match on an address prefix in the registers that begin at ``first``; includes the family."""
    tokens = [FAMILY_WORD[cidr.family]]
    for word in range(cidr.bits // 32):
        length = min(max(cidr.length - 32 * word, 0), 32)
        if length:
            value = cidr.address >> (cidr.bits - 32 * (word + 1)) & _FULL
            tokens.append(register(first + word, value, _FULL << (32 - length) & _FULL))
    return tokens


def set_address(first: int, cidr: Cidr) -> str:
    """Return the action that writes an address to the registers that begin at ``first``."""
    return f"set_field:{number(cidr.address)}->{f'reg{first}' if cidr.family == 4 else f'xxreg{first // 4}'}"


def bit(flag: int) -> str:
    """Return a flag as a part of its register, for actions that write one bit."""
    return f"NXM_NX_REG{FLAGS}[{flag.bit_length() - 1}]"


def into_key(port: str) -> str:
    """Return the action that copies a field of 16 bits into the port of the key."""
    return f"move:{port}[]->NXM_NX_REG{KEY}[0..15]"


def into_source(port: str) -> str:
    """Return the action that copies a field of 16 bits into the source port."""
    return f"move:{port}[]->NXM_NX_REG{FLAGS}[0..15]"


def source_match(cidr: Cidr) -> list[str]:
    """Return a match on the packet's own source address."""
    return ["ip", f"nw_src={cidr}"] if cidr.family == 4 else ["ipv6", f"ipv6_src={cidr}"]


def destination_match(cidr: Cidr) -> list[str]:
    """Return a match on the packet's own destination address."""
    return ["ip", f"nw_dst={cidr}"] if cidr.family == 4 else ["ipv6", f"ipv6_dst={cidr}"]


def masks(first: int, last: int) -> Iterator[tuple[int, int]]:
    """Split a range of 16-bit numbers into the fewest (value, mask) pairs."""
    return ((value, _LAST_PORT << (16 - length) & _LAST_PORT) for value, length in prefixes(first, last))


def key_matches(protocol: int, ranges: Iterable[tuple[int, int]]) -> list[str]:
    """Return matches on protocol and port (or ICMP type and code); each alone is enough."""
    return [register(KEY, protocol << 16 | value, 0xFFFF0000 | mask) for first, last in ranges for value, mask in masks(first, last)]


def condition_matches(condition: Match) -> list[list[str]]:
    """Return matches for a branch's condition; each alone is enough, one without tokens always holds."""
    if condition.protocol is None:
        return [[]]
    if condition.icmp or condition.not_icmp:
        wanted = _left(icmp_numbers(condition.icmp), icmp_numbers(condition.not_icmp))
        return [[token] for token in key_matches(condition.protocol, wanted)]
    if condition.source_ports or condition.not_source_ports:
        wanted = _left(condition.source_ports, condition.not_source_ports)
        return [[register(FLAGS, value, mask)] if mask else [] for first, last in wanted for value, mask in masks(first, last)]
    return [[]]


def asks_source_port(condition: Match) -> bool:
    """Whether a condition needs the source port in its register."""
    return bool(condition.source_ports or condition.not_source_ports)


def _left(wanted: Iterable[PortRange], unwanted: Iterable[PortRange]) -> list[tuple[int, int]]:
    return subtract_ranges(merge_ranges(wanted) or [(0, _LAST_PORT)], merge_ranges(unwanted))
