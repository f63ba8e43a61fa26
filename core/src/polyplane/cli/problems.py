"""Problems of the input, for commands whose main answer is something else."""

from __future__ import annotations

from pathlib import Path

import typer

from polyplane.cluster.store import Store


def warn(store: Store, directory: Path) -> None:
    """Say on standard error what is wrong with the manifests, in short."""
    for problem in store.problems.values():
        typer.echo(f"polyplane: {problem.severity}: {problem}", err=True)
    if store.problems:
        typer.echo(f"polyplane: see: polyplane check {directory}", err=True)
