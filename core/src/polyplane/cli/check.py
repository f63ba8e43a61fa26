"""``polyplane check``: are these manifests right? For people and for CI."""

from __future__ import annotations

from typing import Annotated

import typer

from polyplane.agent import compiler_for, read_directory
from polyplane.cli.options import ConfigFlag, ManifestsArgument, Output, OutputFlag, complete_backend, read
from polyplane.cli.output import print_data
from polyplane.cluster.problems import Problem, Severity
from polyplane.cluster.store import Store
from polyplane.ir.features import Capabilities
from polyplane.plugins import load_backend

#: Exit status when something is wrong with the manifests.
PROBLEMS = 1


def check(
    directory: ManifestsArgument,
    *,
    config: ConfigFlag = None,
    backend: Annotated[
        str | None,
        typer.Option("--backend", "-b", help="Also report what this backend could not enforce here.", autocompletion=complete_backend),
    ] = None,
    output: OutputFlag = Output.TEXT,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings count as errors.")] = False,
) -> None:
    """Validate a directory of manifests as an API server would.

    Exit status 0: all is well; 1: something in the manifests is wrong; 2: they could not be read at all.
    """
    store = read_directory(directory)
    problems = sorted(store.problems.values(), key=lambda problem: (problem.where, problem.object, problem.message))
    if backend is not None:
        options = read(config, {"backend": backend}).config.backend_options.get(backend, {})
        problems += _beyond(store, backend, load_backend(backend, options).capabilities())
    errors = [problem for problem in problems if problem.severity is Severity.ERROR]
    if output is Output.TEXT:
        for problem in problems:
            remedy = f"; {problem.remedy}" if problem.remedy else ""
            what = f"{problem.object}: {problem.message}" if problem.object else problem.message
            typer.echo(f"{problem.where or directory}: {problem.severity}: {what}{remedy}")
        counts = f"{len(store.policies)} policies, {len(store.pods)} pods, {len(store.namespaces)} namespaces"
        typer.echo(f"{counts}: {len(errors)} errors, {len(problems) - len(errors)} warnings")
    else:
        counted = {"policies": len(store.policies), "pods": len(store.pods), "namespaces": len(store.namespaces)}
        parts = ("severity", "where", "object", "message", "remedy")
        listed = [{part: str(getattr(problem, part)) for part in parts} for problem in problems]
        print_data({**counted, "problems": listed}, output)
    if errors or (strict and problems):
        raise typer.Exit(PROBLEMS)


def _beyond(store: Store, backend: str, capabilities: Capabilities) -> list[Problem]:
    """Return what the backend lacks for the policies, on any of the nodes."""
    gaps: dict[tuple[str, str], None] = {}
    for node in sorted({pod.node for pod in store.pods.values() if pod.node}):
        compiler = compiler_for(store, node, capabilities=capabilities)
        gaps |= dict.fromkeys((str(key), reason) for key, reasons in sorted(compiler.unsupported.items()) for reason in reasons)
    return [
        Problem(
            severity=Severity.ERROR, object=name, where="", message=f"{backend} cannot enforce it: {reason}", remedy="the traffic is denied"
        )
        for name, reason in gaps
    ]
