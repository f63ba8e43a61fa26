"""``polyplane demo``: see policies enforced on real packets, in a sandbox."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Annotated

import typer

from polyplane.cli.options import BackendFlag, ConfigFlag, read
from polyplane.cli.output import console
from polyplane.errors import PolyplaneError

_MODULE = "polyplane_conformance.demo"


def demo(
    manifests: Annotated[Path, typer.Argument(help="Directory with the demo's cluster and policies.", metavar="DIRECTORY")] = Path(
        "examples/shop"
    ),
    config: ConfigFlag = None,
    backend: BackendFlag = None,
) -> None:
    """Enforce the policies of a directory between network namespaces, and show who reaches whom before and after.

    Needs root, and the distribution polyplane-conformance. Everything it makes is removed at the end.
    """
    settings = read(config, {"backend": backend}).config
    try:
        module = importlib.import_module(_MODULE)
    except ModuleNotFoundError as error:
        if error.name is None or not _MODULE.startswith(error.name):
            raise PolyplaneError(f"the demo needs the Python module {error.name}; try: pip install {error.name}") from error
        raise PolyplaneError("the demo needs the sandbox of polyplane-conformance; try: pip install polyplane-conformance") from error
    raise typer.Exit(module.run_demo(backend=settings.backend, manifests=manifests, console=console()))
