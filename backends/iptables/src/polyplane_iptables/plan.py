"""`plan`: from what is in the kernel to what should be, as commands in an order that is safe to stop anywhere.

The kernel commits one family's table at a time and each element of a set by itself. So a packet may meet old rules with new
members, or new rules with old ones. What keeps that harmless is the order:

1. new sets are created and filled; nobody asks them yet
2. members change that close something: fewer peers to allow, more peers to deny
3. the IPv4 table, then the IPv6 table
4. members change that open something
5. sets that nobody asks any more are destroyed

At each point the rules, old or new, allow at most what they allow with their own members. A set that opens in one rule and
closes in another has no place in this order; if more than it alone changes, it moves to its other name (`unclear_sets`): then the new
rules come with the new members in one commit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from polyplane.ir.cidr import BITS, Cidr
from polyplane_iptables.native import Chain, Filter, Native, Role
from polyplane_iptables.owned import PREFIX

#: A limit, not a reservation.
MAX_ELEMENTS: Final = 1 << 20
SET_TYPE: Final = "hash:net"
FAMILY_WORD: Final = {4: "inet", 6: "inet6"}
_SMALLEST_HASH: Final = 64


@dataclass(frozen=True, slots=True)
class Step:
    """One command's input. ``tool`` 4 and 6: that family's ``iptables-restore --noflush``; 0: ``ipset restore -exist``."""

    tool: int
    text: str


@dataclass(slots=True)
class Plan:
    """Steps in order, what they count, and the sets to destroy when they are through."""

    steps: list[Step] = field(default_factory=list)
    destroy: tuple[str, ...] = ()
    detail: Counter[str] = field(default_factory=Counter)

    @property
    def operations(self) -> int:
        """Number of native operations."""
        return self.detail.total()


@dataclass(slots=True)
class _SetChanges:
    """How the sets of one family differ; ``lone``: nothing else of the family does."""

    created: list[str] = field(default_factory=list)
    changed: dict[str, tuple[frozenset[Cidr], frozenset[Cidr]]] = field(default_factory=dict)
    lone: bool = False


def unclear_sets(found: Native, wanted: Native) -> frozenset[str]:
    """Return the sets whose changes no order makes safe; give them their other name and plan again."""
    unclear: set[str] = set()
    for family in BITS:
        changes = _set_changes(found, wanted, family)
        if not changes.changed or changes.lone:
            continue
        roles = _roles(found, wanted)
        unclear.update(name for name in changes.changed if not _is_clear(roles.get(name, set())))
    return frozenset(unclear)


def plan(found: Native, wanted: Native) -> Plan:
    """Return the commands that lead from one state to the other."""
    made = Plan()
    first, last = list[str](), list[str]()
    tables = []
    for family in BITS:
        changes = _set_changes(found, wanted, family)
        for name in sorted(changes.created):
            members = wanted.sets[name]
            first.append(_create(name, family, len(members)))
            first += [f"add {name} {cidr}" for cidr in sorted(members)]
            made.detail["sets"] += 1
            made.detail["elements"] += len(members)
        if changes.changed:
            closing, opening = _ordered(changes, found, wanted)
            first += closing
            last += opening
            made.detail["elements"] += len(closing) + len(opening)
        text = table_text(found.filters[family], wanted.filters[family], made.detail)
        if text:
            tables.append(Step(family, text))
    made.destroy = tuple(sorted((found.sets.keys() | found.strangers) - wanted.sets.keys()))
    if not tables:
        first, last = first + last, []
    if first:
        made.steps.append(Step(0, _lines(first)))
    made.steps += tables
    if last:
        made.steps.append(Step(0, _lines(last)))
    made.detail["sets"] += len(made.destroy)
    made.detail = +made.detail
    return made


def destroy_text(names: Iterable[str]) -> str:
    """Return the input of ``ipset restore`` that destroys sets."""
    return _lines(f"destroy {name}" for name in names)


# --- sets ---


def _set_changes(found: Native, wanted: Native, family: int) -> _SetChanges:
    changes = _SetChanges()
    prefix = f"{PREFIX}{family}-"
    for name, members in wanted.sets.items():
        if not name.startswith(prefix):
            continue
        old = found.sets.get(name)
        if old is None:
            changes.created.append(name)
        elif old is not members:
            added, removed = members.difference_from(old)
            if added or removed:
                changes.changed[name] = (added, removed)
    changes.lone = len(changes.changed) == 1 and found.filters[family] == wanted.filters[family]
    return changes


def _roles(found: Native, wanted: Native) -> dict[str, set[Role]]:
    roles = {name: set(some) for name, some in wanted.roles().items()}
    for name, some in found.roles().items():
        roles.setdefault(name, set()).update(some)
    return roles


def _is_clear(roles: set[Role]) -> bool:
    return roles in (set(), {Role.OPENS}, {Role.CLOSES})


def _ordered(changes: _SetChanges, found: Native, wanted: Native) -> tuple[list[str], list[str]]:
    """Return the element commands of a family's changed sets: what closes and what opens."""
    if changes.lone:
        # Added before removed, each address goes in or out at most once, in one step: before or after, nothing between.
        ((name, (added, removed)),) = changes.changed.items()
        return [*_elements("add", name, added), *_elements("del", name, removed)], []
    closing, opening = list[str](), list[str]()
    roles, asked = _roles(found, wanted), found.referenced()
    for name, (added, removed) in sorted(changes.changed.items()):
        if name not in asked:
            closing += [*_elements("add", name, added), *_elements("del", name, removed)]
        elif roles.get(name) == {Role.CLOSES}:
            closing += _elements("add", name, added)
            opening += _elements("del", name, removed)
        else:
            closing += _elements("del", name, removed)
            opening += _elements("add", name, added)
    return closing, opening


def _elements(verb: str, name: str, members: Iterable[Cidr]) -> list[str]:
    return [f"{verb} {name} {cidr}" for cidr in sorted(members)]


def _create(name: str, family: int, size: int) -> str:
    """Return the command for a set; the hash begins as large as it is to be, and grows by itself afterwards."""
    buckets = max(_SMALLEST_HASH, 1 << max(size - 1, 0).bit_length())
    return f"create {name} {SET_TYPE} family {FAMILY_WORD[family]} hashsize {buckets} maxelem {MAX_ELEMENTS}"


# --- tables ---


def table_text(old: Filter, new: Filter, detail: Counter[str]) -> str:
    """Return the input of ``iptables-restore --noflush`` from one state to another, empty if they are equal; count into ``detail``."""
    declared, filled, edited, jumps = list[str](), list[str](), list[str](), list[str]()
    for name in sorted(new.chains):
        before, after = old.chains.get(name), new.chains[name]
        if before is after or before == after:
            continue
        edits = None if before is None else _edits(name, before, after)
        if edits is not None and len(edits) <= len(after.rules):
            edited += edits
        else:
            declared.append(f":{name} - [0:0]")
            filled += [f"-A {name} {rule}" for rule in after.rules]
    for chain in sorted(old.jumps.keys() | new.jumps.keys()):
        if old.jumps.get(chain, ()) != new.jumps.get(chain, ()):
            jumps += [f"-D {chain} {rule}" for _, rule in old.jumps.get(chain, ())]
            jumps += [f"-I {chain} {place} {rule}" for place, rule in new.jumps.get(chain, ())]
    gone = sorted(old.chains.keys() - new.chains.keys())
    detail["chains"] += len(declared) + len(gone)
    detail["rules"] += len(filled) + len(edited) + len(jumps)
    lines = [*declared, *filled, *edited, *jumps, *(f"-F {name}" for name in gone), *(f"-X {name}" for name in gone)]
    return _lines(["*filter", *lines, "COMMIT"]) if lines else ""


def _edits(name: str, before: Chain, after: Chain) -> list[str] | None:
    """Return single insertions and deletions that turn a chain into another; None if they cannot be said without doubt.

    Rules are deleted by what they say: if somebody else changed the chain meanwhile, the command fails and nothing happens.
    """
    old, new = before.rules, after.rules
    start = _common(old, new)
    end = _common(old[start:][::-1], new[start:][::-1])
    doomed, coming = old[start : len(old) - end], new[start : len(new) - end]
    if any(old.count(rule) > 1 for rule in doomed):
        return None
    deletions = [f"-D {name} {rule}" for rule in doomed]
    return deletions + [f"-I {name} {place} {rule}" for place, rule in enumerate(coming, start + 1)]


def _common(one: tuple[str, ...], other: tuple[str, ...]) -> int:
    """Return how many rules both begin with."""
    return next((at for at, (mine, theirs) in enumerate(zip(one, other, strict=False)) if mine != theirs), min(len(one), len(other)))


def _lines(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
