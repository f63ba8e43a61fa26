"""`parse_listing`: the text of ``nft --stateless --numeric list table`` back to a `Native`.

It reads what this backend writes and nothing more. Anything else (a flag, a comment on an element, a flowtable) raises
`NotUnderstood`: then the whole table is replaced.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from polyplane_nftables.native import Chain, Kind, Native, Rule

_COMMENT: Final = re.compile(r'(.*) comment "([^"]*)"')
_ELEMENT: Final = re.compile(r'\s*((?:"[^"]*"|[^",{}])+?)\s*(?:,|$)')
_KEY: Final = re.compile(r'(?:"[^"]*"|[0-9a-fA-F:./-]+)(?: \. (?:"[^"]*"|[0-9a-fA-F:./-]+))*')
_COUNTER: Final = re.compile(r"counter packets (\d+) bytes (\d+)")


class NotUnderstood(ValueError):
    """The listing holds something this backend never writes; the text says what."""


def parse_listing(text: str) -> Native:
    """Read the listing of one table.

    :raises NotUnderstood: when the table holds something that this backend does not write
    """
    native = Native()
    lines = iter(text.splitlines())
    header = next(lines, "")
    if not re.fullmatch(r"table inet \S+ \{(?: # .*)?", header):
        raise NotUnderstood(f"no table: {header!r}")
    for line in lines:
        words = line.split()
        match words:
            case [] | ["}"]:
                continue
            case ["set" | "map" as word, name, "{"]:
                _parse_collection(native, name, _block(lines), is_map=word == "map")
            case ["chain", name, "{"]:
                native.set_chain(name, _parse_chain(list(_block(lines))))
            case _:
                raise NotUnderstood(f"{line.strip()[:80]!r} in the table")
    native.take_changes()
    return native


def _block(lines: Iterator[str]) -> Iterator[str]:
    """Yield the stripped lines up to the brace that closes a block; it is the only thing that stands alone one tab deep."""
    for line in lines:
        if line == "\t}":
            return
        yield line.strip()
    raise NotUnderstood("the listing ends inside a block")


def _parse_chain(lines: list[str]) -> Chain:
    hook = lines.pop(0) if lines and lines[0].startswith("type ") else ""
    return Chain(tuple(_parse_rule(line) for line in lines), hook)


def _parse_rule(line: str) -> Rule:
    if line.startswith('comment "'):
        raise NotUnderstood(f"a chain with a {line[:80]}")
    found = _COMMENT.fullmatch(line)
    return Rule(found[1], found[2]) if found else Rule(line)


def _parse_collection(native: Native, name: str, lines: Iterator[str], *, is_map: bool) -> None:
    kind_type, intervals, elements = "", False, ""
    for line in lines:
        if line.startswith("type "):
            kind_type = line.removeprefix("type ")
        elif line == "flags interval":
            intervals = True
        elif line.startswith("elements = { "):
            elements = " ".join([line.removeprefix("elements = { "), *lines]).removesuffix("}").strip()
        else:
            raise NotUnderstood(f"{line[:80]!r} in {name}")
    if is_map:
        kind_type, verdict, rest = kind_type.partition(" : verdict")
        if not verdict or rest:
            raise NotUnderstood(f"map {name} holds no verdicts")
    native.set_kind(name, Kind(kind_type, is_map=is_map, intervals=intervals))
    for key, value in _parse_elements(elements):
        if bool(value) is not is_map:
            raise NotUnderstood(f"element {key[:80]!r} in {name}")
        native.set_element(name, key, value)


def _parse_elements(text: str) -> Iterator[tuple[str, str]]:
    position = 0
    while position < len(text):
        found = _ELEMENT.match(text, position)
        if found is None:
            raise NotUnderstood(f"element {text[position : position + 80]!r}")
        position = found.end()
        key, _, value = found[1].partition(" : ")
        if not _KEY.fullmatch(key):
            raise NotUnderstood(f"element {key[:80]!r}")
        yield key, value


def parse_counters(text: str) -> dict[str, tuple[int, int]]:
    """Read packets and bytes of the first counter of each chain from a listing with counters."""
    counters: dict[str, tuple[int, int]] = {}
    chain = ""
    for line in text.splitlines():
        words = line.split()
        if len(words) == 3 and words[0] == "chain" and words[2] == "{":
            chain = words[1]
        elif chain and chain not in counters and (found := _COUNTER.search(line)):
            counters[chain] = (int(found[1]), int(found[2]))
    return counters
