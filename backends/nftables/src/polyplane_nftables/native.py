"""The native model: what one nftables table holds, as plain values, and the difference between two states of it.

`Native` is written to freely; it remembers what was there before the first write (`Native.take_changes`). So whatever route
the layout takes, removing and adding again included, only true differences reach the kernel.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

_BRACES: Final = re.compile(r"\{ ([^{}]*) \}")


def ordered_braces(body: str) -> str:
    """Sort the elements of anonymous sets: the kernel lists hashed ones in any order."""
    return _BRACES.sub(lambda found: "{ " + ", ".join(sorted(found[1].split(", "))) + " }", body)


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: its text, a comment, and how nft lists it in numbers where that is not the text itself."""

    text: str
    comment: str = ""
    listed: str = ""

    @property
    def body(self) -> str:
        """The rule as a numeric listing shows it, without the comment and in canonical order."""
        return ordered_braces(self.listed or self.text)

    @property
    def full_text(self) -> str:
        """The rule as it is sent to nft."""
        return f'{self.text} comment "{self.comment}"' if self.comment else self.text


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain's rules, and for a base chain where it hooks in."""

    rules: tuple[Rule, ...] = ()
    hook: str = ""


@dataclass(frozen=True, slots=True)
class Kind:
    """Type of a named set (``is_map`` false) or verdict map. ``intervals`` only ever together with a concatenated type."""

    type: str
    is_map: bool
    intervals: bool = False

    @property
    def word(self) -> str:
        """What nft calls it."""
        return "map" if self.is_map else "set"

    @property
    def definition(self) -> str:
        """What stands between the braces of nft's ``add``."""
        return f"type {self.type}{' : verdict' if self.is_map else ''};{' flags interval;' if self.intervals else ''}"


#: Before and after; None: is not there.
Step = tuple[str | None, str | None]


@dataclass(slots=True)
class Changes:
    """What differs between two states of a table, as pairs of before and after."""

    chains: dict[str, tuple[Chain | None, Chain | None]] = field(default_factory=dict)
    kinds: dict[str, tuple[Kind | None, Kind | None]] = field(default_factory=dict)
    elements: dict[str, dict[str, Step]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.chains or self.kinds or self.elements)


class Native:
    """Chains, set and map definitions, and elements (key to verdict, or to "" in sets) of one table."""

    def __init__(self) -> None:
        self.chains: Final[dict[str, Chain]] = {}
        self.kinds: Final[dict[str, Kind]] = {}
        self.elements: Final[dict[str, dict[str, str]]] = {}
        self._chains_before: Final[dict[str, Chain | None]] = {}
        self._kinds_before: Final[dict[str, Kind | None]] = {}
        self._elements_before: Final[dict[str, dict[str, str | None]]] = {}

    def set_chain(self, name: str, chain: Chain | None) -> None:
        """Create, refill or (None) remove a chain."""
        old = self.chains.get(name)
        if old == chain:
            return
        self._chains_before.setdefault(name, old)
        if chain is None:
            del self.chains[name]
        else:
            self.chains[name] = chain

    def set_kind(self, name: str, kind: Kind | None) -> None:
        """Define or (None) remove a named set or map; its elements are written apart."""
        old = self.kinds.get(name)
        if old == kind:
            return
        self._kinds_before.setdefault(name, old)
        if kind is None:
            del self.kinds[name]
        else:
            self.kinds[name] = kind

    def set_element(self, collection: str, key: str, value: str | None) -> None:
        """Add, point elsewhere or (None) remove one element."""
        elements = self.elements.setdefault(collection, {})
        old = elements.get(key)
        if old == value:
            return
        self._elements_before.setdefault(collection, {}).setdefault(key, old)
        if value is None:
            del elements[key]
            if not elements:
                del self.elements[collection]
        else:
            elements[key] = value

    def touched(self) -> Iterable[str]:
        """Names of all sets and maps whose elements were written to since the last `take_changes`."""
        return tuple(self._elements_before)

    def take_changes(self) -> Changes:
        """Return what changed since the last call, and begin anew."""
        changes = Changes()
        for name, chain in self._chains_before.items():
            if chain != self.chains.get(name):
                changes.chains[name] = (chain, self.chains.get(name))
        for name, kind in self._kinds_before.items():
            if kind != self.kinds.get(name):
                changes.kinds[name] = (kind, self.kinds.get(name))
        for name, before in self._elements_before.items():
            now = self.elements.get(name, {})
            if steps := {key: (old, now.get(key)) for key, old in before.items() if old != now.get(key)}:
                changes.elements[name] = steps
        self._chains_before.clear()
        self._kinds_before.clear()
        self._elements_before.clear()
        return changes


def difference(found: Native, wanted: Native, bodies: Mapping[str, str] | None = None) -> Changes:
    """Return how to get from what is there to what should be.

    :param bodies: how this machine's nft lists rules that it does not list as expected: expected body to listed body
    """
    changes = Changes()
    for name in found.chains.keys() | wanted.chains.keys():
        old, new = found.chains.get(name), wanted.chains.get(name)
        if not _same_chain(old, new, bodies or {}):
            changes.chains[name] = (old, new)
    for name in found.kinds.keys() | wanted.kinds.keys():
        if found.kinds.get(name) != wanted.kinds.get(name):
            changes.kinds[name] = (found.kinds.get(name), wanted.kinds.get(name))
    for name in found.elements.keys() | wanted.elements.keys():
        before, after = found.elements.get(name, {}), wanted.elements.get(name, {})
        if before == after:
            continue
        changes.elements[name] = {
            key: (before.get(key), after.get(key)) for key in before.keys() | after.keys() if before.get(key) != after.get(key)
        }
    return changes


def _same_chain(found: Chain | None, wanted: Chain | None, bodies: Mapping[str, str]) -> bool:
    if found is None or wanted is None:
        return found is wanted
    return (
        found.hook == wanted.hook
        and len(found.rules) == len(wanted.rules)
        and all(
            one.comment == other.comment and one.body in (other.body, bodies.get(other.body))
            for one, other in zip(found.rules, wanted.rules, strict=True)
        )
    )
