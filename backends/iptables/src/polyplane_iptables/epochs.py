"""Epochs: how a connection's mark says that it was asked about under the rules and members that are in force.

An epoch is a number from 1 to what the operator's bits can hold. A connection that is allowed gets the present one; while it has
it, it is not asked about again. Whatever may close something goes on to the next epoch in the commit of its table, so that no
mark of before counts any more. A set holds the epoch too, written before any member that closes something: where set and table
disagree, somebody died between the two, and the next start goes on to another epoch.

Only connections that have been answered are marked, and only they are believed. So each packet that may open one is asked about
wherever it passes, and no mark is on a connection that the kernel does not list yet (`connmarks` could not clear that one).
What a connection brings about, as FTP does, inherits its mark in the kernel (init_conntrack in net/netfilter/nf_conntrack_core.c): its first
packets are RELATED, are asked about, and lose it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from polyplane_iptables.native import Filter, Native
from polyplane_iptables.owned import epoch_set_name

ALL_BITS: Final = (1 << 32) - 1
_MARK: Final = re.compile(r"--(mark|set-xmark) (0x[0-9a-f]+)(?:/(0x[0-9a-f]+))?")


@dataclass(frozen=True, slots=True)
class Marking:
    """``mask``: our bits. ``epoch``: what they say, 0 where nothing is marked and nothing believed."""

    mask: int
    epoch: int

    @property
    def value(self) -> int:
        """The epoch, spread over the mask's bits."""
        bits = [bit for bit in range(32) if self.mask >> bit & 1]
        return sum(1 << bit for place, bit in enumerate(bits) if self.epoch >> place & 1)

    @property
    def last(self) -> int:
        """The last epoch that the mask can hold."""
        return (1 << self.mask.bit_count()) - 1

    @property
    def believed(self) -> tuple[str, ...]:
        """Rules for what need not be asked about."""
        if not self.epoch:
            return ()
        mark = f"{self.value:#x}" if self.mask == ALL_BITS else f"{self.value:#x}/{self.mask:#x}"
        return (f'-m conntrack --ctstate ESTABLISHED -m connmark --mark {mark} -m comment --comment "asked before" -j RETURN',)

    @property
    def remembered(self) -> tuple[str, ...]:
        """Rules for what has been asked about and is allowed."""
        fresh = f"-m conntrack --ctstate RELATED -j CONNMARK --set-xmark 0x0/{self.mask:#x}"
        if not self.epoch:
            return (fresh,)
        return fresh, f"-m conntrack --ctstate ESTABLISHED -j CONNMARK --set-xmark {self.value:#x}/{self.mask:#x}"


def epoch_in(table: Filter, mask: int) -> int | None:
    """Return the epoch that a table of ours marks with, 0 if it marks nothing, None if its marks are not those of any epoch."""
    said = _words(rule for chain in table.chains.values() for rule in chain.rules)
    if said in ([], _written(Marking(mask, 0))):
        return 0
    places = [bit for bit in range(32) if mask >> bit & 1]
    for kind, value, _ in said:
        if kind == "mark":
            epoch = sum(1 << place for place, bit in enumerate(places) if value >> bit & 1)
            return epoch if epoch and said == _written(Marking(mask, epoch)) else None
    return None


def present(found: Native, family: int, mask: int) -> int | None:
    """Return a family's epoch, None where table and set do not both say it."""
    epoch = epoch_in(found.filters[family], mask)
    return epoch if epoch and found.epochs.get(epoch_set_name(family, mask)) == frozenset({epoch}) else None


def following(found: Native, family: int, mask: int) -> int | None:
    """Return the epoch that no connection is marked with so far, None where marks have to be cleared for that.

    Epochs only grow and the set holds the highest, also while a table was flushed or restored from a file.
    """
    said = epoch_in(found.filters[family], mask)
    known = found.epochs.get(epoch_set_name(family, mask))
    if said is None or not known:
        return None
    epoch = max(said, *known) + 1
    return epoch if epoch <= Marking(mask, 0).last else None


def is_about_marks(rule: str) -> bool:
    """Whether a rule reads or writes connections' marks."""
    return "-m connmark" in rule or "-j CONNMARK" in rule


def _words(rules: Iterable[str]) -> list[tuple[str, int, int]]:
    """Return what rules do with connections' marks; something that no epoch says for what cannot be read."""
    words = []
    for rule in rules:
        if is_about_marks(rule):
            found = _MARK.search(rule)
            words.append((found[1], int(found[2], 16), int(found[3] or "0xffffffff", 16)) if found else ("other", 0, 0))
    return sorted(words)


def _written(marking: Marking) -> list[tuple[str, int, int]]:
    """Return what a table with this marking does with marks."""
    return _words((*marking.believed, *marking.remembered))
