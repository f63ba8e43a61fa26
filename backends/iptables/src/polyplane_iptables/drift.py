"""`drifts_of`: differences between what is in the kernel and what should be, for people."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from typing import Any, Final

from polyplane.hookspecs import Drift
from polyplane.ir.cidr import BITS, Family
from polyplane_iptables.native import Chain, Jump, Native
from polyplane_iptables.setplan import PORT_SET_TYPE, SET_TYPE

_ABSENT: Final = "nothing"
#: Rules and elements that are named one by one.
_RULES: Final = 3
_ELEMENTS: Final = 10


def drifts_of(found: Native, wanted: Native) -> tuple[Drift, ...]:
    """Describe what differs."""
    return tuple(Drift(subject=subject, expected=expected, found=was) for subject, expected, was in _differences(found, wanted))


def _differences(found: Native, wanted: Native) -> Iterator[tuple[str, str, str]]:
    for family in BITS:
        table = "filter" if family == Family.IPV4 else "filter (IPv6)"
        old, new = found.filters[family], wanted.filters[family]
        for chain in sorted(old.jumps.keys() | new.jumps.keys()):
            one, other = old.jumps.get(chain, ()), new.jumps.get(chain, ())
            if one != other:
                yield f"{table} {chain}", _jumps_text(other), _jumps_text(one)
        for name in sorted(old.chains.keys() | new.chains.keys()):
            before, after = old.chains.get(name), new.chains.get(name)
            if before != after:
                yield from _chain_differences(f"{table} chain {name}", before, after)
    for name in sorted(found.set_names | wanted.set_names):
        yield from _set_differences(name, found, wanted)


def _jumps_text(jumps: tuple[Jump, ...]) -> str:
    return ", ".join(f"rule {place}: {rule}" for place, rule in jumps) or "no jump to polyplane"


def _chain_differences(subject: str, before: Chain | None, after: Chain | None) -> Iterator[tuple[str, str, str]]:
    if before is None or after is None:
        expected, was = (_ABSENT if chain is None else f"{len(chain.rules)} rules" for chain in (after, before))
        yield subject, expected, was
        return
    odd = [rule for rule in before.rules if rule not in after.rules]
    lost = [rule for rule in after.rules if rule not in before.rules]
    yield subject, " · ".join(lost[:_RULES]) or "rules in their order", " · ".join(odd[:_RULES]) or f"{len(before.rules)} rules"


def _set_differences(name: str, found: Native, wanted: Native) -> Iterator[tuple[str, str, str]]:
    old, new = _content(found, name), _content(wanted, name)
    if name in found.strangers:
        kind = PORT_SET_TYPE if name in wanted.ports else SET_TYPE
        yield f"set {name}", _ABSENT if new is None else kind, "a set of another kind"
    elif old is None or new is None:
        expected, was = (_ABSENT if members is None else f"{len(members)} elements" for members in (new, old))
        yield f"set {name}", expected, was
    else:
        for some, expected, was in ((new - old, "present", _ABSENT), (old - new, _ABSENT, "present")):
            for element in sorted(some)[:_ELEMENTS]:
                yield f"element {element} of set {name}", expected, was


def _content(native: Native, name: str) -> AbstractSet[Any] | None:
    return native.sets.get(name, native.ports.get(name, native.epochs.get(name)))
