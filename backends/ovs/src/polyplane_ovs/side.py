"""`Side`: one direction's classes and decisions as flows.

The class of the peer's address goes into a register, by longest prefix (priority 1 + length), then stack, class, protocol and
port select the decision. In the table of decisions, from the highest priority down: ports of a stack for a class, everything
else of a stack for a class, ports of a stack for whoever is in no class, everything else. Classes that make no difference to
a stack have no flows there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Final

from polyplane.ir.cidr import Cidr
from polyplane.ir.delta import Delta
from polyplane.ir.evaluate import Verdict
from polyplane.ir.program import PROTOCOLS_WITH_PORTS, Direction, digest
from polyplane.ir.tabulate import Branch, ClassId, Outcome, StackId, StackTables, Table, Tabulated, Tabulator
from polyplane_ovs import fields
from polyplane_ovs.flows import Book, Flow, Key
from polyplane_ovs.owned import Stage
from polyplane_ovs.pipeline import STAGES, Pipeline

_CLASS_PORTS: Final = 40
_CLASS_REST: Final = 30
_PORTS: Final = 20
_REST: Final = 10
#: Branches go down from here, in their order; the verdict is at 0 of the same outcome.
_FIRST_BRANCH: Final = 60000
_VERDICT: Final = 1


class Side:
    """Everything that belongs to one direction; writes into the book."""

    def __init__(self, direction: Direction, pipeline: Pipeline, book: Book) -> None:
        self.tabulator: Final = Tabulator(direction)
        self._direction: Final = direction
        self._pipeline: Final = pipeline
        self._book: Final = book
        self._classes, self._decisions, self._sources, self._branches, self._following = STAGES[direction]
        egress = direction is Direction.EGRESS
        self._stack: Final = fields.EGRESS_STACK if egress else fields.INGRESS_STACK
        self._peer: Final = fields.DESTINATION if egress else fields.SOURCE
        #: The flows of each table that is in force, and the outcomes it needs.
        self._written: Final[dict[str, tuple[tuple[Key, ...], tuple[str, ...]]]] = {}
        #: The same for outcomes with conditions, and how often each is needed.
        self._outcomes: Final[dict[str, tuple[tuple[Key, ...], tuple[str, ...]]]] = {}
        self._holders: Final[Counter[str]] = Counter()
        self._own: Final[Counter[str]] = Counter()

    def update(self, delta: Delta) -> Tabulated:
        """Follow a delta; return what it changed in the tables."""
        changes = self.tabulator.update(delta)
        for cidr, class_id in (*changes.hosts.items(), *changes.prefixes.items()):
            self._classify(cidr, class_id)
        for stack_id in sorted(changes.stacks_added):
            self._write_default(stack_id, self.tabulator.stacks[stack_id].default)
        for (stack_id, class_id), table in sorted(changes.tables.items(), key=lambda item: item[0]):
            self._write(f"{stack_id} {class_id}", [] if table is None else [(None, table)], stack_id, class_id)
        for stack_id in sorted(changes.stacks_removed):
            self._write_default(stack_id, {})
        return changes

    # --- traffic of an endpoint to itself ---

    def hold_own(self, stack: StackTables, peer: Cidr) -> str | None:
        """Write what decides about an endpoint's traffic to itself; return its id for `release_own`, None if that is always allowed."""
        if stack.to_self is None:
            return None
        table = stack.to_self.find(self.tabulator.classify(peer), peer.family)
        own_id = digest("own", stack.to_self.id, repr(table))
        self._own[own_id] += 1
        if self._own[own_id] == 1:
            self._write(own_id, [(None, table)], own_id, None)
        return own_id

    def release_own(self, own_id: str) -> None:
        """Take back a `hold_own`."""
        self._own[own_id] -= 1
        if not self._own[own_id]:
            del self._own[own_id]
            self._write(own_id, [], own_id, None)

    # --- classes ---

    def _classify(self, cidr: Cidr, class_id: ClassId | None) -> None:
        actions = "" if class_id is None else fields.set_wide(fields.CLASS, int(class_id, 16))
        on = self._pipeline.goto(self._decisions)
        flow = self._pipeline.flow(self._classes, 1 + cidr.length, fields.address(self._peer, cidr), (actions, on))
        self._book.set(flow.key, None if class_id is None else flow.value)

    # --- decisions ---

    def _write_default(self, stack_id: StackId, default: Mapping[int, Table]) -> None:
        """Write what a stack decides about addresses of no class; one flow for both families where they agree."""
        tables: list[tuple[int | None, Table]] = [(family, table) for family, table in sorted(default.items())]
        if len({table for _, table in tables}) == 1:
            tables = [(None, tables[0][1])]
        self._write(stack_id, tables, stack_id, None)

    def _write(self, name: str, tables: list[tuple[int | None, Table]], stack_id: str, class_id: ClassId | None) -> None:
        """Bring the flows of a stack for one class, or for all others, in line with its tables (family None: both)."""
        old_keys, old_needs = self._written.pop(name, ((), ()))
        flows: dict[Key, Flow] = {}
        outcomes: dict[str, Outcome] = {}
        for family, table in tables:
            for flow in self._rows(family, table, stack_id, class_id):
                flows[flow.key] = flow
            for outcome in (*(row.outcome for row in table.rows), table.otherwise):
                if outcome.branches:
                    outcomes[self._outcome_id(outcome)] = outcome
        for key in old_keys:
            if key not in flows:
                self._book.set(key, None)
        for flow in flows.values():
            self._book.set(flow.key, flow.value)
        for outcome_id, outcome in outcomes.items():
            self._hold(outcome_id, outcome)
        for outcome_id in old_needs:
            self._release(outcome_id)
        if tables:
            self._written[name] = (tuple(flows), tuple(outcomes))

    def _rows(self, family: int | None, table: Table, stack_id: str, class_id: ClassId | None) -> Iterator[Flow]:
        match = list(fields.wide(self._stack, int(stack_id, 16)))
        ports, rest = (_PORTS, _REST)
        if class_id is not None:
            match += fields.wide(fields.CLASS, int(class_id, 16))
            ports, rest = _CLASS_PORTS, _CLASS_REST
        if family is not None:
            match.append(fields.FAMILY_WORD[family])
        for row in table.rows:
            ranges = [(row.first, row.last)] if row.protocol in PROTOCOLS_WITH_PORTS else [(0, 65535)]
            for key in fields.key_matches(row.protocol, ranges):
                yield self._decide(self._decisions, ports, [*match, key], row.outcome)
        yield self._decide(self._decisions, rest, match, table.otherwise)

    def _decide(self, stage: Stage, priority: int, match: list[str], outcome: Outcome) -> Flow:
        """Return the flow that does what an outcome says, or sends the packet to the outcome's conditions."""
        if outcome.branches:
            return self._pipeline.flow(stage, priority, match, self._ask(stage, outcome))
        actions = self._pipeline.goto(self._following) if outcome.verdict is Verdict.ALLOW else self._pipeline.deny
        return self._pipeline.flow(stage, priority, match, actions, outcome.rule_id)

    # --- outcomes with conditions ---

    def _outcome_id(self, outcome: Outcome) -> str:
        return digest(self._direction, repr(outcome))

    def _ask(self, stage: Stage, outcome: Outcome) -> tuple[str, str]:
        """Return the actions that lead to an outcome's conditions."""
        write = fields.set_wide(fields.CLASS, int(self._outcome_id(outcome), 16))
        if stage is self._branches:
            return write, self._pipeline.again(stage)
        # only here, because a packet whose source port was looked at shares its way through the switch with no other port
        sources = any(fields.asks_source_port(branch.condition) for branch in _all_branches(outcome))
        return write, self._pipeline.goto(self._sources if sources else self._branches)

    def _hold(self, outcome_id: str, outcome: Outcome) -> None:
        self._holders[outcome_id] += 1
        if self._holders[outcome_id] > 1:
            return
        flows: dict[Key, Flow] = {}
        needs: dict[str, Outcome] = {}
        for flow in self._outcome_flows(outcome_id, outcome, needs):
            flows.setdefault(flow.key, flow)
        for flow in flows.values():
            self._book.set(flow.key, flow.value)
        for need_id, need in needs.items():
            self._hold(need_id, need)
        self._outcomes[outcome_id] = (tuple(flows), tuple(needs))

    def _release(self, outcome_id: str) -> None:
        self._holders[outcome_id] -= 1
        if self._holders[outcome_id]:
            return
        del self._holders[outcome_id]
        keys, needs = self._outcomes.pop(outcome_id)
        for key in keys:
            self._book.set(key, None)
        for need_id in needs:
            self._release(need_id)

    def _outcome_flows(self, outcome_id: str, outcome: Outcome, needs: dict[str, Outcome]) -> Iterator[Flow]:
        match = fields.wide(fields.CLASS, int(outcome_id, 16))
        for index, branch in enumerate(outcome.branches):
            rest = Outcome(outcome.verdict, outcome.rule_id, outcome.branches[index + 1 :])
            target = rest if branch.then is None else branch.then
            # a log record is counted by a flow of its own, and what comes of the packet by the next
            if branch.log or target.branches:
                needs[self._outcome_id(target)] = target
            for condition in fields.condition_matches(branch.condition):
                whole = [*match, *condition]
                if branch.log:
                    told = (self._pipeline.tell,) if self._pipeline.tells_logs else ()
                    actions = (*told, *self._ask(self._branches, target))
                    yield self._pipeline.flow(self._branches, _FIRST_BRANCH - index, whole, actions, branch.log)
                else:
                    yield self._decide(self._branches, _FIRST_BRANCH - index, whole, target)
        yield self._decide(self._branches, _VERDICT, list(match), Outcome(outcome.verdict, outcome.rule_id))


def _all_branches(outcome: Outcome) -> Iterator[Branch]:
    for branch in outcome.branches:
        yield branch
        if branch.then is not None:
            yield from _all_branches(branch.then)
