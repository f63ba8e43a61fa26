"""`Ledger`: counters of rule ids that never go back, although the kernel's end with the chain that a rule was written in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from polyplane.hookspecs import RuleCount
from polyplane_iptables.listing import Count

#: Larger tables are not read before each change: what they counted since the last reading is lost with the chain.
_MOST_RULES: Final = 5_000


class _Place(NamedTuple):
    """Where a counter is: rules of the same text in one chain share it."""

    family: int
    chain: str
    rule: str


class Ledger:
    """What was counted by rules that are no longer there, and what was last seen in those that are."""

    def __init__(self) -> None:
        self._seen: dict[_Place, tuple[int, int, int]] = {}
        self._carried: Final[Counter[tuple[int, str]]] = Counter()
        self._in_use = False

    @property
    def worth_reading(self) -> bool:
        """Whether to `look` before rules go: somebody asks for counters, and reading them is quick."""
        return self._in_use and len(self._seen) <= _MOST_RULES

    def read(self, tables: Mapping[int, Iterable[Count]]) -> tuple[RuleCount, ...]:
        """Return the counters, given what each family's table says now. Rules that are gone for good are forgotten."""
        self._in_use = True
        self.look(tables)
        packets, size = Counter[int](), Counter[int]()
        for rule_id, packet_count, byte_count in self._seen.values():
            packets[rule_id] += packet_count
            size[rule_id] += byte_count
        for rule_id, what in [key for key in self._carried if key[0] not in packets]:
            del self._carried[rule_id, what]
        return tuple(
            RuleCount(
                rule_id=rule_id,
                packets=packets[rule_id] + self._carried[rule_id, "packets"],
                bytes=size[rule_id] + self._carried[rule_id, "bytes"],
            )
            for rule_id in sorted(packets)
        )

    def look(self, tables: Mapping[int, Iterable[Count]]) -> None:
        """Note what the tables say; what was there and is not, or has gone back, is carried on."""
        now: dict[_Place, tuple[int, int, int]] = {}
        for place, count in _places(tables):
            _, packets, size = now.get(place, (0, 0, 0))
            now[place] = (count.rule_id, packets + count.packets, size + count.bytes)
        for place, (rule_id, packets, size) in self._seen.items():
            later = now.get(place)
            if later is None or later[1] < packets or later[2] < size:
                self._carry(rule_id, packets, size)
        self._seen = now

    def lose(self, family: int, chains: Iterable[str]) -> None:
        """Note that chains were written anew or removed: their counters begin at 0."""
        gone = frozenset(chains)
        for place in [place for place in self._seen if place.family == family and place.chain in gone]:
            self._carry(*self._seen.pop(place))

    def _carry(self, rule_id: int, packets: int, size: int) -> None:
        self._carried[rule_id, "packets"] += packets
        self._carried[rule_id, "bytes"] += size


def _places(tables: Mapping[int, Iterable[Count]]) -> Iterator[tuple[_Place, Count]]:
    return ((_Place(family, count.chain, count.rule), count) for family, counts in tables.items() for count in counts)
