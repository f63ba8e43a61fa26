"""A complete backend whose dataplane is a file: the program in force is the canonical text in it.

It shows everything that a backend owes polyplane, without the details of a kernel. `docs/how-to/write-a-backend.md` walks
through it, and the tests install it as an outsider would.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from polyplane.errors import ApplyError, ConfigError
from polyplane.hookspecs import Applied, Drift, RuleCount, hookimpl
from polyplane.ir.delta import Delta
from polyplane.ir.features import Capabilities, Feature, Unsupported
from polyplane.ir.program import Program
from polyplane.ir.text import print_delta, print_program

NAME = "file"


class FileBackend:
    """Keeps the program in the file that the option ``path`` names."""

    def __init__(self, options: Mapping[str, object]) -> None:
        if unknown := sorted(set(options) - {"path"}):
            raise ConfigError(f"backend.{NAME}: unknown option {unknown[0]!r}; the only one is 'path'")
        self._path = Path(str(options.get("path", "/run/polyplane.program")))

    @hookimpl
    def polyplane_capabilities(self) -> Capabilities:
        """Everything but counters: no packet passes through a file."""
        missing = [] if self._path.parent.is_dir() else [f"there is no directory {self._path.parent}; create it or set backend.{NAME}.path"]
        return Capabilities(
            supported=frozenset(Feature) - {Feature.COUNTERS},
            unsupported=(Unsupported(Feature.COUNTERS, "no packet passes through a file"),),
            missing=tuple(missing),
        )

    @hookimpl
    def polyplane_render(self, delta: Delta) -> str:
        """Pure: from the delta alone, the same every time."""
        return print_delta(delta)

    @hookimpl
    def polyplane_apply(self, delta: Delta) -> Applied:
        """Write beside the old file, then rename: at every moment the file holds the old program or the new one."""
        found, wanted = self._read_back(), lines_of(delta.target)
        operations = len(set(found) ^ set(wanted))
        if operations:
            beside = self._path.with_suffix(".new")
            try:
                beside.write_text("\n".join(wanted))
                beside.replace(self._path)
            except OSError as error:
                raise ApplyError(f"cannot write {self._path}: {error.strerror}", backend=NAME, retryable=True) from error
        return Applied(operations=operations)

    @hookimpl
    def polyplane_audit(self, program: Program) -> Sequence[Drift]:
        """Compare what is there with what should be, and change nothing."""
        found, wanted = self._read_back(), lines_of(program)
        missing = [Drift(subject="line", expected=line, found="nothing") for line in wanted if line not in found]
        return missing + [Drift(subject="line", expected="nothing", found=line) for line in found if line not in wanted]

    @hookimpl
    def polyplane_counters(self) -> Sequence[RuleCount]:
        """None, as the capabilities say."""
        return ()

    @hookimpl
    def polyplane_teardown(self) -> Applied:
        """The file is ours, whoever wrote into it; its directory is not."""
        operations = len(set(self._read_back()))
        self._path.unlink(missing_ok=True)
        return Applied(operations=operations)

    def _read_back(self) -> list[str]:
        return self._path.read_text().split("\n") if self._path.exists() else []


def lines_of(program: Program) -> list[str]:
    """Return what the file must hold; revisions count programs and mean nothing, so they are left out."""
    return print_program(replace(program, revision=0)).split("\n")
