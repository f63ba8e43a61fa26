"""``polyplane show``: the program of a node in canonical text, from manifests or from the kernel."""

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
    NodeFlag,
    Output,
    OutputFlag,
    read,
)
from polyplane.cli.output import print_data
from polyplane.cli.plain import plain
from polyplane.cli.problems import warn
from polyplane.config import Config
from polyplane.errors import ConfigError, TextSyntaxError
from polyplane.ir.text import parse_program, print_program
from polyplane.plugins import load_backend


def show(
    directory: Annotated[
        Path | None,
        typer.Argument(
            help="Directory with manifests: pods, namespaces, nodes, policies. Not with --from-kernel.",
            file_okay=True,
            metavar="[DIRECTORY]",
        ),
    ] = None,
    *,
    from_kernel: Annotated[
        bool, typer.Option("--from-kernel", help="What the backend reads back from the kernel, whoever brought it there.")
    ] = False,
    config: ConfigFlag = None,
    backend: BackendFlag = None,
    backend_option: BackendOptionFlag = None,
    node: NodeFlag = None,
    established: EstablishedFlag = None,
    deny_action: DenyActionFlag = None,
    output: OutputFlag = Output.TEXT,
) -> None:
    """Print what a directory of manifests means for one node: the program every backend gets.

    With `--from-kernel` print what is in the kernel instead: as a program, where the backend can make one of it, else in the
    dataplane's own words. A kernel with maps knows no names of pods and policies: such a program has others, and decides alike.
    """
    settings = read(
        config, {"backend": backend, "node": node, "established": established, "deny_action": deny_action}, backend_option
    ).config
    if from_kernel:
        if directory is not None:
            raise ConfigError(f"--from-kernel reads the kernel and {directory} is a directory of manifests; give one of them")
        _show_kernel(settings, output)
        return
    if directory is None:
        raise ConfigError("give a directory of manifests, or --from-kernel")
    store = read_directory(directory)
    warn(store, directory)
    name = settings.node or only_node(store)
    program = compile_store(store, name, options=settings.options, node_addresses=settings.own_addresses)
    if output is Output.TEXT:
        typer.echo(print_program(program), nl=False)
    else:
        print_data(plain(program), output)


def _show_kernel(settings: Config, output: Output) -> None:
    text = load_backend(settings.backend, settings.backend_options.get(settings.backend, {})).show()
    if output is Output.TEXT:
        typer.echo(text, nl=False)
        return
    try:
        print_data(plain(parse_program(text)), output)
    except TextSyntaxError:  # the dataplane's own text
        print_data({"backend": settings.backend, "text": text}, output)
