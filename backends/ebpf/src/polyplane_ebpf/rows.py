"""`Rows`: what the maps ``policy`` and ``paths`` hold, one pair of stack and class after the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

from polyplane.backend_kit.ranges import prefixes
from polyplane.ir.evaluate import Verdict
from polyplane.ir.program import PROTOCOLS_WITH_PORTS, digest
from polyplane.ir.tables import Outcome, Table
from polyplane_ebpf import encode
from polyplane_ebpf.changes import Changes
from polyplane_ebpf.paths import flatten


class Paths:
    """What the map ``paths`` holds; a path is there as long as a row leads to it."""

    def __init__(self) -> None:
        self._users: Final[Counter[int]] = Counter()
        self._keys: Final[dict[int, list[bytes]]] = {}

    def use(self, outcome: Outcome, protocol: int | None, changes: Changes) -> int:
        """Return the path that a row with this outcome leads to, 0 where none is needed."""
        if not outcome.branches:
            return 0
        path = encode.number_of(digest("path", str(protocol in PROTOCOLS_WITH_PORTS), repr(outcome)))
        self._users[path] += 1
        if path not in self._keys:
            keys = self._keys[path] = []
            for first, last, end in flatten(outcome):
                value = encode.path_value(allow=end.verdict is Verdict.ALLOW, rule=end.rule_id, logs=end.logs)
                for number, bits in prefixes(first, last):
                    keys.append(encode.path_key(path, number, bits))
                    changes.put("paths", keys[-1], value)
        return path

    def leave(self, path: int, changes: Changes) -> None:
        """Take back one `use`."""
        self._users[path] -= 1
        if not self._users[path]:
            del self._users[path]
            for key in self._keys.pop(path):
                changes.delete("paths", key)


class Rows:
    """Which rows belong to which pair, in one direction. A pair's rows are a function of its two ids: they come and go as a whole.

    Classes of both directions may have the same id, stacks may not.
    """

    def __init__(self, paths: Paths) -> None:
        self._paths: Final = paths
        self._rows: Final[dict[tuple[int, int], list[tuple[bytes, int]]]] = {}
        self._classes: Final[dict[int, set[int]]] = {}
        self._stacks: Final[dict[int, set[int]]] = {}

    def put(self, stack: int, class_id: int, table: Table, changes: Changes) -> None:
        """Note a pair's table; one that is there already is the same."""
        pair = (stack, class_id)
        if pair in self._rows:
            return
        rows = self._rows[pair] = []
        for key, protocol, outcome in _keys(stack, class_id, table):
            path = self._paths.use(outcome, protocol, changes)
            changes.put("policy", key, encode.policy_value(allow=outcome.verdict is Verdict.ALLOW, rule=outcome.rule_id, path=path))
            rows.append((key, path))
        self._classes.setdefault(stack, set()).add(class_id)
        self._stacks.setdefault(class_id, set()).add(stack)

    def drop(self, stack: int, class_id: int, changes: Changes) -> None:
        """Forget a pair, if it is there."""
        rows = self._rows.pop((stack, class_id), None)
        if rows is None:
            return
        for key, path in rows:
            changes.delete("policy", key)
            if path:
                self._paths.leave(path, changes)
        self._classes[stack].discard(class_id)
        self._stacks[class_id].discard(stack)
        if not self._stacks[class_id]:
            del self._stacks[class_id]

    def drop_stack(self, stack: int, changes: Changes) -> None:
        """Forget all pairs of a stack."""
        for class_id in sorted(self._classes.get(stack, ())):
            self.drop(stack, class_id, changes)
        self._classes.pop(stack, None)

    def drop_class(self, class_id: int, changes: Changes) -> None:
        """Forget all pairs of a class."""
        for stack in sorted(self._stacks.get(class_id, ())):
            self.drop(stack, class_id, changes)


def _keys(stack: int, class_id: int, table: Table) -> Iterator[tuple[bytes, int | None, Outcome]]:
    yield encode.policy_key(stack, class_id), None, table.otherwise
    for row in table.rows:
        for port, bits in prefixes(row.first, row.last):
            yield encode.policy_key(stack, class_id, row.protocol, port, bits), row.protocol, row.outcome
