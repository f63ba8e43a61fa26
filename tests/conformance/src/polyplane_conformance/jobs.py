"""`run_jobs`: one run of the suite in several processes, each with sandboxes of its own and a part of the tests."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from polyplane_conformance.report import Report

#: Statuses of pytest after which there is a report: all passed, some failed, none were chosen.
_SOUND: Final = (0, 1, 5)


def run_jobs(arguments: Sequence[str], jobs: int, folder: Path) -> tuple[Report, list[str]]:
    """Run pytest so many times at once; return all entries in one report, and what processes without one have said.

    :param arguments: pytest's, without a report
    :param folder: an empty one, for what the processes write
    """
    running = []
    for number in range(1, jobs + 1):
        shard = ["--polyplane-shard", f"{number}/{jobs}", "--polyplane-report", str(folder / f"{number}.json"), "--rootdir", str(folder)]
        output = (folder / f"{number}.log").open("w", encoding="utf-8")
        argv = [sys.executable, "-m", "pytest", *arguments, *shard]
        running.append((subprocess.Popen(argv, stdout=output, stderr=subprocess.STDOUT), output))
    report, broken = Report(), []
    for number, (process, output) in enumerate(running, 1):
        status = process.wait()
        output.close()
        file = folder / f"{number}.json"
        if status in _SOUND and file.exists():
            report.entries += Report.of(json.loads(file.read_text(encoding="utf-8"))).entries
        else:
            broken.append((folder / f"{number}.log").read_text(encoding="utf-8"))
    return report, broken
