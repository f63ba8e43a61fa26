"""Bytes to documents: values as kubectl reads them, lines, isolation of what is broken, bounds."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyplane.cluster.sources.documents import MAX_BYTES, Document, Unreadable, read_documents


def read(text: str | bytes, *, is_json: bool = False) -> list[Document | Unreadable]:
    return list(read_documents(text.encode() if isinstance(text, str) else text, is_json=is_json))


def value(text: str) -> Any:
    (document,) = read(text)
    assert isinstance(document, Document), document
    return document.value


def broken(text: str | bytes, *, is_json: bool = False) -> Unreadable:
    (document,) = read(text, is_json=is_json)
    assert isinstance(document, Unreadable), document
    assert "; " in document.problem, "every problem carries its remedy"
    return document


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("web", "web"),
        ("'80'", "80"),
        ("80", 80),
        ("-1", -1),
        ("+5", 5),
        ("1_000", 1000),
        ("0x1F", 31),
        ("0o17", 15),
        ("017", 15),
        ("0b11", 3),
        ("0", 0),
        ("08", "08"),
        ("0x", "0x"),
        ("1.5", 1.5),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("1.2.3", "1.2.3"),
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("22:22", "22:22"),
        ("2026-01-01", "2026-01-01"),
        ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z"),
        ("true", True),
        ("Yes", True),
        ("off", False),
        ("y", "y"),
        ("None", "None"),
        ("~", None),
        ("null", None),
        ("", None),
        ("=", "="),
        ("!!str 80", "80"),
        ("! 80", "80"),
        ("!!int '80'", 80),
        ('"\\u00e9"', "é"),
        ("|\n  a\n  b\n", "a\nb\n"),
    ],
)
def test_scalars_are_what_json_has(text: str, meaning: Any) -> None:
    result = value(f"x: {text}")["x"]
    assert result == meaning
    assert type(result) is type(meaning)


def test_keys_are_strings() -> None:
    assert value("{1: a, true: b, 1.5: c, '2': d}") == {"1": "a", "true": "b", "1.5": "c", "2": "d"}


def test_aliases_and_merge_keys() -> None:
    text = "base: &base {a: 1, b: 2}\nmore: &more {b: 3, c: 4}\none: *base\ntwo: {<<: *base, b: 9}\nthree:\n  <<: [*base, *more]\n  d: 5\nfour: {'<<': 1}\n"
    result = value(text)
    assert result["one"] == {"a": 1, "b": 2}
    assert result["two"] == {"a": 1, "b": 9}
    assert result["three"] == {"a": 1, "b": 2, "c": 4, "d": 5}
    assert result["four"] == {"<<": 1}


def placed(text: str, *, is_json: bool = False) -> Any:
    """Number, line and value of each document."""
    documents = [document for document in read(text, is_json=is_json) if isinstance(document, Document)]
    return [(document.number, document.line, document.value) for document in documents]


def test_documents_have_numbers_and_lines() -> None:
    assert placed("# about\n---\na: 1\n---\n---\n# comment\nb: 2\n") == [(1, 3, {"a": 1}), (3, 7, {"b": 2})]
    assert placed("") == []
    assert placed("# nothing\n") == []
    assert placed("a: 1\n...\n---\nb: 2\n") == [(1, 1, {"a": 1}), (2, 4, {"b": 2})]
    assert placed("\ufeffa: 1\n") == [(1, 1, {"a": 1})]


FIELDS = """\
# a policy
metadata: &meta
  labels:
    app.kubernetes.io/name: web
spec:
  from:
  - a: 1

  - {b: [1,
         2]}
  -
    c: *meta
  <<: {d: 1}
---
other: x
"""


@pytest.mark.parametrize("broken", ["", "---\n[\n"])
def test_every_part_has_its_line(broken: str) -> None:
    first, second = (document for document in read(FIELDS + broken) if isinstance(document, Document))
    lines = {
        "": 2,
        "metadata": 2,
        "metadata.labels[app.kubernetes.io/name]": 4,
        "spec.from": 6,
        "spec.from[0].a": 7,
        "spec.from[1].b[1]": 10,
        "spec.from[2].c": 12,
        "spec.from[2].c.labels": 3,
        # what is not written, or came by a merge, is where it would be
        "spec.from[3]": 6,
        "spec.from[0].nothing.at[7].all": 7,
        "spec.d": 5,
        "object": 2,
    }
    assert {path: first.lines.of(path) for path in lines} == lines
    assert second.lines.of("other") == 15


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_broken_document_leaves_the_others(newline: str) -> None:
    text = newline.join(
        ["%YAML 1.1", "---", "a: 1", "---", "b: [1", "---", "c: 3", "---", "d: 4", "d: 5", "---", "e: 'x", "--- {f: 6}", ""]
    )
    documents = read(text)
    assert [(type(document), document.number, document.line) for document in documents] == [
        (Document, 1, 3),
        (Unreadable, 2, 6),
        (Document, 3, 7),
        (Unreadable, 4, 10),
        (Unreadable, 5, 13),
        (Document, 6, 13),
    ]


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: 1\nb: [\n", 3, "is not YAML"),
        ("a:\n\t- b\n", 2, "is not YAML"),
        ("a: 1\na: 2\n", 2, "'a' is given twice"),
        ("{1: a, '1': b}", 1, "'1' is given twice"),
        ("a: &a [*a]", 1, "refers to what contains it"),
        ("a: *b", 1, "no anchor before it"),
        ("a: !secret x", 1, "the tag !secret has no meaning"),
        ("a: !!python/object/apply:os.system [x]", 1, "has no meaning"),
        ("a: !!binary eA==", 1, "has no meaning"),
        ("a: !!int x", 1, "not what its tag says"),
        ("? [a]\n: b", 1, "a key must be a plain word"),
        ("&a {x: 1}: y", 1, "a key must be a plain word"),
        ("~: y", 1, "a key is empty"),
        ("<<: 5", 1, "<< needs an object"),
        ("a: " + "9" * 101, 1, "not a number that can be used"),
        ("a: 1e999", 1, "not a number that can be used"),
        ("a: \x01", 1, "is not YAML"),
        ("a: {{ .Values.x }}", 1, "key"),
        ("[" * 100_000, 1, "nested more than"),
        ("- " * 5_000, 1, "nested more than"),
    ],
)
def test_what_is_broken_is_told_with_its_line(text: str, line: int, words: str) -> None:
    document = broken(text)
    assert (document.number, document.line) == (1, line)
    assert words in document.problem


def test_alias_bombs_are_refused_at_once() -> None:
    levels = "\n".join(f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]" for before, name in zip("abcdefgh", "bcdefghi", strict=True))
    start = time.process_time()
    assert "aliases add more than" in broken(f"a: &a [x, x, x, x, x, x, x, x, x, x]\n{levels}\n").problem
    merges = "\n".join(f"k{number}: {{<<: *big}}" for number in range(2000))
    assert "aliases add more than" in broken("big: &big {" + ", ".join(f"x{number}: 1" for number in range(1000)) + "}\n" + merges).problem
    assert time.process_time() - start < 5


def test_nesting_through_aliases_is_bounded() -> None:
    deep = "a: &a " + "[" * 60 + "]" * 60 + "\nb: " + "[" * 60 + "*a" + "]" * 60
    assert "nested more than" in broken(deep).problem


def test_files_that_are_no_text_or_too_large() -> None:
    assert broken(b"a: 1\nb: \xff\n") == Unreadable(0, 2, "is not UTF-8 text (byte 8); save it as UTF-8")
    assert str(MAX_BYTES) in broken(b"#" * (MAX_BYTES + 1)).problem


def test_json() -> None:
    assert placed('{"a": 1}\n\n{"b": [true, null, 1.5]}\n', is_json=True) == [(1, 1, {"a": 1}), (2, 3, {"b": [True, None, 1.5]})]
    assert read(" \n", is_json=True) == []


@pytest.mark.parametrize(
    ("text", "number", "line", "words"),
    [
        ('{"a": 1}\n{"b":\n}', 2, 3, "is not JSON"),
        ('{"a": 1, "a": 2}', 1, 1, "given twice"),
        ('{"a": NaN}', 1, 1, "NaN"),
        ("[" * 100_000, 1, 1, "nested"),
        ("[" * 200 + "]" * 200, 1, 1, "nested more than 100"),
        ("9" * 5000, 1, 1, "endless number"),
        ("nonsense", 1, 1, "is not JSON"),
    ],
)
def test_broken_json(text: str, number: int, line: int, words: str) -> None:
    document = read(text, is_json=True)[-1]
    assert isinstance(document, Unreadable)
    assert (document.number, document.line) == (number, line)
    assert words in document.problem


yaml_words = st.lists(
    st.sampled_from(
        [*"[]{}:,-&*!|>'\"#%?\n\t ab19.~", "---\n", "...\n", "<<", "&a", "*a", "- ", ": ", "  ", "!!int ", "\r\n", "\ufeff", "\x00"]
    ),
    max_size=40,
)


@settings(deadline=None)
@given(st.one_of(st.binary(max_size=60), yaml_words.map(lambda words: "".join(words).encode())), st.booleans())
def test_no_bytes_raise(content: bytes, is_json: bool) -> None:
    lines = (
        content.count(b"\n")
        + content.count(b"\r")
        + content.decode(errors="replace").count("\u2028")
        + content.decode(errors="replace").count("\x85")
        + 2
    )
    for document in read_documents(content, is_json=is_json):
        assert 1 <= document.line <= lines
