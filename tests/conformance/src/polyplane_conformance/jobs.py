"""`run_jobs`: one run of the suite in several processes, each with sandboxes of its own and a part of the tests."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Final

import pytest

from polyplane_conformance.progress import Bar, Diaries
from polyplane_conformance.report import Report

#: Statuses of pytest after which there is a report.
_SOUND: Final = (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED)
#: Seconds between two looks at how far the processes are.
_LOOK: Final = 0.2


def shards(weights: Sequence[float], parts: int) -> Iterator[int]:
    """Yield for each test the part that it belongs to, from 1: neighbours stay together, parts weigh about the same."""
    total = sum(weights)
    for weight, after in zip(weights, accumulate(weights), strict=True):
        yield min(int((after - weight / 2) / total * parts), parts - 1) + 1


def run_jobs(arguments: Sequence[str], jobs: int, folder: Path, bar: Bar) -> tuple[Report, list[str]]:
    """Run pytest so many times at once; return all entries in one report, and what processes without one have said.

    :param arguments: pytest's, without a report
    :param folder: an empty one, for what the processes write
    """
    running: list[subprocess.Popen[bytes]] = []
    for number in range(1, jobs + 1):
        own = {"shard": f"{number}/{jobs}", "report": f"{folder / str(number)}.json", "diary": f"{folder / str(number)}.diary"}
        argv = [sys.executable, "-m", "pytest", *arguments, "--rootdir", str(folder)]
        argv += [part for name, value in own.items() for part in (f"--polyplane-{name}", value)]
        with (folder / f"{number}.log").open("wb") as output:
            running.append(subprocess.Popen(argv, stdout=output, stderr=subprocess.STDOUT))
    diaries = Diaries([folder / f"{number}.diary" for number in range(1, jobs + 1)], bar)
    while any(process.poll() is None for process in running):
        time.sleep(_LOOK)
        diaries.look()
    report, broken = Report(), []
    for number, process in enumerate(running, 1):
        file = folder / f"{number}.json"
        if process.returncode in _SOUND and file.exists():
            report.entries += Report.of(json.loads(file.read_text(encoding="utf-8"))).entries
        else:
            broken.append((folder / f"{number}.log").read_text(encoding="utf-8"))
    return report, broken
