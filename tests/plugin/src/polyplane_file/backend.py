"""The hooks by which polyplane drives the dataplane; complete, over the two functions of `native`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from polyplane.backend_kit.namespaces import in_namespace
from polyplane.backend_kit.options import netns_option, refuse_unknown
from polyplane.errors import ApplyError
from polyplane.hookspecs import Applied, Drift, RuleCount, hookimpl
from polyplane.ir.delta import Delta
from polyplane.ir.features import Capabilities, Feature, Unsupported
from polyplane.ir.program import Program
from polyplane_file.native import MISSING, exchange, statements

NAME = "file"


class FileBackend:
    """Made with the options of ``[backend.file]``: ``place`` (what is ours) and ``netns`` (the namespace to work in)."""

    def __init__(self, options: Mapping[str, object]) -> None:
        refuse_unknown(f"[backend.{NAME}]", options, ("place", "netns"))
        self._place = str(options.get("place", "polyplane"))
        self._netns = netns_option(f"[backend.{NAME}]", options.get("netns"))

    @hookimpl
    def polyplane_capabilities(self) -> Capabilities:
        """Everything but what `native` says is missing; each feature is either supported or explained."""
        missing = tuple(Unsupported(feature, reason) for feature, reason in MISSING.items())
        return Capabilities(supported=frozenset(Feature) - MISSING.keys(), unsupported=missing)

    @hookimpl
    def polyplane_render(self, delta: Delta) -> str:
        """Return the statements that go and those that come."""
        old, new = statements(delta.base), statements(delta.target)
        return "".join([*(f"- {line}\n" for line in _without(old, new)), *(f"+ {line}\n" for line in _without(new, old))])

    @hookimpl
    def polyplane_apply(self, delta: Delta) -> Applied:
        """Change what differs from what is there, whoever put it there; nothing if nothing does."""
        wanted = statements(delta.target)
        operations = _distance(self._exchange(None), wanted)
        if operations:
            self._exchange(wanted)
        return Applied(operations=operations)

    @hookimpl
    def polyplane_audit(self, program: Program) -> Sequence[Drift]:
        """Compare what is there with what should be, and change nothing."""
        found, wanted = self._exchange(None), statements(program)
        lost = [Drift(subject="statement", expected=line, found="nothing") for line in _without(wanted, found)]
        return lost + [Drift(subject="statement", expected="nothing", found=line) for line in _without(found, wanted)]

    @hookimpl
    def polyplane_counters(self) -> Sequence[RuleCount]:
        """None, as the capabilities say."""
        return ()

    @hookimpl
    def polyplane_teardown(self) -> Applied:
        """Remove everything that is ours, whoever left it behind."""
        found = self._exchange(None)
        if found:
            self._exchange([])
        return Applied(operations=len(found))

    def _exchange(self, wanted: list[str] | None) -> list[str]:
        try:
            return in_namespace(self._netns, lambda: exchange(wanted, self._place))
        except OSError as error:
            raise ApplyError(f"{self._place}: {error}", backend=NAME, retryable=True) from error


def _without(lines: list[str], others: list[str]) -> list[str]:
    """Lines that are not among the others, each as often as it is missing there."""
    return list((Counter(lines) - Counter(others)).elements())


def _distance(found: list[str], wanted: list[str]) -> int:
    """Statements to remove and to add; at least one if only the order differs."""
    return len(_without(found, wanted)) + len(_without(wanted, found)) or int(found != wanted)
