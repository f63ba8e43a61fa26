"""`drifts_of`: differences between the flows of a switch and those that should be there, for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from polyplane.hookspecs import Drift
from polyplane_ovs.flows import Changes, Key, Value

_ABSENT: Final = "nothing"
#: Flows that are named one by one; of more, only the number is told.
_NAMED: Final = 20


def drifts_of(changes: Changes) -> Iterator[Drift]:
    """Describe the changes that would repair the switch: the old value is what was found, the new one what is expected."""
    for key, (found, wanted) in sorted(changes.items())[:_NAMED]:
        yield Drift(subject=f"flow {_where(key)}", expected=_text(wanted), found=_text(found))
    if len(changes) > _NAMED:
        yield Drift(subject="flows", expected="as written", found=f"{len(changes) - _NAMED} more differ")


def _where(key: Key) -> str:
    return f"table={key.table},priority={key.priority}" + (f",{key.match}" if key.match else "")


def _text(value: Value | None) -> str:
    return _ABSENT if value is None else f"cookie={value.cookie:#x} actions={value.actions}"
