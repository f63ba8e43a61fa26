"""Flags that several commands share, and the configuration they lead to."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from polyplane.config import Loaded, LogFormat, LogLevel, load
from polyplane.errors import ConfigError
from polyplane.hookspecs import BACKENDS, SOURCES
from polyplane.ir.program import DenyAction, Established
from polyplane.plugins import list_plugins


class Output(StrEnum):
    """How a command answers."""

    #: For people.
    TEXT = "text"
    #: For scripts.
    JSON = "json"
    YAML = "yaml"


def _complete(group: str, incomplete: str) -> list[str]:
    return [info.name for info in list_plugins(group) if info.name.startswith(incomplete)]


def complete_backend(incomplete: str) -> list[str]:
    """Complete the name of an installed backend."""
    return _complete(BACKENDS, incomplete)


def complete_source(incomplete: str) -> list[str]:
    """Complete the name of an installed source."""
    return _complete(SOURCES, incomplete)


ConfigFlag = Annotated[
    Path | None, typer.Option("--config", "-c", help="Configuration file (TOML).", show_default="/etc/polyplane/polyplane.toml, if there")
]
BackendFlag = Annotated[
    str | None,
    typer.Option("--backend", "-b", help="Which dataplane: a name from `polyplane backends`.", autocompletion=complete_backend),
]
BackendOptionFlag = Annotated[
    list[str] | None, typer.Option("--backend-option", help="An option of the backend, as key=value; may be repeated.", metavar="KEY=VALUE")
]
NodeFlag = Annotated[str | None, typer.Option("--node", "-n", help="Name of the node.")]
EstablishedFlag = Annotated[Established | None, typer.Option(help="What a policy change means for open connections.")]
DenyActionFlag = Annotated[DenyAction | None, typer.Option(help="What the sender of a denied packet notices.")]
LogLevelFlag = Annotated[LogLevel | None, typer.Option(help="Least important messages that are still logged.")]
LogFormatFlag = Annotated[LogFormat | None, typer.Option(help="How log lines look.")]
OutputFlag = Annotated[Output, typer.Option("--output", "-o", help="How to answer.")]
ManifestsArgument = Annotated[
    Path,
    typer.Argument(help="Directory with manifests: pods, namespaces, nodes, policies.", exists=False, file_okay=True, metavar="DIRECTORY"),
]


def read(config: Path | None, flags: Mapping[str, Any], backend_options: list[str] | None = None) -> Loaded:
    """Read the configuration with the flags on top; ``backend_options`` are for the backend that gets chosen."""
    loaded = load(flags, config)
    if not backend_options:
        return loaded
    options = {loaded.config.backend: dict(map(_pair, backend_options))}
    return load({**flags, "backend_options": options}, config)


def _pair(text: str) -> tuple[str, object]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise ConfigError(f"--backend-option {text!r}: write key=value")
    words: dict[str, object] = {"true": True, "false": False}
    return key, words.get(value, int(value) if value.isdecimal() else value)
