"""What is ours: the one table of family inet that the options name, if it holds a chain ``polyplane_layout_<number>``.

The marker is a chain rather than a table comment because every kernel and every listing shows it. A table of our name
without the marker belongs to somebody else: it is neither changed nor removed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from polyplane.ir.program import Direction

#: Version of the layout below. Another version's table is replaced as a whole, in one batch.
LAYOUT: Final = 1
MARKER: Final = f"polyplane_layout_{LAYOUT}"

_ANY_MARKER: Final = re.compile(r"polyplane_layout_\d+")
#: A table name that needs no quoting and clashes with nothing.
TABLE_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,31}")

FORWARD: Final = "forward"
INPUT: Final = "input"
OUTPUT: Final = "output"
ALLOW: Final = "a_"
DENY: Final = "d_"


def is_marker(chain: str) -> bool:
    """Whether a chain of this name marks a table as ours, in whatever layout."""
    return _ANY_MARKER.fullmatch(chain) is not None


def allow_chain(rule_id: int) -> str:
    """Chain that counts and lets the other direction decide; rule id 0: nothing isolates."""
    return f"{ALLOW}{rule_id:08x}"


def deny_chain(rule_id: int) -> str:
    """Chain that counts and denies."""
    return f"{DENY}{rule_id:08x}"


def rule_id_of(chain: str) -> int | None:
    """Return the rule id that a chain counts for, None for any other chain."""
    if not chain.startswith((ALLOW, DENY)):
        return None
    digits = chain.removeprefix(ALLOW).removeprefix(DENY)
    return int(digits, 16) if re.fullmatch(r"[0-9a-f]{8}", digits) else None


class Names:
    """The names of one direction's chains, sets and maps."""

    def __init__(self, direction: Direction) -> None:
        short = "in" if direction is Direction.INGRESS else "eg"
        #: Where the base chains jump to; returns at once for traffic that is nobody's business.
        self.entry: Final = direction.value
        #: Interfaces of the endpoints that are subject to policy.
        self.interfaces: Final = f"{short}_ifs"
        self._short: Final = short

    def classify(self, family: int) -> str:
        """Chain that finds the class of the peer's address."""
        return f"{self._short}_{family}"

    def rest(self, family: int) -> str:
        """Chain for peers of no class, and for classes that make no difference to the endpoint."""
        return f"{self._short}_rest{family}"

    def addresses(self, family: int) -> str:
        """Set of addresses of endpoints that have no usable interface."""
        return f"{self._short}_ips{family}"

    def bound(self, family: int) -> str:
        """Set of addresses of endpoints that are known by their interface, where alone these addresses may be met."""
        return f"{self._short}_bound{family}"

    def hosts(self, family: int) -> str:
        """Map: one address to the chain of its class."""
        return f"{self._short}_hosts{family}"

    def networks(self, family: int) -> str:
        """Map: disjoint address ranges to the chain of their class."""
        return f"{self._short}_nets{family}"

    def to_self(self, family: int, *, by_interface: bool) -> str:
        """Map: an endpoint's own addresses as both source and destination to what happens."""
        return f"{self._short}_self{'' if by_interface else 'ip'}{family}"

    def default(self, family: int, *, by_interface: bool) -> str:
        """Map: endpoint to the decision for peers of no class."""
        return f"{self._short}_any{'' if by_interface else 'ip'}{family}"

    def class_chain(self, class_id: str) -> str:
        """Chain of one address class."""
        return f"{self._short}_c_{class_id}"

    def class_map(self, class_id: str, *, by_interface: bool) -> str:
        """Map: endpoint to its decision for one address class."""
        return f"{self._short}_{'c' if by_interface else 'ci'}_{class_id}"


#: nft's keyword and address type per IP version, and the protocol family its numeric output shows.
KEYWORD: Final[Mapping[int, str]] = {4: "ip", 6: "ip6"}
ADDRESS_TYPE: Final[Mapping[int, str]] = {4: "ipv4_addr", 6: "ipv6_addr"}
PROTOCOL_FAMILY: Final[Mapping[int, int]] = {4: 2, 6: 10}
