"""`Problem`: something in the cluster's input that its author should repair, and what polyplane does meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from polyplane.cluster.model import ObjectKey, SourceProblem, TierSpec
from polyplane.errors import InvalidObject

#: So many objects are named in one message, and the rest counted.
_SHOWN: Final = 5


class Severity(StrEnum):
    """How bad a problem is."""

    #: Something that was asked for is not in force.
    ERROR = "error"
    #: Everything is in force, but probably not all as its author meant it.
    WARNING = "warning"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One problem of one object, or of one place of a source.

    ``object`` names it (``NetworkPolicy shop/web``) and ``key`` identifies it, empty and None where no object could be told;
    ``where`` is its place in the source, may be empty. ``message`` says what is wrong, with the field first; ``remedy`` what to
    write instead, may be empty.
    ``stale``: the last valid version is still in force. ``fails_closed``: the object is in force, except that the rule in question
    allows nothing or, if it does not allow, denies everything.
    """

    severity: Severity
    object: str
    where: str
    message: str
    remedy: str = ""
    stale: bool = False
    key: ObjectKey | None = None
    fails_closed: bool = False

    @property
    def consequence(self) -> str:
        """What this means for enforcement until it is repaired."""
        if self.severity is Severity.WARNING:
            return "in force"
        if self.fails_closed:
            return "the rule fails closed"
        return "the last valid version stays in force" if self.stale else "not in force"

    def __str__(self) -> str:
        what = f"{self.object}: {self.message}" if self.object else self.message
        remedy = f"; {self.remedy}" if self.remedy else ""
        where = f"{self.where}: " if self.where else ""
        return f"{where}{what}{remedy} ({self.consequence})"


def _split(text: str) -> tuple[str, str]:
    """Split "what is wrong; what to write instead"."""
    message, _, remedy = text.partition("; ")
    return message, remedy


def invalid_object(key: ObjectKey, where: str, error: InvalidObject, *, stale: bool) -> Problem:
    """Return the problem of an object that breaks its API's rules."""
    message, remedy = _split(error.problem)
    return Problem(
        severity=Severity.ERROR, object=str(key), where=where, message=f"{error.field}: {message}", remedy=remedy, stale=stale, key=key
    )


def broken_dialect(key: ObjectKey, where: str, error: Exception, *, stale: bool) -> Problem:
    """Return the problem of an object on which its dialect failed in a way no dialect may."""
    message = f"the dialect of {key.api_version} {key.kind} failed: {type(error).__name__}: {error}"
    remedy = "report it to whoever maintains that plugin"
    return Problem(severity=Severity.ERROR, object=str(key), where=where, message=message, remedy=remedy, stale=stale, key=key)


def no_dialect(key: ObjectKey, where: str) -> Problem:
    """Return the problem of a policy that no installed dialect understands."""
    message = f"no installed dialect reads {key.api_version} {key.kind}"
    return Problem(
        severity=Severity.ERROR, object=str(key), where=where, message=message, remedy="install one, or remove the object", key=key
    )


def warning(key: ObjectKey, where: str, text: str) -> Problem:
    """Return the problem of an object that is in force, but hardly as meant."""
    message, remedy = _split(text)
    return Problem(severity=Severity.WARNING, object=str(key), where=where, message=message, remedy=remedy, key=key)


def unsupported(key: ObjectKey, where: str, text: str) -> Problem:
    """Return the problem of an object that is valid, but asks for something that nobody can do."""
    message, remedy = _split(text)
    return Problem(severity=Severity.ERROR, object=str(key), where=where, message=message, remedy=remedy, key=key, fails_closed=True)


def equal_order(tier: TierSpec, order: tuple[int, ...], keys: Sequence[ObjectKey]) -> Problem:
    """Return the problem of policies of a tier whose API leaves open which of them comes first."""
    names = ", ".join(map(str, keys[:_SHOWN])) + (f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else "")
    place = ".".join(map(str, order))
    message = f"priority {place} of tier {tier.name} is shared by {names}, which are taken by name"
    remedy = "give each a priority of its own"
    return Problem(severity=Severity.WARNING, object=str(keys[0]), where="", message=message, remedy=remedy, key=keys[0])


def unreadable(event: SourceProblem) -> Problem:
    """Return the problem of a place that its source could not read."""
    message, remedy = _split(event.problem or "")
    return Problem(severity=Severity.ERROR, object="", where=event.where, message=message, remedy=remedy, stale=event.stale)
