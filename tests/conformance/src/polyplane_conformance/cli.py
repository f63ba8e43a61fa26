"""``polyplane-conformance``: list the scenarios, run them, explain one."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
from enum import StrEnum
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Final

import pytest
import typer
from rich.console import Console
from rich.table import Table

from polyplane.errors import PolyplaneError
from polyplane.plugins import load_backend
from polyplane_conformance.expectation import Service, print_table
from polyplane_conformance.foresee import print_scenario
from polyplane_conformance.gaps import load_gaps
from polyplane_conformance.generate import choose, generate
from polyplane_conformance.jobs import run_jobs
from polyplane_conformance.matrix import NoReport, read_reports, to_html, to_junit, to_markdown, to_summary
from polyplane_conformance.model import explain_cell
from polyplane_conformance.plugin import Backend
from polyplane_conformance.progress import Bar, Watcher
from polyplane_conformance.report import STYLES, Report
from polyplane_conformance.scaffold import ScaffoldError, scaffold
from polyplane_conformance.scenario import Scenario, load_scenarios

app: Final = typer.Typer(help="Check that a backend enforces what the policy APIs say.", no_args_is_help=True, add_completion=True)
_out: Final = Console()
_err: Final = Console(stderr=True)


class Tier(StrEnum):
    """Where to check: in the model, in rendered text, with packets."""

    MODEL = "model"
    RENDER = "render"
    NETNS = "netns"


class Output(StrEnum):
    """For people or for scripts."""

    TABLE = "table"
    JSON = "json"


class Form(StrEnum):
    """What a report is written as."""

    MD = "md"
    HTML = "html"
    JUNIT = "junit"
    SUMMARY = "summary"


WRITERS: Final = {Form.MD: to_markdown, Form.HTML: to_html, Form.JUNIT: to_junit, Form.SUMMARY: to_summary}


@app.command("list")
def list_scenarios(
    pattern: Annotated[str, typer.Argument(help="Only names that fit.")] = "*",
    *,
    output: Annotated[Output, typer.Option(help="For people or for scripts.")] = Output.TABLE,
    generated: Annotated[bool, typer.Option("--generated", help="List the generated cases instead.")] = False,
    tag: Annotated[list[str] | None, typer.Option(help="Only generated cases with this tag; may be repeated, then with all.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the generated cases.")] = 0,
) -> None:
    """List the scenarios."""
    known = choose(generate(seed), tag or ()) if generated or tag else load_scenarios()
    chosen = [scenario for scenario in known if fnmatchcase(scenario.name, pattern)]
    if output is Output.JSON:
        fields = [{"name": s.name, "description": s.description, "tiers": sorted(s.tiers), "features": sorted(s.features)} for s in chosen]
        print(json.dumps(fields, indent=2))  # noqa: T201 - for scripts, and rich would wrap it
        return
    table = Table(show_edge=False, pad_edge=False)
    for column in ("scenario", "tiers", "description"):
        table.add_column(column, overflow="fold")
    for scenario in chosen:
        table.add_row(scenario.name, " ".join(sorted(scenario.tiers)), scenario.description)
    _out.print(table)
    _out.print(f"{len(chosen)} scenarios, {sum(len(scenario.steps) for scenario in chosen)} steps", highlight=False)


@app.command()
def run(
    *,
    backend: Annotated[str, typer.Option(help="The backend on trial.", envvar="BACKEND")] = "memory",
    option: Annotated[list[str] | None, typer.Option(help="An option for the backend, key=value; may be repeated.")] = None,
    tier: Annotated[list[Tier] | None, typer.Option(help="Only this tier; may be repeated. Default: all that can run here.")] = None,
    corpus: Annotated[Path | None, typer.Option(help="Also run the foreign cases below this directory.")] = None,
    scenario: Annotated[str | None, typer.Option(help="Only scenarios and behaviours whose name fits this pattern.")] = None,
    file: Annotated[Path | None, typer.Option(help="Play the scenarios of this file instead of the suite's own.")] = None,
    generated: Annotated[bool, typer.Option("--generated", help="Also play all generated cases, with packets too.")] = False,
    tag: Annotated[list[str] | None, typer.Option(help="Only generated cases with this tag; may be repeated, then with all.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the generated cases.")] = 0,
    report: Annotated[Path | None, typer.Option(help="Write a report: JSON if the name ends so, otherwise YAML.")] = None,
    golden: Annotated[Path | None, typer.Option(help="The backend's golden files, if not in its tests/golden/conformance.")] = None,
    source: Annotated[
        str, typer.Option(help="Netns tier: give objects to the core straight (direct), or by an API server (kubernetes).")
    ] = "direct",
    gaps: Annotated[Path | None, typer.Option(help="The backend's gaps, if not in its conformance.toml.")] = None,
    pcap: Annotated[Path | None, typer.Option(help="Record the packets of each scenario on the node in this folder.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Run in so many processes, each with sandboxes of its own.")] = 1,
    explain: Annotated[bool, typer.Option("--explain", help="Show how both sides of each disagreement came about.")] = False,
) -> None:
    """Run the suite; the exit status is 0 only if something was checked and nothing disagrees."""
    if corpus is not None and not corpus.is_dir():
        _err.print(f"{corpus} is not there, so no foreign cases are run", style="yellow", highlight=False)
        corpus = None
    try:
        load_backend(backend, dict(text.partition("=")[::2] for text in option or []))
    except PolyplaneError as error:
        _err.print(str(error), style="bold red", highlight=False)
        raise typer.Exit(2) from error
    arguments = [
        *("--pyargs", "polyplane_conformance.suite", "-c", os.devnull, "--import-mode=importlib"),
        *("-p", "no:cacheprovider", "-p", "no:hypothesispytest"),
        *("--polyplane-backend", backend),
        *("--polyplane-source", source),
    ]
    for name, value in (
        ("scenario", scenario),
        ("corpus", corpus),
        ("golden", golden),
        ("gaps", gaps),
        ("file", file),
        ("seed", seed),
        ("pcap", pcap),
    ):
        if value is not None:
            arguments += [f"--polyplane-{name}", str(value.resolve() if isinstance(value, Path) else value)]
    arguments += ["--polyplane-generated"] if generated or tag else []
    arguments += [part for text in option or [] for part in ("--polyplane-option", text)]
    arguments += [part for text in tag or [] for part in ("--polyplane-tag", text)]
    arguments += [part for one in tier or [] for part in ("--polyplane-tier", one.value)]
    os.environ.pop("PYTEST_ADDOPTS", None)  # meant for the user's own tests; options of plugins that are off here would be refused
    if jobs > 1:
        with tempfile.TemporaryDirectory() as folder, Bar(_err) as bar:
            together, broken = run_jobs([*arguments, "-q"], jobs, Path(folder), bar)
        if report is not None:
            together.write(report)
        _show(together, broken, explain=explain)
        raise typer.Exit(1 if broken else together.exit_code)
    with tempfile.TemporaryDirectory() as nowhere, contextlib.redirect_stdout(sys.stderr), Bar(_err) as bar:
        watcher = Watcher(bar)
        code = pytest.main([*arguments, "-p", "no:terminal", "--rootdir", nowhere], plugins=[watcher])
    if report is not None:
        watcher.report.write(report)
    _show(watcher.report, watcher.broken, explain=explain)
    raise typer.Exit(1 if watcher.broken or code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED) else watcher.report.exit_code)


def _show(report: Report, broken: list[str], *, explain: bool) -> None:
    _out.print(report.table())
    for problem in broken:
        _out.print(problem, markup=False, highlight=False)
    for entry in (entry for entry in report.entries if entry.status == "failed"):
        _out.print(f"\n[bold red]{entry.tier} {entry.backend} {entry.name}[/]", highlight=False)
        lines = [line for line in entry.detail.splitlines() if explain or not line.startswith("    ")]
        again = [line for line in lines if line.startswith("again: ")]
        _out.print(
            "\n".join(lines if explain else [*lines[:12], *(line for line in again if line not in lines[:12])]),
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    reasons = {(entry.name, entry.detail) for entry in report.entries if entry.status in ("skipped", "gap") and entry.detail}
    for reason in sorted({reason for _, reason in reasons}):
        names = sorted(name for name, other in reasons if other == reason)
        _out.print(
            f"skipped: {', '.join(names[:3])}{' …' if len(names) > 3 else ''}: {reason.removeprefix('Skipped: ')}",
            markup=False,
            highlight=False,
        )
    _out.print(report.summary, style=STYLES["failed"] if report.exit_code else STYLES["passed"], highlight=False)


@app.command()
def report(
    files: Annotated[list[Path], typer.Argument(help="Reports that run --report has written.")],
    *,
    form: Annotated[
        Form,
        typer.Option(
            "--format", help="md and html: a matrix; junit: every check; summary: all reports in one file, without single checks."
        ),
    ] = Form.MD,
) -> None:
    """Put reports side by side: a matrix of profiles, features and times, or JUnit."""
    try:
        text = WRITERS[form]([report for file in files for report in read_reports(file)])
    except NoReport as error:
        _err.print(str(error), style="bold red", highlight=False)
        raise typer.Exit(2) from error
    print(text, end="")  # noqa: T201 - for files, and rich would wrap it


@app.command()
def fuzz(
    *,
    backend: Annotated[list[str], typer.Option(help="A backend on trial, or several with commas; may be repeated.")],
    option: Annotated[list[str] | None, typer.Option(help="An option for a backend, backend.key=value; may be repeated.")] = None,
    minutes: Annotated[float, typer.Option(min=0, help="For how long.")] = 1.0,
    seed: Annotated[int, typer.Option(help="The first seed; each seed gives the same scenarios.")] = 0,
    first: Annotated[bool, typer.Option("--first", help="Stop at the first disagreement.")] = False,
    directory: Annotated[Path, typer.Option(help="Where to write a scenario for each disagreement.")] = Path(),
) -> None:
    """Play random scenarios with packets on all named backends at once; needs root. The exit status is 0 without any disagreement."""
    from hypothesis.configuration import set_hypothesis_home_dir

    from polyplane_conformance.fuzz import Figures, Fuzzer

    names = [name for text in backend for name in text.split(",") if name]
    directory.mkdir(parents=True, exist_ok=True)
    try:
        trial = tuple(Backend(name, _options_of(name, option or []), load_gaps(name)) for name in names)
        for one in trial:
            load_backend(one.name, one.options)
        scratch = tempfile.TemporaryDirectory()
        with scratch as home, _err.status("building sandboxes") as status, Fuzzer(trial) as fuzzer:
            set_hypothesis_home_dir(home)  # or it would leave a folder here

            def show(figures: Figures) -> None:
                status.update(str(figures))

            for finding in fuzzer.run(seed, minutes * 60, show):
                path = directory / f"{finding.scenario.name.replace('/', '-')}.yaml"
                path.write_text(print_scenario(finding.scenario), encoding="utf-8")
                _out.print(
                    f"{'disagreement' if finding.steady else 'unsteady disagreement'}: {path}", style=STYLES["failed"], highlight=False
                )
                more = [f"… and {len(finding.problems) - 5} more"] if len(finding.problems) > 5 else []
                _out.print("\n".join([*finding.problems[:5], *more]), markup=False, highlight=False, soft_wrap=True)
                repeat = f"polyplane-conformance run --tier netns --file {path} --backend {names[0]}"
                _out.print(f"again: {repeat}", markup=False, highlight=False, soft_wrap=True)
                if first:
                    break
    except PolyplaneError as error:
        _err.print(str(error), style="bold red", highlight=False)
        raise typer.Exit(2) from error
    figures = fuzzer.figures
    _out.print(f"{', '.join(names)}: {figures}", style=STYLES["failed"] if figures.findings else STYLES["passed"], highlight=False)
    raise typer.Exit(1 if figures.findings or not figures.probes else 0)


def _options_of(backend: str, written: list[str]) -> dict[str, object]:
    parts = (text.partition("=") for text in written)
    return {key.partition(".")[2]: value for key, _, value in parts if key.partition(".")[0] == backend}


@app.command("new-backend")
def new_backend(
    name: Annotated[str, typer.Argument(help="Name of the backend, as people will write it after --backend.")],
    *,
    directory: Annotated[Path | None, typer.Option(help="Where to write it; default: polyplane-NAME here.")] = None,
) -> None:
    """Write a complete distribution with a new backend, in which only two functions are missing."""
    folder = directory or Path(f"polyplane-{name}")
    try:
        written = scaffold(name, folder)
    except (ScaffoldError, OSError) as error:
        _err.print(str(error), style="bold red", highlight=False)
        raise typer.Exit(2) from error
    _out.print("\n".join(map(str, written)), markup=False, highlight=False)
    steps = f"cd {folder} && pip install -e '.[test]' && pytest   # red until both functions of {_native(written)} are filled in"
    _out.print(steps, markup=False, highlight=False, soft_wrap=True)


def _native(written: list[Path]) -> Path:
    return next(path for path in written if path.name == "native.py")


@app.command()
def explain(
    scenario: Annotated[str, typer.Argument(help="Name of a scenario, as list shows it.")],
    *,
    source: Annotated[str | None, typer.Option("--from", help="Who connects; with --to and --ask, explain this connection.")] = None,
    destination: Annotated[str | None, typer.Option("--to", help="To whom.")] = None,
    ask: Annotated[str, typer.Option(help="What: TCP/80, UDP/80, SCTP/80 or ICMP.")] = "TCP/80",
    family: Annotated[int, typer.Option(min=4, max=6, help="IP version.")] = 4,
    step: Annotated[int | None, typer.Option(min=1, help="After which step; default: the last.")] = None,
) -> None:
    """Show what a scenario expects, or how oracle and program decide about one connection of it."""
    found = next((one for one in load_scenarios() if one.name == scenario), None)
    if found is None:
        _err.print(f"no scenario is named {scenario}; see polyplane-conformance list", style="bold red", highlight=False)
        raise typer.Exit(2)
    if source is None or destination is None:
        _describe(found)
        return
    try:
        lines = explain_cell(found, (source, destination), Service.parse(ask), family, step=step or len(found.steps))
    except (ValueError, KeyError) as error:
        _err.print(f"{error}; see polyplane-conformance explain {scenario}", style="bold red", highlight=False)
        raise typer.Exit(2) from error
    _out.print("\n".join(lines), markup=False, highlight=False)


def _describe(scenario: Scenario) -> None:
    _out.print(f"[bold]{scenario.name}[/]\n{scenario.description}", highlight=False)
    for number, step in enumerate(scenario.steps, 1):
        _out.print(f"\nstep {number}", style="bold", highlight=False)
        for action in step.actions:
            _out.print(f"  {action}", markup=False, highlight=False)
        for expectation in step.expectations:
            families = "+".join(f"IPv{family}" for family in expectation.families)
            _out.print(f"\n{', '.join(map(str, expectation.services))} over {families}", highlight=False)
            _out.print(print_table(expectation.cells), markup=False, highlight=False)


def main() -> None:
    """Entry point of the command."""
    app()
