"""`Line`: one line of the canonical text, cut into words: plain ones, JSON strings and signs."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeVar

from polyplane.errors import TextSyntaxError

#: Longest line that is read, in characters. A rule with every second port is about 200,000 characters long.
MAX_LINE: Final = 1 << 20

_TOKEN: Final = re.compile(r'\s*(?:(?P<bare>[A-Za-z0-9_.:/-]+)|(?P<string>"(?:[^"\\]|\\.)*")|(?P<sign>[=,!\[\]]))')

_E = TypeVar("_E", bound=StrEnum)


@dataclass(frozen=True, slots=True)
class Token:
    """One word: ``kind`` is bare, string (``text`` without its quotes) or sign."""

    text: str
    kind: str


class Line:
    """The words of one line, taken from left to right."""

    def __init__(self, text: str, number: int) -> None:
        self.number = number
        self.tokens: list[Token] = []
        self.position = 0
        if len(text) > MAX_LINE:
            raise self.error(f"line is longer than {MAX_LINE} characters")
        at = 0
        while at < len(text):
            found = _TOKEN.match(text, at)
            if found is None or found.lastgroup is None:
                raise self.error(f"cannot read {text[at : at + 20].strip()!r}; names with other characters go in JSON quotes")
            word = found[found.lastgroup]
            self.tokens.append(Token(self._unquoted(word) if found.lastgroup == "string" else word, found.lastgroup))
            at = found.end()

    def _unquoted(self, quoted: str) -> str:
        try:
            return str(json.loads(quoted))
        except ValueError as error:
            raise self.error(f"{quoted[:40]} is no JSON string: {error}") from error

    def error(self, problem: str) -> TextSyntaxError:
        """Return the error that the line has this problem."""
        return TextSyntaxError(self.number, problem)

    @property
    def more(self) -> bool:
        """Whether words are left."""
        return self.position < len(self.tokens)

    def peek(self, sign: str) -> bool:
        """Whether the next word is this sign."""
        return self.more and self.tokens[self.position] == Token(sign, "sign")

    def take(self, sign: str) -> bool:
        """Take the sign if it is next; whether it was."""
        found = self.peek(sign)
        self.position += found
        return found

    def next(self, what: str) -> Token:
        """Take the next word, which is called ``what`` if it is missing."""
        if not self.more or self.tokens[self.position].kind == "sign":
            raise self.error(f"{what} is missing")
        self.position += 1
        return self.tokens[self.position - 1]

    def word(self, what: str) -> str:
        """Take the next word's text."""
        return self.next(what).text

    def expect(self, sign: str) -> None:
        """Take the sign, which must be next."""
        if not self.take(sign):
            raise self.error(f"{sign!r} is missing")

    def number_of(self, text: str, what: str, highest: int = (1 << 63) - 1) -> int:
        """Return the text as a number from 0 to ``highest``."""
        if not (text.isascii() and text.isdigit() and len(text) < 20 and int(text) <= highest):
            raise self.error(f"{what} must be a number up to {highest}, not {text[:40]!r}")
        return int(text)

    def enum(self, kind: type[_E], text: str, what: str) -> _E:
        """Return the text as one of the values of an enumeration."""
        try:
            return kind(text)
        except ValueError:
            raise self.error(f"{what} must be one of {', '.join(kind)}, not {text[:40]!r}") from None

    def items(self, what: str) -> list[Token]:
        """Take words separated by commas, at least one."""
        found = [self.next(what)]
        while self.take(","):
            found.append(self.next(what))
        return found

    def end(self) -> None:
        """Check that no words are left."""
        if self.more:
            raise self.error(f"unexpected {self.tokens[self.position].text[:40]!r}")
