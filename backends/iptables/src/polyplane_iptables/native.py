"""The native model: our chains, jumps and sets of both families as plain values.

A rule is the text that follows ``-A CHAIN`` in the way ``iptables-save`` prints it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from polyplane.ir.members import Members
from polyplane_iptables.owned import LOG_TARGETS, REJECT

_SET: Final = re.compile(r"(! )?--match-set (\S+) (?:src|dst)")
_TARGET: Final = re.compile(r"-[jg] \S+(?: --.*)?$")


class Role(Enum):
    """What one more member of a set does to verdicts, by one rule."""

    OPENS = "opens"
    CLOSES = "closes"
    #: Either, depending on what follows: a rule that passes to the next tier.
    UNCLEAR = "unclear"


class Chain:
    """A chain's rules. Compared by content; what sets do in it is worked out at most once."""

    __slots__ = ("_roles", "_sets", "rules")

    def __init__(self, rules: Iterable[str] = ()) -> None:
        self.rules: Final = tuple(rules)
        self._roles: tuple[tuple[str, Role], ...] | None = None
        self._sets: frozenset[str] | None = None

    @property
    def roles(self) -> tuple[tuple[str, Role], ...]:
        """Names of the sets that the rules ask, each with what it does there."""
        if self._roles is None:
            self._roles = tuple(dict.fromkeys(role for rule in self.rules for role in roles_of(rule)))
        return self._roles

    @property
    def sets(self) -> frozenset[str]:
        """Names of the sets that the rules ask, also those that only log."""
        if self._sets is None:
            self._sets = frozenset(name for rule in self.rules if "--match-set" in rule for _, name in _SET.findall(rule))
        return self._sets

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Chain) and (self is other or self.rules == other.rules)

    def __hash__(self) -> int:
        return hash(self.rules)

    def __repr__(self) -> str:
        return f"Chain({list(self.rules)!r})"


def common_start(one: Sequence[object], other: Sequence[object]) -> int:
    """Return how many items both begin with: rules of chains, characters of names."""
    return next((at for at, (mine, theirs) in enumerate(zip(one, other, strict=False)) if mine != theirs), min(len(one), len(other)))


def roles_of(rule: str) -> Iterator[tuple[str, Role]]:
    """Yield the sets that a rule asks, with what they do in it; nothing for rules that only log."""
    if "--match-set" not in rule:
        return
    found = _TARGET.search(rule)
    target = found[0] if found else ""
    if target.startswith(LOG_TARGETS):
        return
    for negated, name in _SET.findall(rule):
        if target == "-j RETURN":
            yield name, Role.CLOSES if negated else Role.OPENS
        elif target in ("-j DROP", f"-g {REJECT}"):
            yield name, Role.OPENS if negated else Role.CLOSES
        else:
            yield name, Role.UNCLEAR


#: A rule of ours outside our chains: its text, and its place there, counted from 1.
Jump = tuple[int, str]


@dataclass(slots=True)
class Filter:
    """Our part of one family's filter table. ``jumps``: our rules in chains of others, by chain."""

    chains: dict[str, Chain] = field(default_factory=dict)
    jumps: dict[str, tuple[Jump, ...]] = field(default_factory=dict)


@dataclass(slots=True)
class Native:
    """Everything of ours in one network namespace: filter tables by family, members of address, port and epoch sets by name.

    ``strangers`` are sets with our prefix that are not of our types.
    """

    filters: dict[int, Filter] = field(default_factory=lambda: {4: Filter(), 6: Filter()})
    sets: dict[str, Members] = field(default_factory=dict)
    ports: dict[str, frozenset[int]] = field(default_factory=dict)
    strangers: frozenset[str] = frozenset()
    epochs: dict[str, frozenset[int]] = field(default_factory=dict)

    @property
    def set_names(self) -> frozenset[str]:
        """Names of all our sets, whatever is in them."""
        return frozenset((*self.sets, *self.ports, *self.epochs)) | self.strangers

    def roles(self) -> Mapping[str, set[Role]]:
        """Return what each set does in the rules; a set that no rule asks is missing."""
        roles: dict[str, set[Role]] = {}
        for table in self.filters.values():
            for chain in table.chains.values():
                for name, role in chain.roles:
                    roles.setdefault(name, set()).add(role)
        return roles

    def referenced(self) -> set[str]:
        """Names of the sets that any rule asks, also such as only log."""
        return {name for table in self.filters.values() for chain in table.chains.values() for name in chain.sets}
