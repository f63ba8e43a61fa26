"""`drifts_of`: differences between what is in the kernel and what should be, for people."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from typing import Final

from polyplane.hookspecs import Drift
from polyplane_nftables.native import Chain, Changes, Rule, Step

_ABSENT: Final = "nothing"
#: Elements that are named one by one; of more, only the number is told.
_NAMED: Final = 10


def drifts_of(changes: Changes) -> tuple[Drift, ...]:
    """Describe the changes that would repair the table: ``old`` is what was found, ``new`` what is expected."""
    return tuple(_describe(changes))


def _describe(changes: Changes) -> Iterator[Drift]:
    for name, (found, wanted) in sorted(changes.chains.items()):
        if found is None or wanted is None:
            yield Drift(subject=f"chain {name}", expected=_chain_text(wanted), found=_chain_text(found))
            continue
        if found.hook != wanted.hook:
            yield Drift(subject=f"chain {name}", expected=wanted.hook, found=found.hook or "no base chain")
        for number, (one, other) in enumerate(zip_longest(found.rules, wanted.rules), 1):
            if one is None or other is None or (one.body, one.comment) != (other.body, other.comment):
                yield Drift(subject=f"chain {name} rule {number}", expected=_rule_text(other), found=_rule_text(one))
    for name, (kind, other_kind) in sorted(changes.kinds.items()):
        found_text, wanted_text = (f"{one.word} {{ {one.definition} }}" if one else _ABSENT for one in (kind, other_kind))
        yield Drift(subject=f"set {name}", expected=wanted_text, found=found_text)
    for name, steps in sorted(changes.elements.items()):
        yield from _elements(name, steps)


def _elements(name: str, steps: dict[str, Step]) -> Iterator[Drift]:
    for key, (found, wanted) in sorted(steps.items())[:_NAMED]:
        yield Drift(subject=f"element {key} of {name}", expected=_value_text(wanted), found=_value_text(found))
    if len(steps) > _NAMED:
        yield Drift(subject=f"{name}", expected="as written", found=f"{len(steps) - _NAMED} more elements differ")


def _chain_text(chain: Chain | None) -> str:
    return _ABSENT if chain is None else f"{len(chain.rules)} rules"


def _rule_text(rule: Rule | None) -> str:
    return _ABSENT if rule is None else rule.full_text


def _value_text(value: str | None) -> str:
    return _ABSENT if value is None else value or "present"
