"""``polyplane``: the commands, and what an error of ours looks like on the way out."""

from __future__ import annotations

from typing import Any, Final

import typer
from typer.core import TyperGroup

from polyplane import logs
from polyplane.cli.backends import backends
from polyplane.cli.check import check
from polyplane.cli.config import config
from polyplane.cli.demo import demo
from polyplane.cli.explain import explain
from polyplane.cli.render import render
from polyplane.cli.run import run
from polyplane.cli.show import show
from polyplane.cli.teardown import teardown
from polyplane.cli.version import version
from polyplane.config import LogFormat, LogLevel
from polyplane.errors import PolyplaneError

#: Exit status when a command could not do its work.
CANNOT: Final = 2


class _Group(TyperGroup):
    """Turns polyplane's own errors into one line on standard error."""

    def invoke(self, ctx: Any) -> Any:
        """Run the chosen command; only ``run`` logs more than warnings."""
        logs.configure(LogLevel.WARNING, LogFormat.TEXT)
        try:
            return super().invoke(ctx)
        except PolyplaneError as error:
            typer.echo(f"polyplane: {error}", err=True)
            raise typer.Exit(CANNOT) from error


app = typer.Typer(
    name="polyplane",
    help="Any network-policy API, any Linux dataplane: enforces Kubernetes network policies on a node.",
    cls=_Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (run, demo, check, render, show, explain, backends, config, teardown, version):
    app.command()(command)


def main() -> None:
    """Run the command line."""
    app()
