"""Progress of a run: a bar in the terminal, fed by pytest in this process or by the diaries of several others."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Final, Self

import pytest
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from polyplane_conformance.report import REPORT, STYLES, Entry, Report

_WIDTH: Final = 48


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
        """So many tests there will be."""
        self._progress.update(self._task, total=total)

    def tell(self, done: int, entries: Iterable[tuple[str, str]]) -> None:
        """So many are done by now; ``entries`` are new: title and status."""
        latest = None
        for latest, status in entries:
            if status == "failed":
                self._progress.console.print(f"[{STYLES['failed']}]failed[/] {escape(latest)}", highlight=False)
        if latest is not None:
            self._progress.update(self._task, description=escape(f"{latest:<{_WIDTH}.{_WIDTH}}"))
        self._progress.update(self._task, completed=done)


def _title(entry: Entry) -> str:
    return f"{entry.tier} {entry.backend} {entry.name}"


class Watcher:
    """A pytest plugin that tells a bar and keeps the report; ``broken`` are modules that could not even be collected, and why."""

    def __init__(self, bar: Bar) -> None:
        self.broken: list[str] = []
        self.report = Report()
        self._bar = bar
        self._done = self._shown = 0

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Keep what could not be collected."""
        if report.failed:
            self.broken.append(report.longreprtext)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Tell how many there are."""
        self.report = session.config.stash[REPORT]
        self._bar.expect(len(session.items))

    def pytest_runtest_logfinish(self) -> None:
        """Tell what is new."""
        self._done += 1
        new, self._shown = self.report.entries[self._shown :], len(self.report.entries)
        self._bar.tell(self._done, [(_title(entry), entry.status) for entry in new])


class Diary:
    """A pytest plugin that writes down for another process how far it is: a line of JSON for the start and for each test."""

    def __init__(self, path: Path, report: Report) -> None:
        self._path = path
        self._report = report
        self._shown = 0

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Write how many there are."""
        self._write(len(session.items))

    def pytest_runtest_logfinish(self) -> None:
        """Write what is new."""
        new, self._shown = self._report.entries[self._shown :], len(self._report.entries)
        self._write([(_title(entry), entry.status) for entry in new])

    def _write(self, what: object) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(what) + "\n")


class Diaries:
    """Reads what several processes write."""

    def __init__(self, paths: Iterable[Path], bar: Bar) -> None:
        self._read = dict.fromkeys(paths, 0)
        self._totals: dict[Path, int] = {}
        self._done = 0
        self._bar = bar

    def look(self) -> None:
        """Tell the bar what is new."""
        for path, seen in self._read.items():
            if not path.exists():
                continue
            *lines, _unfinished = path.read_text(encoding="utf-8").split("\n")
            for line in lines[seen:]:
                what = json.loads(line)
                if isinstance(what, int):
                    self._totals[path] = what
                else:
                    self._done += 1
                    self._bar.tell(self._done, [(title, status) for title, status in what])
            self._read[path] = len(lines)
        if len(self._totals) == len(self._read):
            self._bar.expect(sum(self._totals.values()))
