"""Progress of a run: a bar in the terminal, fed by pytest in this process or by the diaries of several others."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, Protocol, Self

import pytest
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from polyplane_conformance.report import REPORT, STYLES, Report

_WIDTH: Final = 48


class Listener(Protocol):
    """Whoever wants to know how far a run is."""

    def expect(self, total: int) -> None:
        """So many tests there will be."""

    def tell(self, entries: Sequence[tuple[str, str]]) -> None:
        """One more is done; ``entries`` are new in the report: title and status."""


class Bar:
    """How many tests of how many are done, the latest, and at once what failed; a context manager."""

    def __init__(self, console: Console) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._progress = Progress(*columns, console=console, transient=True)
        self._task: TaskID = self._progress.add_task("collecting".ljust(_WIDTH), total=None)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def expect(self, total: int) -> None:
        """Show how many there will be."""
        self._progress.update(self._task, total=total)

    def tell(self, entries: Sequence[tuple[str, str]]) -> None:
        """Show that one more is done."""
        for title, status in entries:
            if status == "failed":
                self._progress.console.print(f"[{STYLES['failed']}]failed[/] {escape(title)}", highlight=False)
            self._progress.update(self._task, description=escape(f"{title:<{_WIDTH}.{_WIDTH}}"))
        self._progress.advance(self._task)


class Diary:
    """Writes down for another process how far this one is: a line of JSON for the start and for each test."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def expect(self, total: int) -> None:
        """Write how many there will be."""
        self._write(total)

    def tell(self, entries: Sequence[tuple[str, str]]) -> None:
        """Write that one more is done."""
        self._write(entries)

    def _write(self, what: object) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(what) + "\n")


class Watcher:
    """A pytest plugin that tells a listener and keeps the report; ``broken`` are modules that could not even be collected, and why."""

    def __init__(self, listener: Listener) -> None:
        self.broken: list[str] = []
        self.report = Report()
        self._listener = listener
        self._told = 0

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Keep what could not be collected."""
        if report.failed:
            self.broken.append(report.longreprtext)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Tell how many there are."""
        self.report = session.config.stash[REPORT]
        self._listener.expect(len(session.items))

    def pytest_runtest_logfinish(self) -> None:
        """Tell what is new."""
        new, self._told = self.report.entries[self._told :], len(self.report.entries)
        self._listener.tell([(f"{entry.tier} {entry.backend} {entry.name}", entry.status) for entry in new])


class Diaries:
    """Reads what several processes write."""

    def __init__(self, paths: Iterable[Path], listener: Listener) -> None:
        #: Up to which byte each is read.
        self._read = dict.fromkeys(paths, 0)
        self._totals: dict[Path, int] = {}
        self._listener = listener

    def look(self) -> None:
        """Tell the listener what is new."""
        for path, start in self._read.items():
            if not path.exists():
                continue
            with path.open("rb") as file:
                file.seek(start)
                *lines, _unfinished = file.read().split(b"\n")
            self._read[path] = start + sum(len(line) + 1 for line in lines)
            for what in map(json.loads, lines):
                if isinstance(what, int):
                    self._totals[path] = what
                else:
                    self._listener.tell([(title, status) for title, status in what])
        if len(self._totals) == len(self._read):
            self._listener.expect(sum(self._totals.values()))
