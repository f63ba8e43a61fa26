"""`Book`: all flows that should be there, and what changed in it; `write_bundle`: changes as text for ``ovs-ofctl --bundle``.

The switch knows a flow by table, priority and match: a second one with the same three silently replaces the first. So that is
the key here as well, and a match has one spelling only: that of ``ovs-ofctl dump-flows``, sorted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from polyplane_ovs.owned import MARK_MASK


class Key(NamedTuple):
    """What a switch knows a flow by."""

    table: int
    priority: int
    match: str


class Value(NamedTuple):
    """What a flow does, and its cookie."""

    actions: str
    cookie: int


class Flow(NamedTuple):
    """One flow."""

    key: Key
    value: Value


#: By key: what was there, what is there now.
Changes = Mapping[Key, tuple[Value | None, Value | None]]


def match_text(tokens: Iterable[str]) -> str:
    """Return the one spelling of a match: protocol words first, since what follows may need them, then fields by name."""
    return ",".join(sorted(tokens, key=lambda token: ("=" in token, token)))


class Book:
    """Flows by key. Whoever writes one is named; where several write the same key, the first by name holds it.

    Two endpoints may claim one address or port for a while: that must end the same way whatever the order of events.
    """

    def __init__(self) -> None:
        self.flows: Final[dict[Key, Value]] = {}
        self._before: dict[Key, Value | None] = {}
        self._owned: Final[dict[str, tuple[Key, ...]]] = {}
        self._rivals: Final[dict[Key, dict[str, Value]]] = {}

    def set(self, key: Key, value: Value | None) -> None:
        """Write a flow that nobody else writes, or with None remove it."""
        old = self.flows.get(key)
        if old == value:
            return
        self._before.setdefault(key, old)
        if value is None:
            del self.flows[key]
        else:
            self.flows[key] = value

    def put(self, owner: str, flows: Iterable[Flow]) -> None:
        """Replace all flows that ``owner`` has written by these."""
        new = dict(flows)
        for key in self._owned.pop(owner, ()):
            if key not in new:
                claims = self._rivals[key]
                del claims[owner]
                self._settle(key, claims)
        for key, value in new.items():
            claims = self._rivals.setdefault(key, {})
            claims[owner] = value
            self._settle(key, claims)
        if new:
            self._owned[owner] = tuple(new)

    def _settle(self, key: Key, claims: dict[str, Value]) -> None:
        if claims:
            self.set(key, claims[min(claims)])
        else:
            del self._rivals[key]
            self.set(key, None)

    def take_changes(self) -> Changes:
        """Return what changed since the last call."""
        before, self._before = self._before, {}
        return {key: (old, self.flows.get(key)) for key, old in before.items() if old != self.flows.get(key)}


def difference(found: Mapping[Key, Value], wanted: Mapping[Key, Value]) -> Changes:
    """Return the changes that lead from one set of flows to the other."""
    changes: dict[Key, tuple[Value | None, Value | None]] = {
        key: (found.get(key), value) for key, value in wanted.items() if found.get(key) != value
    }
    changes.update((key, (value, None)) for key, value in found.items() if key not in wanted)
    return changes


def write_bundle(changes: Changes) -> str:
    """Return the changes as lines for ``ovs-ofctl --bundle add-flows``, sorted, so that equal changes give equal text."""
    return "".join(line + "\n" for line in _lines(changes))


def _lines(changes: Changes) -> Iterator[str]:
    for key, (old, new) in sorted(changes.items(), key=lambda item: (item[0].table, -item[0].priority, item[0].match)):
        where = f"table={key.table},priority={key.priority}"
        match = f",{key.match}" if key.match else ""
        if new is not None:
            yield f"add {where},cookie={new.cookie:#x}{match},actions={new.actions}"
        elif old is not None:
            # the mask says: only if it is still the owner's flow that we mean to remove
            yield f"delete_strict {where},cookie={old.cookie & MARK_MASK:#x}/{MARK_MASK:#x}{match}"
