"""Ways to reach one state of a cluster by other events, or the same events otherwise: the result must be the same program.

Each expander takes the batches in which a scenario's writes came, and for every object that is left the writes that must keep
their order (its last valid version and refused ones after it), and returns other batches that end in the same state.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from polyplane_conformance.world import Key, Write

Batches = Sequence[Sequence[Write]]
History = Mapping[Key, Sequence[Write]]
Expander = Callable[[Batches, History], Batches]


def as_it_came(batches: Batches, _history: History) -> Batches:
    """Change nothing."""
    return batches


def reversed_objects(_batches: Batches, history: History) -> Batches:
    """Only what is left, the last object first."""
    return [history[key] for key in reversed(list(history))]


def shuffled_objects(_batches: Batches, history: History) -> Batches:
    """Only what is left, the objects in any order, and their writes interleaved."""
    chance = random.Random(1)  # noqa: S311 - a reproducible order, not a secret
    turns = [key for key, writes in history.items() for _ in writes]
    chance.shuffle(turns)
    rest = {key: iter(writes) for key, writes in history.items()}
    return [[next(rest[key])] for key in turns]


def single_events(batches: Batches, _history: History) -> Batches:
    """Every write in a batch of its own."""
    return [[write] for batch in batches for write in batch]


def squashed(batches: Batches, _history: History) -> Batches:
    """Everything in one batch."""
    return [[write for batch in batches for write in batch]]


def with_empties(batches: Batches, _history: History) -> Batches:
    """Empty batches between all others."""
    return [part for batch in batches for part in ([], batch, [])]


def detour(batches: Batches, history: History) -> Batches:
    """To the end, back to nothing in reverse, and to the end again."""
    writes = [write for write_list in history.values() for write in write_list]
    gone = [Write(key=key, raw=None) for key in reversed(list(history))]
    return [*batches, *([write] for write in gone), writes]


def twice(batches: Batches, _history: History) -> Batches:
    """Every batch is delivered twice, as a source does that lists again."""
    return [batch for batch in batches for batch in (batch, batch)]


EXPANDERS: Final[Mapping[str, Expander]] = {
    expander.__name__.replace("_", "-"): expander
    for expander in (as_it_came, reversed_objects, shuffled_objects, single_events, squashed, with_empties, detour, twice)
}
