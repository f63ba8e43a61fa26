"""`Field`: a decoded JSON value that knows its path inside its object.

The policy dialects read objects through it. Whatever is asked of it, it either answers with a value of the asked type or
raises `InvalidObject` with the path, so no input, however odd, can raise anything else. ``null`` counts as missing, as it
does in the API server's decoder.
"""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from polyplane.errors import InvalidObject

_SHORT: Final = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxlong = _SHORT.maxother = 80
_SHORT.maxlevel = 2


def shown(value: object) -> str:
    """A value in at most about a line, for error messages."""
    try:
        return _SHORT.repr(value)
    except ValueError:
        # Python refuses to print integers of more than 4300 digits; such a number may sit anywhere inside the value.
        return "a value with a number of thousands of digits"


def type_name(value: object) -> str:
    """The JSON type of a decoded value in words."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case Mapping():
            return "an object"
        case list() | tuple():
            return "a list"
        case _:
            return f"a value of type {type(value).__name__}"


@dataclass(slots=True)
class Report:
    """Which object is being read, for errors, and what was noted on the way; see `Field.warn` and `Field.cannot`."""

    kind: str
    namespace: str
    name: str
    warnings: list[str] = field(default_factory=list)
    unsupported: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Field:
    """One value of an object. ``path`` is its place (``spec.ingress[0].from``), empty for the object itself."""

    value: Any
    path: str
    report: Report

    @property
    def present(self) -> bool:
        """Whether the field was given with anything but null."""
        return self.value is not None

    def invalid(self, problem: str) -> InvalidObject:
        """Return the error to raise about this field; ``problem`` is ``what is wrong; what to write instead``."""
        report = self.report
        return InvalidObject(kind=report.kind, namespace=report.namespace, name=report.name, field=self.path or "object", problem=problem)

    def warn(self, text: str) -> None:
        """Note something about this field that is accepted but probably not meant."""
        self.report.warnings.append(f"{self.path or 'object'}: {text}")

    def cannot(self, text: str) -> None:
        """Note that this field asks for something nobody here can do; whoever reads it must let its rule fail closed."""
        self.report.unsupported.append(f"{self.path or 'object'}: {text}")

    def _wrong_type(self, wanted: str, remedy: str) -> InvalidObject:
        return self.invalid(f"must be {wanted}, not {type_name(self.value)} ({shown(self.value)}); {remedy}")

    def members(self, known: Sequence[str]) -> dict[str, Field]:
        """Read an object: one field for each name of ``known``, present or not. Other names give a warning each."""
        value = {} if self.value is None else self.value
        if not isinstance(value, Mapping):
            raise self._wrong_type("an object", f"write it as an object with {', '.join(known)}")
        for key in value:
            if not isinstance(key, str):
                raise self.invalid(f"the key {shown(key)} must be a string; quote it")
            if key not in known:
                self._unknown(key, known)
        prefix = f"{self.path}." if self.path else ""
        return {name: Field(value.get(name), prefix + name, self.report) for name in known}

    def _unknown(self, key: str, known: Sequence[str]) -> None:
        # An API server warns as well and drops the field; here too it has no effect.
        near = difflib.get_close_matches(key[:64], known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
        self.warn(f"unknown field {shown(key)} has no effect; {hint}")

    def entries(self) -> list[tuple[str, Field]]:
        """Read a map with free keys, such as labels."""
        value = {} if self.value is None else self.value
        if not isinstance(value, Mapping):
            raise self._wrong_type("an object", "write it as key: value pairs")
        for key in value:
            if not isinstance(key, str):
                raise self.invalid(f"the key {shown(key)} must be a string; quote it")
        return [(key, Field(item, f"{self.path}[{key}]", self.report)) for key, item in value.items()]

    def items(self) -> list[Field]:
        """Read a list; null is the empty list."""
        value = [] if self.value is None else self.value
        if not isinstance(value, list | tuple):
            raise self._wrong_type("a list", "put '- ' before each item")
        return [Field(item, f"{self.path}[{index}]", self.report) for index, item in enumerate(value)]

    def text(self) -> str:
        """Read a string; null is the empty string, as for the API server."""
        value = "" if self.value is None else self.value
        if not isinstance(value, str):
            raise self._wrong_type("a string", "put it into quotes" if isinstance(value, int | float) else "write a string")
        return value

    def integer(self) -> int:
        """Read a whole number; null is 0."""
        value = 0 if self.value is None else self.value
        if isinstance(value, bool) or not isinstance(value, int):
            raise self._wrong_type("a whole number", "remove the quotes" if isinstance(value, str) else "write a whole number")
        return value

    def boolean(self) -> bool:
        """Read true or false; null is false."""
        value = False if self.value is None else self.value
        if not isinstance(value, bool):
            raise self._wrong_type("a boolean", "write true or false")
        return value
