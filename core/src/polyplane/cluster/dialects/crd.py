"""What the schema of a custom resource can ask of a field: required, bounded, exactly one of several members.

These are the API server's own checks. Beyond them it accepts what the kinds' controllers may not understand: members that
a newer definition has, and label selectors whose operators do not exist, since a schema calls both simply text. Functions here
that are named so report these with `Field.cannot` and return None, so that the rule around them can fail closed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from polyplane.cluster.fields import Field, shown
from polyplane.cluster.label_selector import parse_label_selector
from polyplane.cluster.model import LabelSelector
from polyplane.errors import InvalidObject

_SELECTOR: Final = ("matchLabels", "matchExpressions")
_EXPRESSION: Final = ("key", "operator", "values")


def required(field: Field, remedy: str) -> Field:
    """Return the field, which must be there.

    :raises polyplane.errors.InvalidObject: it is not
    """
    if not field.present:
        raise field.invalid(f"is missing; {remedy}")
    return field


def items(field: Field, *, least: int, most: int) -> list[Field]:
    """Read a list of bounded length.

    :raises polyplane.errors.InvalidObject: it has too few or too many items
    """
    found = field.items()
    if len(found) < least:
        raise field.invalid(f"has no items; write at least {least}" if field.present else f"is missing; write a list of {least} to {most}")
    if len(found) > most:
        raise field.invalid(f"has {len(found)} items; write at most {most}")
    return found


def number(field: Field, first: int, last: int) -> int:
    """Read a required whole number in a range.

    :raises polyplane.errors.InvalidObject: it is missing, no number or outside
    """
    value = required(field, f"write a number between {first} and {last}").integer()
    if not first <= value <= last:
        raise field.invalid(f"{shown(value)} is out of range; write a number between {first} and {last}")
    return value


def word(field: Field, words: Collection[str]) -> str:
    """Read a required word out of a few.

    :raises polyplane.errors.InvalidObject: it is missing or another
    """
    choice = ", ".join(words)
    value = required(field, f"write one of {choice}").text()
    if value not in words:
        raise field.invalid(f"{shown(value)} is none of the known values; use one of {choice}")
    return value


def name(field: Field) -> None:
    """Check the optional name of a rule, which serves people only.

    :raises polyplane.errors.InvalidObject: it is no text, or too long
    """
    if len(field.text()) > 100:
        raise field.invalid(f"is {len(field.text())} characters long; write at most 100")


def members_or_cannot(field: Field, known: Sequence[str]) -> dict[str, Field] | None:
    """Read an object in which an unknown member must not be ignored, since it would narrow or widen what the others mean."""
    value = field.value
    if isinstance(value, Mapping):
        strange = [key for key, item in value.items() if key not in known and item is not None]
        if strange:
            field.cannot(f"{shown(strange[0])} is not known here; use {' or '.join(known)}")
            return None
    return field.members(known)


def one_or_cannot(field: Field, known: Sequence[str]) -> tuple[str, Field] | None:
    """Read an object of which exactly one member must be given; return which one, and the member.

    None given is what is left when an API server with an older definition drops a member it does not know.

    :raises polyplane.errors.InvalidObject: several are given
    """
    members = members_or_cannot(field, known)
    if members is None:
        return None
    given = [one for one in known if members[one].present]
    if len(given) > 1:
        raise field.invalid(f"has {' and '.join(given)}; write just one of them, and the others as items of their own")
    if not given:
        field.cannot(f"says nothing; write {' or '.join(known)}")
        return None
    return given[0], members[given[0]]


def selector_or_cannot(field: Field) -> LabelSelector | None:
    """Read a label selector; the schema knows nothing of operators and of what a label may look like.

    :raises polyplane.errors.InvalidObject: what even the schema refuses
    """
    members = field.members(_SELECTOR)
    for _, value in members["matchLabels"].entries():
        value.text()
    for item in members["matchExpressions"].items():
        expression = item.members(_EXPRESSION)
        required(expression["key"], "write the key of a label").text()
        required(expression["operator"], "write In, NotIn, Exists or DoesNotExist").text()
        for value in expression["values"].items():
            value.text()
    # The same members are read a second time: their warnings, if any, are already noted.
    noted = len(field.report.warnings)
    try:
        selector = parse_label_selector(field)
    except InvalidObject as error:
        Field(None, error.field, field.report).cannot(error.problem)
        return None
    finally:
        del field.report.warnings[noted:]
    return selector
