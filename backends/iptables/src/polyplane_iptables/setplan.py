"""Commands of ``ipset restore`` for address sets and port sets: what closes something apart from what opens something."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Final

from polyplane.ir.cidr import BITS, Cidr
from polyplane.ir.members import Members
from polyplane.ir.program import PortRange
from polyplane.ir.tables import merge_ranges
from polyplane_iptables.native import Native, Role
from polyplane_iptables.owned import PREFIX, spare_set_name

#: A limit, not a reservation.
MAX_ELEMENTS: Final = 1 << 20
SET_TYPE: Final = "hash:net"
PORT_SET_TYPE: Final = "bitmap:port range 0-65535"
FAMILY_WORD: Final = {4: "inet", 6: "inet6"}
_SMALLEST_HASH: Final = 64
#: A set in use takes an element in some 0.1 ms, one that nobody asks in 0.01 ms: from so many changes on, and if they are a good part
#: of the set, it is filled anew and swapped.
_BULK: Final = 256
_BULK_PART: Final = 4


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


def member_commands(found: Native, wanted: Native, family: int) -> tuple[list[str], list[str]]:
    """Return the commands that come before one family's table and those that come after it.

    Before it: new sets, and members that close something. After it: members that open something.
    """
    changes = _set_changes(found, wanted, family)
    closing, opening = list[str](), list[str]()
    for name in sorted(changes.created):
        closing += _filled(name, family, wanted.sets[name])
    if not changes.changed:
        return closing, opening
    # Where nothing else changes, nothing hangs on what the rules do with a set, and there may be very many rules.
    roles, asked = ({}, frozenset[str]()) if changes.lone else (_roles(found, wanted), found.referenced())
    for name, (added, removed) in sorted(changes.changed.items()):
        before, after = found.sets[name], wanted.sets[name]
        if changes.lone or name not in asked:
            # Added before removed, each address goes in or out at most once, in one step: before or after, nothing between.
            closing += _change(name, family, after, added, removed)
        elif roles.get(name) == {Role.CLOSES}:
            closing += _change(name, family, before.changed(added=added), added, ())
            opening += _change(name, family, after, (), removed)
        else:
            closing += _change(name, family, before.changed(removed=removed), (), removed)
            opening += _change(name, family, after, added, ())
    return closing, opening


def closes(found: Native, wanted: Native, family: int) -> bool:
    """Whether one family's connections may lose something on the way: any change of its table may, and most changes of members."""
    if found.filters[family] != wanted.filters[family]:
        return True
    if any(found.ports.get(name, ports) != ports for name, ports in wanted.ports.items()):
        return True
    for name, (added, removed) in _set_changes(found, wanted, family).changed.items():
        roles = {role for chain in wanted.filters[family].chains.values() for one, role in chain.roles if one == name}
        if (removed and roles - {Role.CLOSES}) or (added and roles - {Role.OPENS}):
            return True
    return False


def epoch_commands(found: Native, wanted: Native, cleared: Collection[str]) -> list[str]:
    """Return the commands for sets of epochs that come before all others: from here on a start sees that there is more to do.

    :param cleared: those that say nothing until connections' marks are cleared
    """
    commands = [f"flush {name}" for name in sorted(found.epochs.keys() - wanted.epochs.keys())]
    for name, epochs in sorted(wanted.epochs.items()):
        old = found.epochs.get(name)
        if old is None:
            commands += [f"destroy {name}"] if name in found.strangers else []
            commands.append(f"create {name} {SET_TYPE} family {FAMILY_WORD[4]} hashsize {_SMALLEST_HASH} maxelem {_SMALLEST_HASH}")
        if name in cleared:
            commands += [f"flush {name}"] if old else []
        elif old != epochs:
            commands += [f"add {name} {epoch_text(epoch)}" for epoch in sorted(epochs - (old or frozenset()))]
            commands += [f"del {name} {epoch_text(epoch)}" for epoch in sorted((old or frozenset()) - epochs)]
    return commands


def epoch_text(epoch: int) -> str:
    """Return an epoch as an element: sets hold addresses."""
    return str(Cidr(4, epoch, 32))


def _change(name: str, family: int, after: Members, added: Collection[Cidr], removed: Collection[Cidr]) -> list[str]:
    """Return what leads to the members ``after``, element by element or, in bulk, all in one instant."""
    number = len(added) + len(removed)
    if number > _BULK and number * _BULK_PART > len(after):
        spare = spare_set_name(name)
        return [f"destroy {spare}", *_filled(spare, family, after), f"swap {name} {spare}", f"destroy {spare}"]
    return [*(f"add {name} {cidr}" for cidr in sorted(added)), *(f"del {name} {cidr}" for cidr in sorted(removed))]


def _filled(name: str, family: int, members: Members) -> list[str]:
    """Return the commands for a new set; the hash begins as large as it is to be, and grows by itself afterwards."""
    buckets = max(_SMALLEST_HASH, 1 << max(len(members) - 1, 0).bit_length())
    create = f"create {name} {SET_TYPE} family {FAMILY_WORD[family]} hashsize {buckets} maxelem {MAX_ELEMENTS}"
    return [create, *(f"add {name} {cidr}" for cidr in sorted(members))]


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


def port_commands(found: Native, wanted: Native) -> list[str]:
    """Return what creates and, where somebody else was at them, repairs sets of ports: they never change."""
    commands = []
    for name, ports in sorted(wanted.ports.items()):
        old = found.ports.get(name)
        if old is None:
            commands.append(f"create {name} {PORT_SET_TYPE}")
        commands += [f"del {name} {_ports(run)}" for run in _runs((old or frozenset()) - ports)]
        commands += [f"add {name} {_ports(run)}" for run in _runs(ports - (old or frozenset()))]
    return commands


def _runs(ports: Iterable[int]) -> list[tuple[int, int]]:
    """Return numbers as ranges."""
    return merge_ranges([PortRange(one, one) for one in sorted(ports)])


def _ports(run: tuple[int, int]) -> str:
    first, last = run
    return str(first) if first == last else f"{first}-{last}"
