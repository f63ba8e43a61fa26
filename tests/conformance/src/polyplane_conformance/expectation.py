"""`Expectation`: who may connect to whom, written for people.

Either a list of lines, read from the top, the last that fits wins, and everything no line speaks of is allowed::

    deny  * -> x/*
    allow y/*,z/a -> x/a

or a truth table whose rows are sources (``.`` allowed, ``X`` denied, ``-`` not asked)::

    ->     x/a x/b
    x/a     .   X
    y/a     X   .

``*`` is every actor asked, ``x/*`` and ``*/a`` are pods, ``!`` in front of a side means everybody but. A pod's way to
itself is never written down: it is always allowed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

Pair = tuple[str, str]

_SIGNS: Final = {".": True, "X": False}


@dataclass(frozen=True, slots=True, order=True)
class Service:
    """A protocol (TCP, UDP, SCTP, ICMP) and, where it has them, a destination port."""

    protocol: str
    port: int | None = None

    @classmethod
    def parse(cls, text: str) -> Service:
        """Read ``TCP/80`` or ``ICMP``.

        :raises ValueError: for another protocol, or ports where there are none
        """
        protocol, _, port = text.partition("/")
        if protocol == "ICMP" and not port:
            return cls(protocol)
        if protocol not in ("TCP", "UDP", "SCTP") or not port.isdecimal():
            raise ValueError(f"{text!r} is no service; write TCP/80, UDP/80, SCTP/80 or ICMP")
        return cls(protocol, int(port))

    def __str__(self) -> str:
        return self.protocol if self.port is None else f"{self.protocol}/{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """Reachability of the given services over the given IP versions: ``(source, destination)`` to allowed."""

    services: tuple[Service, ...]
    families: tuple[int, ...]
    cells: Mapping[Pair, bool]


def read_lines(text: str, actors: Sequence[str]) -> dict[Pair, bool]:
    """Read ``allow``/``deny`` lines over all pairs of different actors.

    :raises ValueError: for a line of another form, or one that fits no pair
    """
    cells = {(source, destination): True for source in actors for destination in actors if source != destination}
    for line in filter(None, (line.partition("#")[0].strip() for line in text.splitlines())):
        verb, _, rest = line.partition(" ")
        sources, arrow, destinations = rest.partition("->")
        if verb not in ("allow", "deny") or not arrow:
            raise ValueError(f"{line!r} is not of the form 'allow|deny SOURCES -> DESTINATIONS'")
        chosen = [pair for pair in cells if fits(sources, pair[0]) and fits(destinations, pair[1])]
        if not chosen:
            raise ValueError(f"{line!r} speaks of no pair among {', '.join(actors)}")
        cells.update(dict.fromkeys(chosen, verb == "allow"))
    return cells


def fits(side: str, actor: str) -> bool:
    """Whether a comma-separated list of patterns, perhaps negated as a whole by ``!``, fits an actor."""
    side = side.strip()
    negated = side.startswith("!")
    patterns = (pattern.strip() for pattern in side.removeprefix("!").split(","))
    return any(fnmatchcase(actor, pattern) for pattern in patterns) is not negated


def read_table(text: str) -> dict[Pair, bool]:
    """Read a truth table; the first line names the destinations after an arrow, the first word of each other line its source.

    :raises ValueError: for an unknown sign or a row of another length
    """
    (arrow, *destinations), *rows = [line.split() for line in text.splitlines() if line.strip()] or [[""]]
    if arrow != "->":
        raise ValueError("a table begins with '->' and the destinations")
    cells: dict[Pair, bool] = {}
    for source, *signs in rows:
        if len(signs) != len(destinations):
            raise ValueError(f"row {source} has {len(signs)} cells, the table has {len(destinations)} columns")
        for destination, sign in zip(destinations, signs, strict=True):
            if sign in _SIGNS and source != destination:
                cells[source, destination] = _SIGNS[sign]
            elif sign not in (*_SIGNS, "-"):
                raise ValueError(f"row {source}: {sign!r} is neither '.' nor 'X' nor '-'")
    return cells


def print_table(cells: Mapping[Pair, bool | None]) -> str:
    """Write cells as a truth table, the inverse of `read_table`; pairs that were not asked show as ``-``."""
    sources = _in_order(source for source, _ in cells)
    destinations = _in_order(destination for _, destination in cells)
    width = max(len(name) for name in (*sources, *destinations)) + 1
    lines = ["->".ljust(width) + "".join(name.rjust(width) for name in destinations)]
    for source in sources:
        signs = ({True: ".", False: "X", None: "-"}[cells.get((source, destination))] for destination in destinations)
        lines.append(source.ljust(width) + "".join(sign.rjust(width) for sign in signs))
    return "\n".join(lines)


def _in_order(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
