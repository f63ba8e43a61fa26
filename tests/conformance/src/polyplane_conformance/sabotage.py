"""Sabotage: break the code in one place, run the suite, see that it notices; then the next place.

``python -m polyplane_conformance.sabotage [compiler|renderer] [--only TEXT]``. Each fault is planted in a copy of the package that
shadows the installed one in a fresh process; nothing installed is changed. A fault that survives, or no longer fits the
code, makes the exit status 1.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.markup import escape

from polyplane_conformance.faults import COMPILER, RENDERER, Fault

_CAUGHT: Final = re.compile(r"^(?:FAILED|ERROR) \S*?::(\S+)", re.MULTILINE)


class DoesNotFit(Exception):
    """The text that a fault replaces is not there exactly once."""


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


def hunt(folder: Path, tier: str, backend: str, pattern: str | None) -> str | None:
    """Run the suite on the broken copy until it notices; return what noticed, None if nothing did."""
    argv = [sys.executable, "-m", "pytest", "--pyargs", "polyplane_conformance.suite", "-c", os.devnull, "--rootdir", str(folder)]
    argv += ["-x", "-q", "-rfE", "--tb=no", "-p", "no:cacheprovider", "--import-mode=importlib"]
    argv += ["--polyplane-tier", tier, "--polyplane-backend", backend]
    argv += ["--polyplane-scenario", pattern] if pattern is not None else []
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(argv, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode in (0, 5):
        return None
    found = _CAUGHT.search(done.stdout)
    if done.returncode != 1 or found is None:
        raise RuntimeError(f"the suite did not run: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return found[1]


def sabotage(faults: Sequence[Fault], tier: str, backend: str) -> Iterator[tuple[Fault, str | DoesNotFit | None, float]]:
    """Plant one fault after the other; yield it, what caught it (None: it survived) and the seconds it took."""
    for fault in faults:
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="polyplane-sabotage-") as name:
            try:
                plant(fault, Path(name))
            except DoesNotFit as error:
                yield fault, error, time.monotonic() - began
                continue
            caught = hunt(Path(name), tier, backend, fault.first) or hunt(Path(name), tier, backend, None)
        yield fault, caught, time.monotonic() - began


def main(
    what: Annotated[str, typer.Argument(help="compiler, renderer or all.")] = "all",
    only: Annotated[str, typer.Option(help="Only faults whose name contains this.")] = "",
) -> None:
    """Break the code in many ways; each must be noticed."""
    console = Console()
    survived = total = 0
    runs = {"compiler": (COMPILER, "model", "memory"), "renderer": (RENDERER, "netns", "nftables")}
    for part, (faults, tier, backend) in runs.items():
        if what not in ("all", part):
            continue
        chosen = [fault for fault in faults if only in fault.name]
        for fault, caught, seconds in sabotage(chosen, tier, backend):
            total += 1
            survived += not isinstance(caught, str)
            verdict = (
                f"[green]caught by[/] {escape(caught)}" if isinstance(caught, str) else f"[bold red]{escape(str(caught or 'survived'))}[/]"
            )
            console.print(f"{part}: {fault.name}: {verdict} ({seconds:.0f} s)", highlight=False, soft_wrap=True)
    console.print(f"{total - survived} of {total} faults caught", style="red" if survived or not total else "green", highlight=False)
    raise typer.Exit(1 if survived or not total else 0)


if __name__ == "__main__":
    typer.run(main)
