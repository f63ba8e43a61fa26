"""``polyplane version``: what is installed here."""

from __future__ import annotations

import platform
from importlib.metadata import version as distribution_version

import typer

from polyplane.cli.options import Output, OutputFlag
from polyplane.cli.output import print_data
from polyplane.hookspecs import GROUPS
from polyplane.ir.program import IR_VERSION
from polyplane.plugins import list_plugins


def version(output: OutputFlag = Output.TEXT) -> None:
    """Print the versions of polyplane, its plugins, Python and the kernel."""
    own = distribution_version("polyplane")
    plugins = {info.distribution: info.version for group in GROUPS for info in list_plugins(group)}
    facts: dict[str, object] = {
        "polyplane": own,
        "ir": IR_VERSION,
        **{name: number for name, number in sorted(plugins.items()) if name != "polyplane"},
        "python": platform.python_version(),
        "kernel": platform.release(),
    }
    if output is Output.TEXT:
        for name, value in facts.items():
            typer.echo(f"{name} {value}")
    else:
        print_data(facts, output)
