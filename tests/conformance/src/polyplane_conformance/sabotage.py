"""Sabotage: break the code in one place, run the suite, see that it notices and says where; then the next place.

``python -m polyplane_conformance.sabotage [compiler|nftables|iptables|ebpf|ovs] [--only TEXT]``. Each fault is planted in a copy
of the package that shadows the installed one in a fresh process; nothing installed is changed. A fault that survives, that no
longer fits the code, or whose failure does not name the rule in question, makes the exit status 1.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import pytest
import typer
from rich.console import Console
from rich.markup import escape

from polyplane_conformance.faults import PARTS, Fault, Part
from polyplane_conformance.gaps import gaps_file


class DoesNotFit(Exception):
    """The text that a fault replaces is not there exactly once."""


@dataclass(frozen=True, slots=True)
class Catch:
    """What noticed a fault: the scenario or behaviour, and what it said."""

    name: str
    detail: str


@dataclass(frozen=True, slots=True)
class Trial:
    """What became of one fault: ``problem`` is empty if it was caught and named as it should be."""

    fault: Fault
    caught: Catch | None
    problem: str
    seconds: float


def plant(fault: Fault, folder: Path) -> None:
    """Copy the fault's package into the folder and break the copy.

    :raises DoesNotFit: when the code has changed
    """
    package = fault.file.partition("/")[0]
    spec = find_spec(package)
    assert spec is not None, f"{package} is not installed"
    assert spec.origin is not None, f"{package} has no files"
    shutil.copytree(Path(spec.origin).parent, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    path = folder / fault.file
    text = path.read_text(encoding="utf-8")
    if text.count(fault.old) != 1:
        raise DoesNotFit(f"{fault.file} has {text.count(fault.old)} times: {fault.old.strip()}")
    path.write_text(text.replace(fault.old, fault.new), encoding="utf-8")


def hunt(folder: Path, tier: str, backend: str, pattern: str | None) -> Catch | None:
    """Run the suite on the broken copy until it notices; return what noticed, None if nothing did."""
    report = folder / "report.json"
    argv = [sys.executable, "-m", "pytest", "--pyargs", "polyplane_conformance.suite", "-c", os.devnull, "--rootdir", str(folder)]
    argv += ["-x", "-q", "-rfE", "--tb=line", "-p", "no:cacheprovider", "-p", "no:hypothesispytest", "--import-mode=importlib"]
    argv += ["--polyplane-tier", tier, "--polyplane-backend", backend, "--polyplane-report", str(report)]
    argv += ["--polyplane-scenario", pattern] if pattern is not None else []
    # what the backend states about itself may lie beside its package, and so not be in the copy
    argv += ["--polyplane-gaps", str(stated)] if (stated := gaps_file(backend)) is not None else []
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(argv, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        return None
    entries = json.loads(report.read_text(encoding="utf-8"))["results"] if report.exists() else []
    failed = next((entry for entry in entries if entry["status"] == "failed"), None)
    if done.returncode != pytest.ExitCode.TESTS_FAILED or failed is None:
        raise RuntimeError(f"the suite did not run: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return Catch(failed["name"], failed["detail"])


def judge(fault: Fault, caught: Catch | None) -> str:
    """Return what is wrong with a catch, or nothing."""
    if caught is None:
        return "survived"
    if fault.says and fault.says not in caught.detail:
        return f"caught by {caught.name}, which does not say {fault.says!r}"
    return ""


def sabotage(part: Part, faults: Iterable[Fault]) -> Iterator[Trial]:
    """Plant one fault after the other, and look for it first where it shows, then everywhere."""
    for fault in faults:
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="polyplane-sabotage-") as name:
            try:
                plant(fault, Path(name))
            except DoesNotFit as error:
                yield Trial(fault, None, str(error), time.monotonic() - began)
                continue
            caught = hunt(Path(name), part.tier, part.backend, fault.first) or hunt(Path(name), part.tier, part.backend, None)
        yield Trial(fault, caught, judge(fault, caught), time.monotonic() - began)


def main(
    what: Annotated[str, typer.Argument(help=f"{', '.join(PARTS)} or all.")] = "all",
    only: Annotated[str, typer.Option(help="Only faults whose name contains this.")] = "",
    *,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show what was said about each fault.")] = False,
) -> None:
    """Break the code in many ways; each must be noticed, and the right rule named."""
    console = Console()
    total = problems = 0
    for part in PARTS.values():
        if what not in ("all", part.name):
            continue
        for trial in sabotage(part, (fault for fault in part.faults if only in fault.name)):
            total += 1
            problems += bool(trial.problem)
            verdict = f"[bold red]{escape(trial.problem)}[/]"
            if not trial.problem and trial.caught is not None:
                named = f", which says “{escape(trial.fault.says)}”" if trial.fault.says else ""
                verdict = f"[green]caught by[/] {escape(trial.caught.name)}{named}"
            console.print(f"{part.name}: {trial.fault.name}: {verdict} ({trial.seconds:.0f} s)", highlight=False, soft_wrap=True)
            if verbose and trial.caught is not None:
                console.print(trial.caught.detail, markup=False, highlight=False, soft_wrap=True)
    console.print(f"{total - problems} of {total} faults caught", style="red" if problems or not total else "green", highlight=False)
    raise typer.Exit(1 if problems or not total else 0)


if __name__ == "__main__":
    typer.run(main)
