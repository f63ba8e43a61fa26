"""`Changes`: what to write into the maps and what to remove from them, in stages whose order is safe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

#: Within a stage: rows are there before anything leads to them. Addresses change class before endpoints change stack.
_PUT_ORDER = ("paths", "policy", "hosts", "prefixes", "node", "owners", "interfaces")
#: Removals, in reverse: nothing leads any more to what goes.
_DELETE_ORDER = ("interfaces", "owners", "node", "hosts", "prefixes", "policy", "paths")


@dataclass(slots=True)
class Changes:
    """Entries to write and keys to remove, by map. Removals are done after all writing; what is written again is not removed."""

    puts: dict[str, dict[bytes, bytes]] = field(default_factory=dict)
    deletes: dict[str, dict[bytes, None]] = field(default_factory=dict)

    def put(self, name: str, key: bytes, value: bytes) -> None:
        """Write an entry, new or changed."""
        self.puts.setdefault(name, {})[key] = value
        if name in self.deletes:
            self.deletes[name].pop(key, None)

    def delete(self, name: str, key: bytes) -> None:
        """Remove an entry."""
        if name in self.puts:
            self.puts[name].pop(key, None)
        self.deletes.setdefault(name, {})[key] = None

    def steps(self) -> Iterator[tuple[str, Mapping[bytes, bytes], Mapping[bytes, None]]]:
        """Yield ``map, entries to write, keys to remove`` in the order of execution; one of the two is empty."""
        for name in _PUT_ORDER:
            if self.puts.get(name):
                yield name, self.puts[name], {}
        for name in _DELETE_ORDER:
            if self.deletes.get(name):
                yield name, {}, self.deletes[name]

    @property
    def size(self) -> int:
        """How many entries are written or removed."""
        return sum(map(len, self.puts.values())) + sum(map(len, self.deletes.values()))


def difference(found: Mapping[str, Mapping[bytes, bytes]], wanted: Mapping[str, Mapping[bytes, bytes]]) -> Changes:
    """Return what turns one content into another."""
    changes = Changes()
    for name, entries in wanted.items():
        held = found.get(name, {})
        for key, value in entries.items():
            if held.get(key) != value:
                changes.put(name, key, value)
        for key in held:
            if key not in entries:
                changes.delete(name, key)
    return changes
