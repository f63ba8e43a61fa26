"""`FamilyMembers`: an address set's members as ipset can hold them, one family apart from the other.

ipset takes no prefix of length 0: it becomes two of length 1. Kept up to date member by member.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from polyplane.ir.cidr import BITS, Cidr
from polyplane.ir.members import Members


class FamilyMembers:
    """The members of one address set, by family."""

    def __init__(self) -> None:
        self._source = Members()
        self._families: Final = {family: Members() for family in BITS}

    def follow(self, members: Members) -> None:
        """Go to other members; costs what differs."""
        added, removed = members.difference_from(self._source)
        self._source = members
        for family in BITS:
            more, less = (frozenset(cidr for cidr in some if cidr.family == family) for some in (added, removed))
            if not more and not less:
                continue
            if any(cidr.length <= 1 for cidr in more | less):
                more, less = _halved(more | less, members, family)
            self._families[family] = self._families[family].changed(added=more, removed=less)

    def of(self, family: int) -> Members:
        """Return the members of one family, none of them of length 0."""
        return self._families[family]


def _halved(touched: Iterable[Cidr], members: Members, family: int) -> tuple[frozenset[Cidr], frozenset[Cidr]]:
    """Return what to add and remove where the prefix that is everything may come or go."""
    everything = Cidr(family, 0, 0)
    halves = {Cidr(family, 0, 1), Cidr(family, 1 << (BITS[family] - 1), 1)}
    candidates = {cidr for cidr in touched if cidr.length > 1}
    more = {cidr for cidr in candidates if cidr in members}
    present = halves if everything in members else {half for half in halves if half in members}
    return frozenset(more | present), frozenset((candidates - more) | (halves - present))
