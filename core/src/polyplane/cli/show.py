"""``polyplane show``: the program of a node in canonical text."""

from __future__ import annotations

import typer

from polyplane.agent import compile_store, only_node, read_directory
from polyplane.cli.options import ConfigFlag, DenyActionFlag, EstablishedFlag, ManifestsArgument, NodeFlag, Output, OutputFlag, read
from polyplane.cli.output import print_data
from polyplane.cli.plain import plain
from polyplane.cli.problems import warn
from polyplane.ir.text import print_program


def show(
    directory: ManifestsArgument,
    *,
    config: ConfigFlag = None,
    node: NodeFlag = None,
    established: EstablishedFlag = None,
    deny_action: DenyActionFlag = None,
    output: OutputFlag = Output.TEXT,
) -> None:
    """Print what a directory of manifests means for one node: the program every backend gets."""
    settings = read(config, {"node": node, "established": established, "deny_action": deny_action}).config
    store = read_directory(directory)
    warn(store, directory)
    name = settings.node or only_node(store)
    program = compile_store(store, name, options=settings.options, node_addresses=settings.own_addresses)
    if output is Output.TEXT:
        typer.echo(print_program(program), nl=False)
    else:
        print_data(plain(program), output)
