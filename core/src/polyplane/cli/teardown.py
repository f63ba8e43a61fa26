"""``polyplane teardown``: remove everything of ours from the kernel."""

from __future__ import annotations

from typing import Annotated

import typer

from polyplane.cli.options import BackendFlag, BackendOptionFlag, ConfigFlag, Output, OutputFlag, read
from polyplane.cli.output import print_data
from polyplane.errors import ConfigError
from polyplane.plugins import load_backend


def teardown(
    *,
    config: ConfigFlag = None,
    backend: BackendFlag = None,
    backend_option: BackendOptionFlag = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    output: OutputFlag = Output.TEXT,
) -> None:
    """Remove everything that is recognisably ours from the kernel, and nothing else. Afterwards all traffic is allowed.

    Stop the agent first: it would put everything back at its next audit.
    """
    settings = read(config, {"backend": backend}, backend_option).config
    dataplane = load_backend(settings.backend, settings.backend_options.get(settings.backend, {}))
    if not yes and not typer.confirm(f"remove all rules of polyplane from {settings.backend} and allow all traffic?"):
        raise ConfigError("nothing was removed")
    result = dataplane.teardown()
    if output is Output.TEXT:
        done = (
            f"everything of ours is removed ({result.operations} native operations)" if result.operations else "nothing of ours was there"
        )
        typer.echo(f"{settings.backend}: {done}")
    else:
        print_data({"backend": settings.backend, "operations": result.operations}, output)
