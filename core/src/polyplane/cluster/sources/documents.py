"""The documents of one manifest file: bytes to plain values, each with its number and line. Pure and bounded.

A document that cannot be read leaves the others of its file readable. YAML itself is read by `polyplane.cluster.sources.yaml_values`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from polyplane.cluster.lines import Lines
from polyplane.cluster.sources.yaml_values import MAX_DEPTH, Broken, Value, read_values, too_deep

#: Larger files are refused; the largest object an API server stores is 1.5 MiB.
MAX_BYTES: Final = 16 * 1024 * 1024
#: A line that begins a document; at the start of a line it cannot be anything else (YAML 1.2, section 9.1.2).
_MARKER: Final = re.compile(r"^---(?=\s|$)", re.MULTILINE)
_ONLY_COMMENTS: Final = re.compile(r"(?:[ \t]*(?:#.*)?(?:\r?\n|\Z)|%.*(?:\r?\n|\Z))*")


@dataclass(frozen=True, slots=True)
class Document:
    """One document that could be read. ``number`` counts from 1; of JSON, only the line of the whole is known."""

    number: int
    value: Any
    lines: Lines

    @property
    def line(self) -> int:
        """Where it begins."""
        return self.lines.line


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A document, or with ``number`` 0 a whole file, that could not be read: ``problem`` is what is wrong and what to do."""

    number: int
    line: int
    problem: str


def read_documents(content: bytes, *, is_json: bool) -> Iterator[Document | Unreadable]:
    """Yield the documents of one file in order; empty ones are counted but not yielded."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        yield Unreadable(0, line, f"is not UTF-8 text (byte {error.start}); save it as UTF-8")
        return
    if len(content) > MAX_BYTES:
        yield Unreadable(0, 1, too_large(len(content)))
        return
    yield from _read_json(text) if is_json else _read_yaml(text)


def too_large(size: int) -> str:
    """Return the problem of a file that is too large to be read."""
    return f"is {size} bytes long, the limit is {MAX_BYTES}; split it into several files"


# --- JSON ----------------------------------------------------------------------------------------------------------------


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise Broken(0, f"the key {key[:80]!r} is given twice in one object; remove one")
            seen.add(key)
    return result


def _no_constant(name: str) -> Any:
    raise Broken(0, f"{name} is not JSON; write a number")


def _read_json(text: str) -> Iterator[Document | Unreadable]:
    decoder = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant)
    position, number = 0, 0
    while True:
        while position < len(text) and text[position].isspace():
            position += 1
        if position == len(text):
            return
        number += 1
        line = text.count("\n", 0, position) + 1
        try:
            value, position = decoder.raw_decode(text, position)
        except json.JSONDecodeError as error:
            # Nothing marks where the next document would begin: the rest of the file is lost.
            yield Unreadable(
                number, error.lineno, f"is not JSON: {error.msg[:1].lower()}{error.msg[1:]} (column {error.colno}); correct it"
            )
            return
        except Broken as error:
            yield Unreadable(number, line, error.problem)
            return
        except (RecursionError, ValueError):
            yield Unreadable(number, line, f"is nested too deeply or has an endless number; the limit is {MAX_DEPTH} levels")
            return
        if not _shallow(value):
            yield Unreadable(number, line, too_deep())
        else:
            yield Document(number, value, Lines((line, None)))


def _shallow(value: Any) -> bool:
    """Whether a decoded value stays within `MAX_DEPTH`."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [inner for item in level if isinstance(item, dict | list) for inner in (item.values() if isinstance(item, dict) else item)]
        if not level:
            return True
    return False


# --- YAML ----------------------------------------------------------------------------------------------------------------


def _read_yaml(text: str) -> Iterator[Document | Unreadable]:
    try:
        values = read_values(text)
    except Broken:
        yield from _read_chunks(text)
        return
    yield from _documents(1, values)


def _documents(number: int, values: list[Value]) -> Iterator[Document]:
    for index, value in enumerate(values):
        if value.content is not None:
            yield Document(number + index, value.content, value.lines)


def _read_chunks(text: str) -> Iterator[Document | Unreadable]:
    """Read a file that does not parse as a whole, document by document."""
    starts = [0, *(found.start() for found in _MARKER.finditer(text) if found.start())]
    chunks = [(start, text[start:end]) for start, end in zip(starts, [*starts[1:], len(text)], strict=True)]
    if len(chunks) > 1 and _ONLY_COMMENTS.fullmatch(chunks[0][1]):
        # What stands before the first marker is no document of its own.
        chunks[:2] = [(0, chunks[0][1] + chunks[1][1])]
    number = 1
    for start, chunk in chunks:
        offset = text.count("\n", 0, start)
        try:
            values = read_values(chunk, offset)
        except Broken as error:
            yield Unreadable(number, error.line, error.problem)
            number += 1
            continue
        yield from _documents(number, values)
        number += len(values)
