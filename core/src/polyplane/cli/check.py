"""``polyplane check``: are these manifests right? For people and for CI."""

from __future__ import annotations

from typing import Annotated

import typer

from polyplane.agent import read_directory
from polyplane.cli.options import ManifestsArgument, Output, OutputFlag
from polyplane.cli.output import print_data
from polyplane.cluster.problems import Severity

#: Exit status when something is wrong with the manifests.
PROBLEMS = 1


def check(
    directory: ManifestsArgument,
    *,
    output: OutputFlag = Output.TEXT,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings count as errors.")] = False,
) -> None:
    """Validate a directory of manifests as an API server would.

    Exit status 0: all is well; 1: something in the manifests is wrong; 2: they could not be read at all.
    """
    store = read_directory(directory)
    problems = [problem for _, problem in sorted(store.problems.items(), key=lambda item: (item[1].where, item[0]))]
    errors = [problem for problem in problems if problem.severity is Severity.ERROR]
    if output is Output.TEXT:
        for problem in problems:
            remedy = f"; {problem.remedy}" if problem.remedy else ""
            what = f"{problem.object}: {problem.message}" if problem.object else problem.message
            typer.echo(f"{problem.where or directory}: {problem.severity}: {what}{remedy}")
        counts = f"{len(store.policies)} policies, {len(store.pods)} pods, {len(store.namespaces)} namespaces"
        typer.echo(f"{counts}: {len(errors)} errors, {len(problems) - len(errors)} warnings")
    else:
        print_data(
            {
                "policies": len(store.policies),
                "pods": len(store.pods),
                "namespaces": len(store.namespaces),
                "problems": [
                    {
                        "severity": problem.severity.value,
                        "where": problem.where,
                        "object": problem.object,
                        "message": problem.message,
                        "remedy": problem.remedy,
                    }
                    for problem in problems
                ],
            },
            output,
        )
    if errors or (strict and problems):
        raise typer.Exit(PROBLEMS)
