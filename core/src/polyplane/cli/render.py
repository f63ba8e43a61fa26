"""``polyplane render``: the native rules for some manifests, without touching anything."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from polyplane.agent import compile_store, only_node, read_directory
from polyplane.cli.options import (
    BackendFlag,
    BackendOptionFlag,
    ConfigFlag,
    DenyActionFlag,
    EstablishedFlag,
    ManifestsArgument,
    NodeFlag,
    Output,
    OutputFlag,
    read,
)
from polyplane.cli.output import print_data
from polyplane.cli.problems import warn
from polyplane.ir.program import EMPTY
from polyplane.plugins import load_backend
from polyplane.reconcile.diff import diff


def render(
    directory: ManifestsArgument,
    *,
    base: Annotated[Path | None, typer.Option("--from", help="Render only the way from the manifests of this directory.")] = None,
    config: ConfigFlag = None,
    backend: BackendFlag = None,
    backend_option: BackendOptionFlag = None,
    node: NodeFlag = None,
    established: EstablishedFlag = None,
    deny_action: DenyActionFlag = None,
    output: OutputFlag = Output.TEXT,
) -> None:
    """Print what a backend would bring into the kernel for a directory of manifests. Needs no privileges.

    It goes by what the backend can do on this machine, like `polyplane run` would.
    """
    flags = {"backend": backend, "node": node, "established": established, "deny_action": deny_action}
    settings = read(config, flags, backend_option).config
    dataplane = load_backend(settings.backend, settings.backend_options.get(settings.backend, {}))
    capabilities = dataplane.capabilities()
    store = read_directory(directory)
    warn(store, directory)
    name = settings.node or only_node(store)
    programs = [
        EMPTY
        if given is None
        else compile_store(given, name, capabilities=capabilities, options=settings.options, node_addresses=settings.own_addresses)
        for given in (None if base is None else read_directory(base), store)
    ]
    delta = diff(programs[0], programs[1])
    text = dataplane.render(delta)
    if output is Output.TEXT:
        typer.echo(text, nl=not text.endswith("\n"))
    else:
        print_data({"backend": settings.backend, "node": name, "operations": len(delta.operations), "native": text}, output)
