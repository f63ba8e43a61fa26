"""`Segments`: longest-prefix classes as disjoint address ranges.

nftables has no longest-prefix map: a concatenated interval map wants disjoint ranges (a subset added after its superset is
refused with EEXIST, and of crossing ranges any may win). The prefixes' edges cut the address space into segments; inside a
segment the longest covering prefix is the same everywhere. Neighbours of equal class are not merged, so that a changed
prefix touches only the segments inside it and next to it.
"""

from __future__ import annotations

import socket
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

from polyplane.ir.cidr import BITS, Cidr, Family
from polyplane.ir.tabulate import ClassId

#: First and last address of a segment.
Span = tuple[int, int]


class Segments:
    """The segments of one IP version, kept up to date prefix by prefix."""

    def __init__(self, family: int) -> None:
        self._bits: Final = BITS[family]
        self._classes: Final[dict[tuple[int, int], ClassId]] = {}
        self._lengths: Final[Counter[int]] = Counter()
        self._cut_users: Final[Counter[int]] = Counter()
        #: Sorted starts of all segments, those without a class included.
        self._cuts: list[int] = []
        #: Start to end and class of each segment that has a class.
        self._segments: Final[dict[int, tuple[int, ClassId]]] = {}

    def update(self, changes: Mapping[Cidr, ClassId | None]) -> dict[Span, ClassId | None]:
        """Set and (None) remove the classes of prefixes; return which segments came, changed class or (None) went."""
        if not changes:
            return {}
        before = self._take(changes)
        self._change(changes)
        after: dict[Span, ClassId | None] = dict.fromkeys(before)
        lengths = sorted(self._lengths, reverse=True)
        for index in self._touched(changes):
            first = self._cuts[index]
            last = self._cuts[index + 1] - 1 if index + 1 < len(self._cuts) else (1 << self._bits) - 1
            class_id = self._class_at(first, lengths)
            if class_id is not None:
                self._segments[first] = (last, class_id)
                after[first, last] = class_id
        return {span: class_id for span, class_id in after.items() if before.get(span) != class_id}

    def _take(self, changes: Iterable[Cidr]) -> dict[Span, ClassId]:
        """Forget the segments inside and next to the changed prefixes, and return them."""
        taken: dict[Span, ClassId] = {}
        for index in self._touched(changes):
            first = self._cuts[index]
            segment = self._segments.pop(first, None)
            if segment is not None:
                taken[first, segment[0]] = segment[1]
        return taken

    def _touched(self, changes: Iterable[Cidr]) -> set[int]:
        """Positions of the cuts from just before each prefix to just behind it."""
        positions: set[int] = set()
        for cidr in changes:
            begin = bisect_left(self._cuts, cidr.first)
            end = bisect_left(self._cuts, cidr.last + 2)
            positions.update(range(max(begin - 1, 0), end))
        return positions

    def _change(self, changes: Mapping[Cidr, ClassId | None]) -> None:
        in_bulk = len(changes) > len(self._cuts) // 8
        for cidr, class_id in changes.items():
            key = (cidr.length, cidr.address)
            known = key in self._classes
            if class_id is not None:
                self._classes[key] = class_id
            elif known:
                del self._classes[key]
            if known == (class_id is not None):
                continue
            step = -1 if known else 1
            self._lengths[cidr.length] += step
            if not self._lengths[cidr.length]:
                del self._lengths[cidr.length]
            for cut in (cidr.first, cidr.last + 1):
                if cut < 1 << self._bits:
                    self._move_cut(cut, step, in_bulk=in_bulk)
        if in_bulk:
            self._cuts = sorted(self._cut_users)

    def _move_cut(self, cut: int, step: int, *, in_bulk: bool) -> None:
        users = self._cut_users[cut] + step
        if users:
            self._cut_users[cut] = users
        else:
            del self._cut_users[cut]
        if in_bulk:
            return
        if step == 1 and users == 1:
            insort(self._cuts, cut)
        elif not users:
            del self._cuts[bisect_left(self._cuts, cut)]

    def _class_at(self, address: int, lengths: Iterable[int]) -> ClassId | None:
        for length in lengths:
            host_bits = self._bits - length
            class_id = self._classes.get((length, address >> host_bits << host_bits))
            if class_id is not None:
                return class_id
        return None


def address_text(family: int, address: int) -> str:
    """Text of an address exactly as nft lists it: libc's, which writes ``::ffff:1.2.3.4`` where Python does not."""
    if family == Family.IPV4:
        return socket.inet_ntop(socket.AF_INET, address.to_bytes(4, "big"))
    return socket.inet_ntop(socket.AF_INET6, address.to_bytes(16, "big"))


def span_text(family: int, span: Span) -> str:
    """Text of a range as nft lists it: a prefix where it is one, an address where it is one, else ``first-last``."""
    first, last = span
    size = last - first + 1
    if size == 1:
        return address_text(family, first)
    if size & (size - 1) == 0 and first % size == 0:
        return f"{address_text(family, first)}/{BITS[family] - size.bit_length() + 1}"
    return f"{address_text(family, first)}-{address_text(family, last)}"
