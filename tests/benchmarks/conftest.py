"""Sizes, and the table of what was measured. Counts are asserted always; large sizes and times with ``--benchmarks``."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import pytest

RESULTS = Path(__file__).parents[2] / "bench" / "results"
T = TypeVar("T")


@dataclass
class Recorder:
    """CPU seconds and counts of one benchmark, row by row."""

    rows: list[dict[str, object]] = field(default_factory=list)

    def cpu(self, size: str, what: str, work: Callable[[], T], count: Callable[[T], int] | None = None) -> T:
        """Run ``work`` and note its CPU time, and its count if it has one."""
        before = time.process_time()
        result = work()
        seconds = time.process_time() - before
        self.rows.append({"size": size, "step": what, "cpu_seconds": round(seconds, 6), "count": count(result) if count else None})
        return result


_recorder = pytest.StashKey[Recorder]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--benchmarks", action="store_true", help="also run the large sizes, print the times and record them")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_recorder] = Recorder()


@pytest.fixture
def recorder(pytestconfig: pytest.Config) -> Recorder:
    return pytestconfig.stash[_recorder]


@pytest.fixture
def large(pytestconfig: pytest.Config) -> bool:
    """Whether large sizes are wanted."""
    return bool(pytestconfig.getoption("--benchmarks", default=False))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    rows = config.stash[_recorder].rows
    if not rows or not config.getoption("--benchmarks", default=False):
        return
    terminalreporter.section("benchmarks")
    terminalreporter.write_line(f"{'size':24} {'step':44} {'CPU ms':>10} {'count':>10}")
    for row in rows:
        milliseconds = float(str(row["cpu_seconds"])) * 1000
        terminalreporter.write_line(
            f"{row['size']!s:24} {row['step']!s:44} {milliseconds:10.3f} {row['count'] if row['count'] is not None else '':>10}"
        )
    RESULTS.mkdir(parents=True, exist_ok=True)
    target = RESULTS / "operations.json"
    target.write_text(json.dumps(rows, indent=1) + "\n")
    terminalreporter.write_line(f"recorded in {target.relative_to(Path.cwd()) if target.is_relative_to(Path.cwd()) else target}")
