"""YAML text to plain values, as ``kubectl`` reads it: safely, bounded, and with the line on which each part begins.

Scalars become what JSON has (a timestamp stays a string, and so does ``22:22``), keys become strings, and a key given twice is an
error. libyaml delivers events and a small stack machine builds the values, because PyYAML's own composer recurses in C and so
lets a file of a hundred thousand brackets crash the process (seen with PyYAML 6.0.3).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import yaml

from polyplane.cluster.lines import Lines, Tree

#: Nested lists and objects; the deepest valid object of any policy API stays far below.
MAX_DEPTH: Final = 100
#: Values that the aliases of one document may add to those written out.
MAX_ALIASED: Final = 1_000_000
#: More digits than any number of any API; Python's own limit would raise somewhere else.
_MAX_DIGITS: Final = 100

_TAG: Final = "tag:yaml.org,2002:"
_NULL: Final = re.compile(r"~|null|Null|NULL|")
_BOOL: Final = re.compile(r"true|True|TRUE|false|False|FALSE|yes|Yes|YES|no|No|NO|on|On|ON|off|Off|OFF")
_INT: Final = re.compile(r"[-+]?(?:0b[01_]+|0x[0-9a-fA-F_]+|0o[0-7_]+|0[0-7_]*|[1-9][0-9_]*)")
_FLOAT: Final = re.compile(r"[-+]?(?:[0-9]+\.[0-9]*(?:[eE][-+]?[0-9]+)?|\.[0-9]+(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+)")
#: A plain scalar that begins otherwise is a string: most are, and need no further look.
_NOT_PLAIN_TEXT: Final = frozenset("~nNtTfFyYoO-+.0123456789")


class Broken(Exception):
    """A document cannot be read: the line (from 1) and what is wrong and what to do; caught by `documents`."""

    def __init__(self, line: int, problem: str) -> None:
        self.line = line
        self.problem = problem
        super().__init__(problem)


class Value(NamedTuple):
    """The content of one document, None when it is empty, and its lines."""

    content: Any
    lines: Lines


def too_deep() -> str:
    """Return the problem of a document that is nested beyond `MAX_DEPTH`."""
    return f"is nested more than {MAX_DEPTH} levels deep; no object of any policy API is"


class _Built(NamedTuple):
    """A finished value, how many values it expands to, how many levels are below it, and where it and its parts begin."""

    content: Any
    size: int
    height: int
    line: int
    inner: dict[str, Tree] | None = None


@dataclass(slots=True)
class _Frame:
    """A list or an object under construction. ``key`` is set between an object's key and its value."""

    content: list[Any] | dict[str, Any]
    line: int
    anchor: str | None
    key: str | None = None
    key_line: int = 0
    merging: bool = False
    merged: dict[str, Any] = field(default_factory=dict)
    size: int = 1
    height: int = 0
    inner: dict[str, Tree] = field(default_factory=dict)

    @property
    def wants_key(self) -> bool:
        return isinstance(self.content, dict) and self.key is None and not self.merging

    def finished(self) -> _Built:
        content = {**self.merged, **self.content} if self.merged and isinstance(self.content, dict) else self.content
        return _Built(content, self.size, self.height, self.line, self.inner)


class _Reader:
    """The stack machine: takes the parser's events, gives the values of the documents; lines count from ``offset`` + 1."""

    def __init__(self, offset: int) -> None:
        self.values: list[Value] = []
        self._offset = offset
        self._start()

    def _start(self) -> None:
        self._frames: list[_Frame] = []
        self._anchors: dict[str, _Built] = {}
        self._open: list[str] = []
        self._root: _Built | None = None
        self._aliased = 0

    def feed(self, event: yaml.Event) -> None:
        match event:
            case yaml.ScalarEvent():
                self._scalar(event)
            case yaml.MappingStartEvent() | yaml.SequenceStartEvent():
                self._begin(event)
            case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                self._end()
            case yaml.AliasEvent():
                self._alias(event)
            case yaml.DocumentStartEvent():
                self._start()
            case yaml.DocumentEndEvent():
                root = self._root or _Built(None, 0, 0, 1)
                self.values.append(Value(root.content, Lines((root.line, root.inner))))

    def _line(self, event: yaml.Event) -> int:
        return self._offset + (event.start_mark.line + 1 if event.start_mark is not None else 1)

    def _scalar(self, event: yaml.ScalarEvent) -> None:
        line = self._line(event)
        frame = self._frames[-1] if self._frames else None
        if frame is not None and frame.wants_key and event.value == "<<" and event.implicit[0]:
            frame.merging = True
            frame.key_line = line
            return
        value = _Built(_scalar(event, line), 1, 0, line)
        if event.anchor:
            self._anchors[event.anchor] = value
        self._add(value)

    def _begin(self, event: yaml.MappingStartEvent | yaml.SequenceStartEvent) -> None:
        line = self._line(event)
        is_map = isinstance(event, yaml.MappingStartEvent)
        if event.tag not in (None, "!", f"{_TAG}map" if is_map else f"{_TAG}seq"):
            raise Broken(line, _no_meaning(event.tag))
        if len(self._frames) >= MAX_DEPTH:
            raise Broken(line, too_deep())
        frame = _Frame({} if is_map else [], line, event.anchor)
        if self._frames:
            parent = self._frames[-1]
            if parent.wants_key:
                raise Broken(line, "a key must be a plain word, not a list or an object; quote what looks like one")
        if event.anchor:
            self._open.append(event.anchor)
        self._frames.append(frame)

    def _end(self) -> None:
        frame = self._frames.pop()
        value = frame.finished()
        if frame.anchor:
            self._open.remove(frame.anchor)
            self._anchors[frame.anchor] = value
        self._add(value)

    def _alias(self, event: yaml.AliasEvent) -> None:
        line = self._line(event)
        name = event.anchor or ""
        if name in self._open:
            raise Broken(line, f"the alias *{name[:80]} refers to what contains it; write the value out")
        if name not in self._anchors:
            raise Broken(line, f"the alias *{name[:80]} has no anchor before it; write &{name[:80]} where the value stands")
        value = self._anchors[name]
        self._aliased += value.size
        if self._aliased > MAX_ALIASED:
            raise Broken(line, f"aliases add more than {MAX_ALIASED} values; write it with fewer aliases")
        if len(self._frames) + value.height > MAX_DEPTH:
            raise Broken(line, too_deep())
        self._add(value._replace(line=line))

    def _add(self, value: _Built) -> None:
        """Give a finished value to the list or object it belongs to."""
        if not self._frames:
            self._root = value
            return
        frame = self._frames[-1]
        frame.size += value.size
        frame.height = max(frame.height, value.height + 1)
        if isinstance(frame.content, list):
            frame.inner[str(len(frame.content))] = value.line, value.inner
            frame.content.append(value.content)
        elif frame.merging:
            frame.merging = False
            _merge(frame, value.content)
        elif frame.key is None:
            frame.key, frame.key_line = _key(value), value.line
            if frame.key in frame.content:
                raise Broken(value.line, f"the key {frame.key[:80]!r} is given twice in one object; remove one")
        else:
            frame.content[frame.key] = value.content
            frame.inner[frame.key] = frame.key_line, value.inner
            frame.key = None


def _merge(frame: _Frame, sources: Any) -> None:
    for source in sources if isinstance(sources, list) else [sources]:
        if not isinstance(source, dict):
            raise Broken(frame.key_line, "<< needs an object, or a list of objects; write an alias of one")
        for key, content in source.items():
            frame.merged.setdefault(key, content)


def _key(value: _Built) -> str:
    match value.content:
        case str() as text:
            return text
        case bool() as truth:
            return "true" if truth else "false"
        case int() | float() as number:
            return str(number)
        case None:
            raise Broken(value.line, "a key is empty or null; write its name")
        case _:
            raise Broken(value.line, "a key must be a plain word, not a list or an object; quote what looks like one")


def _scalar(event: yaml.ScalarEvent, line: int) -> Any:
    text: str = event.value
    tag = event.tag
    if tag in ("!", f"{_TAG}str") or (tag is None and not event.implicit[0]):
        return text
    if tag is not None and tag not in (f"{_TAG}null", f"{_TAG}bool", f"{_TAG}int", f"{_TAG}float"):
        raise Broken(line, _no_meaning(tag))
    value = _plain(text, line)
    if tag is not None and isinstance(value, str):
        raise Broken(line, f"{text[:80]!r} is not what its tag says; remove the tag or correct the value")
    return value


def _no_meaning(tag: str) -> str:
    return f"the tag {tag[:80]} has no meaning here; remove it"


def _plain(text: str, line: int) -> Any:
    """Resolve a plain scalar."""
    if text and text[0] not in _NOT_PLAIN_TEXT:
        return text
    if _NULL.fullmatch(text):
        return None
    if _BOOL.fullmatch(text):
        return text.lower() in {"true", "yes", "on"}
    if _INT.fullmatch(text):
        return _number(text, line, whole=True)
    if _FLOAT.fullmatch(text):
        return _number(text, line, whole=False)
    return text


def _number(text: str, line: int, *, whole: bool) -> int | float:
    digits = text.replace("_", "")
    try:
        if len(digits) > _MAX_DIGITS:
            raise ValueError(digits)
        if not whole:
            number = float(digits)
            if not math.isfinite(number):
                raise ValueError(digits)
            return number
        bare = digits.lstrip("+-")
        # A leading zero alone means octal, as in YAML 1.1.
        octal = len(bare) > 1 and bare.isdigit() and bare[0] == "0"
        magnitude = int(bare, 8 if octal else 0)
        return -magnitude if digits.startswith("-") else magnitude
    except ValueError:
        raise Broken(line, f"{text[:80]!r} is not a number that can be used; quote it if a string is meant") from None


def read_values(text: str, offset: int = 0) -> list[Value]:
    """Read all documents of a YAML text, which so many lines of its file stand before.

    :raises Broken: at the first thing that cannot be read
    """
    reader = _Reader(offset)
    try:
        for event in yaml.parse(text, Loader=yaml.CSafeLoader):
            reader.feed(event)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
        detail = " ".join(part for part in (error.context, error.problem) if part)
        raise Broken(offset + line, f"is not YAML: {detail} (column {column}); correct it") from error
    except yaml.YAMLError as error:
        raise Broken(offset + 1, f"is not YAML: {' '.join(str(error).split())[:200]}; correct it") from error
    return reader.values
