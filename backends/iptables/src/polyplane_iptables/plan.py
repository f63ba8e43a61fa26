"""`plan`: from what is in the kernel to what should be, as commands in an order that is safe to stop anywhere.

The kernel commits one family's table at a time and each element of a set by itself. So a packet may meet old rules with new
members, or new rules with old ones. What keeps that harmless is the order:

1. new sets are created and filled; nobody asks them yet
2. members change that close something: fewer peers to allow, more peers to deny
3. the IPv4 table, then the IPv6 table
4. members change that open something
5. sets that nobody asks any more are destroyed

With recheck by mark (`epochs`) the next epoch is written down before 1 and comes with the table of 3, whatever else changes in it.
Where none is left, that table rests without marks, those of all connections are cleared, and it comes again with the first epoch.

At each point the rules, old or new, allow at most what they allow with their own members. A set that opens in one rule and
closes in another has no place in this order; if more than it alone changes, it moves to its other name (`setplan.unclear_sets`): then
the new rules come with the new members in one commit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from polyplane.ir.cidr import BITS
from polyplane_iptables.epochs import is_about_marks
from polyplane_iptables.native import Chain, Filter, Native, common_start
from polyplane_iptables.owned import epoch_set_name
from polyplane_iptables.setplan import epoch_commands, epoch_text, member_commands, port_commands
from polyplane_iptables.turn import Turn

#: What an ipset command is counted as, other than a set.
_WHAT: Final = {"add": "elements", "del": "elements"}


@dataclass(frozen=True, slots=True)
class Step:
    """One command's input. ``tool`` 4 and 6: that family's ``iptables-restore --noflush``; 0: ``ipset restore -exist``.

    ``clears``: no command, but bits to be cleared in the marks of the connections of family ``tool``.
    """

    tool: int
    text: str
    clears: int = 0


@dataclass(slots=True)
class Plan:
    """Steps in order, what they count, and the sets to destroy when they are through.

    ``rewritten``: by family, the chains whose rules are all new or gone, and with them their counters.
    """

    steps: list[Step] = field(default_factory=list)
    destroy: tuple[str, ...] = ()
    rewritten: dict[int, list[str]] = field(default_factory=dict)
    detail: Counter[str] = field(default_factory=Counter)

    @property
    def operations(self) -> int:
        """Number of native operations."""
        return self.detail.total()


def plan(found: Native, wanted: Native, marks: Turn | None = None) -> Plan:
    """Return the commands that lead from one state to the other.

    :param marks: where connections are marked: how ``wanted``, which has the present epochs, comes to others
    """
    marks = marks or Turn(wanted)
    made = Plan()
    cleared = {epoch_set_name(family, marks.mask): family for family in marks.resting}
    first, last = epoch_commands(found, marks.wanted, cleared), list[str]()
    made.detail["epochs"] = sum(found.epochs.get(name) != epochs or name in cleared for name, epochs in marks.wanted.epochs.items())
    uncounted = len(first)
    tables = []
    for family in BITS:
        closing, opening = member_commands(found, wanted, family)
        first += closing
        last += opening
        made.rewritten[family] = []
        table = marks.resting.get(family, marks.wanted.filters[family])
        tables += _table_step(family, found.filters[family], table, made)
    first += port_commands(found, wanted)
    made.destroy = tuple(sorted(found.set_names - marks.wanted.set_names))
    for line in (*first[uncounted:], *last):
        made.detail[_WHAT.get(line.partition(" ")[0], "sets")] += 1
    tables += [Step(family, "", clears=marks.mask) for family in cleared.values()]
    if cleared:
        told = [f"add {name} {epoch_text(epoch)}" for name in cleared for epoch in marks.wanted.epochs[name]]
        tables.append(Step(0, _lines(told)))
        for family, table in marks.resting.items():
            tables += _table_step(family, table, marks.wanted.filters[family], made)
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


def _table_step(family: int, old: Filter, new: Filter, made: Plan) -> list[Step]:
    text = table_text(old, new, made.detail, made.rewritten[family])
    return [Step(family, text)] if text else []


def destroy_text(names: Iterable[str]) -> str:
    """Return the input of ``ipset restore`` that destroys sets."""
    return _lines(f"destroy {name}" for name in names)


# --- tables ---


def table_text(old: Filter, new: Filter, detail: Counter[str], rewritten: list[str]) -> str:
    """Return the input of ``iptables-restore --noflush`` from one state to another, empty if they are equal.

    Counts into ``detail`` and names in ``rewritten`` the chains that lose all their rules.
    """
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
            rewritten.append(name)
            filled += [f"-A {name} {rule}" for rule in after.rules]
    for chain in sorted(old.jumps.keys() | new.jumps.keys()):
        if old.jumps.get(chain, ()) != new.jumps.get(chain, ()):
            jumps += [f"-D {chain} {rule}" for _, rule in old.jumps.get(chain, ())]
            jumps += [f"-I {chain} {place} {rule}" for place, rule in new.jumps.get(chain, ())]
    gone = sorted(old.chains.keys() - new.chains.keys())
    rewritten += gone
    detail["chains"] += len(declared) + len(gone)
    # An epoch is counted once, not by the rules that it is told in.
    detail["rules"] += sum(not is_about_marks(line) for line in (*filled, *edited)) + len(jumps)
    lines = [*declared, *filled, *edited, *jumps, *(f"-F {name}" for name in gone), *(f"-X {name}" for name in gone)]
    return _lines(["*filter", *lines, "COMMIT"]) if lines else ""


def _edits(name: str, before: Chain, after: Chain) -> list[str] | None:
    """Return single insertions and deletions that turn a chain into another; None if they cannot be said without doubt.

    Rules are deleted by what they say: if somebody else changed the chain meanwhile, the command fails and nothing happens.
    """
    old, new = before.rules, after.rules
    start = common_start(old, new)
    end = common_start(old[start:][::-1], new[start:][::-1])
    doomed, coming = old[start : len(old) - end], new[start : len(new) - end]
    if any(old.count(rule) > 1 for rule in doomed):
        return None
    deletions = [f"-D {name} {rule}" for rule in doomed]
    return deletions + [f"-I {name} {place} {rule}" for place, rule in enumerate(coming, start + 1)]


def _lines(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
