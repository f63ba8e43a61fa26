"""``polyplane run``: enforce policies on this node."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from polyplane import logs
from polyplane.agent import Agent
from polyplane.cli.options import (
    BackendFlag,
    BackendOptionFlag,
    ConfigFlag,
    DenyActionFlag,
    EstablishedFlag,
    LogFormatFlag,
    LogLevelFlag,
    NodeFlag,
    complete_source,
    read,
)
from polyplane.config import Config
from polyplane.errors import ConfigError

MANIFESTS = "manifests"
KUBERNETES = "kubernetes"
#: Observers that talk to the same API server as the source.
TALKERS = ("kubernetes-events", "kubernetes-status")


def run(
    *,
    config: ConfigFlag = None,
    backend: BackendFlag = None,
    backend_option: BackendOptionFlag = None,
    node: NodeFlag = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--source", "-s", help="Where objects come from: a source's name, or a directory of manifests.", autocompletion=complete_source
        ),
    ] = None,
    directory: Annotated[Path | None, typer.Option("--directory", "-d", help="Directory of the manifests source.")] = None,
    kubeconfig: Annotated[Path | None, typer.Option("--kubeconfig", help="Kubeconfig of the kubernetes source.")] = None,
    listen: Annotated[str | None, typer.Option(help="Address and port of /healthz, /readyz and /metrics, such as :9469.")] = None,
    established: EstablishedFlag = None,
    deny_action: DenyActionFlag = None,
    audit_interval: Annotated[float | None, typer.Option(help="Seconds between audits of what is in the kernel; 0: never.")] = None,
    log_level: LogLevelFlag = None,
    log_format: LogFormatFlag = None,
    once: Annotated[bool, typer.Option("--once", help="Stop as soon as everything is in force; the rules stay.")] = False,
) -> None:
    """Enforce policies on this node, until SIGTERM or SIGINT; the rules then stay in force.

    SIGHUP reads the configuration again: log level, audit interval, established and deny action change at once, other settings
    at the next start.
    """
    flags: dict[str, object] = {
        "backend": backend,
        "node": node,
        "listen": listen,
        "established": established,
        "deny_action": deny_action,
        "audit_interval": audit_interval,
        "log_level": log_level,
        "log_format": log_format,
        **source_flags(source, directory, kubeconfig),
    }

    def load() -> Config:
        return read(config, flags, backend_option).config

    settings = load()
    logs.configure(settings.log_level, settings.log_format)
    Agent(settings, reload=load).run(once=once)


def source_flags(source: str | None, directory: Path | None, kubeconfig: Path | None = None) -> dict[str, object]:
    """Return the settings for ``--source``, ``--directory`` and ``--kubeconfig``: a path as source means the manifests in it."""
    if kubeconfig is not None:
        if directory is not None or source not in {None, KUBERNETES}:
            raise ConfigError(f"--kubeconfig is for the source {KUBERNETES}, not for {source or MANIFESTS}")
        here = {"kubeconfig": str(kubeconfig)}
        return {"source": KUBERNETES, "source_options": {KUBERNETES: here}, "observer_options": dict.fromkeys(TALKERS, here)}
    is_path = source is not None and ("/" in source or source in {".", ".."} or Path(source).is_dir())
    if is_path and directory is not None:
        raise ConfigError(f"--source {source} and --directory {directory} both name a directory; give one of them")
    if source is not None and is_path:
        source, directory = MANIFESTS, Path(source)
    if directory is None:
        return {"source": source}
    if source not in {None, MANIFESTS}:
        raise ConfigError(f"--directory is for the source {MANIFESTS}, not for {source}")
    if not directory.is_dir():
        raise ConfigError(f"{directory}: no such directory")
    return {"source": MANIFESTS, "source_options": {MANIFESTS: {"directory": str(directory)}}}
