"""As much of Helm's template language as the chart uses, because Helm cannot be installed wherever the tests run.

Unknown functions and actions are errors, so that a chart that outgrows this renderer is noticed.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import yaml

TOKEN = re.compile(r"(\{\{-?)\s*(.*?)\s*(-?\}\})", re.DOTALL)
WORD = re.compile(r'"[^"]*"|\S+')

Node = tuple[str, Any, Any]


def parse(text: str) -> tuple[list[Node], dict[str, list[Node]]]:
    """Return the nodes of a template and its definitions."""
    pieces: list[str | tuple[str]] = []
    last, eat = 0, False
    for found in TOKEN.finditer(text):
        before = text[last : found.start()]
        before = before.lstrip() if eat else before
        pieces.append(before.rstrip() if found[1] == "{{-" else before)
        pieces.append((found[2],))
        last, eat = found.end(), found[3] == "-}}"
    pieces.append(text[last:].lstrip() if eat else text[last:])
    definitions: dict[str, list[Node]] = {}
    position = 0

    def block(*ends: str) -> tuple[list[Node], str]:
        nonlocal position
        nodes: list[Node] = []
        while position < len(pieces):
            piece = pieces[position]
            position += 1
            if isinstance(piece, str):
                nodes.append(("text", piece, None))
                continue
            keyword, _, rest = piece[0].partition(" ")
            if keyword in ends:
                return nodes, keyword
            if keyword in {"if", "range"}:
                body, end = block("else", "end")
                nodes.append((keyword, rest, (body, block("end")[0] if end == "else" else [])))
            elif keyword == "define":
                definitions[rest.strip('"')] = block("end")[0]
            elif (assigned := re.fullmatch(r"\$(\w+) := (.*)", piece[0])) is not None:
                nodes.append(("assign", assigned[1], assigned[2]))
            else:
                nodes.append(("value", piece[0], None))
        assert not ends, f"unclosed block, expected {ends}"
        return nodes, ""

    return block()[0], definitions


class Renderer:
    """Renders templates that share definitions."""

    def __init__(self, definitions: Mapping[str, list[Node]], root: Mapping[str, Any]) -> None:
        self.definitions, self.root = definitions, root
        self.functions: dict[str, Callable[..., Any]] = {
            "quote": lambda value: json.dumps(str(value)),
            "toYaml": lambda value: yaml.safe_dump(value, sort_keys=False).rstrip(),
            "toJson": json.dumps,
            "nindent": lambda width, value: "\n" + "\n".join(" " * width + line if line else line for line in str(value).split("\n")),
            "default": lambda fallback, value: value or fallback,
            "index": lambda table, key: table[key],
            "sha256sum": lambda value: hashlib.sha256(str(value).encode()).hexdigest(),
            "include": lambda name, _: self.render(self.definitions[name], {}),
        }

    def value(self, text: str, scope: Mapping[str, Any]) -> Any:
        result: list[Any] = []
        for stage in text.split(" | "):
            words = WORD.findall(stage)
            if words[0] in self.functions:
                result = [self.functions[words[0]](*(self.word(word, scope) for word in words[1:]), *result)]
            else:
                assert len(words) == 1, f"unknown function in {text!r}"
                result = [self.word(words[0], scope)]
        return result[0]

    def word(self, word: str, scope: Mapping[str, Any]) -> Any:
        if word.startswith('"'):
            return word[1:-1]
        if word.isdecimal():
            return int(word)
        start, *path = word.split(".")
        found: Any = scope[start[1:]] if start.startswith("$") else self.root
        assert start.startswith("$") or not start, f"unknown word {word!r}"
        for part in filter(None, path):
            assert part in found, f"{word}: there is no {part}"
            found = found[part]
        return found

    def render(self, nodes: list[Node], scope: Mapping[str, Any]) -> str:
        out, scope = [], dict(scope)
        for kind, what, more in nodes:
            if kind == "text":
                out.append(what)
            elif kind == "assign":
                scope[what] = self.value(more, scope)
            elif kind == "if":
                out.append(self.render(more[0] if self.value(what, scope) else more[1], scope))
            elif kind == "range":
                names, _, source = what.partition(" := ")
                variables = [name.strip("$ ") for name in names.split(",")]
                items = self.value(source, scope)
                for item in sorted(items.items()) if isinstance(items, Mapping) else items:
                    values = item if len(variables) == 2 else (item,)
                    out.append(self.render(more[0], {**scope, **dict(zip(variables, values, strict=True))}))
            else:
                value = self.value(what, scope)
                out.append({True: "true", False: "false"}.get(value, str(value)) if isinstance(value, bool) else str(value))
        return "".join(out)
