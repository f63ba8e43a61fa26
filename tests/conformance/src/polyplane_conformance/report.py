"""`Report`: what a run found, for machines (YAML or JSON) and for people (a table and one line)."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, Literal

import yaml
from rich.table import Table

Status = Literal["passed", "failed", "skipped", "gap"]
STYLES: Final[Mapping[str, str]] = {"passed": "green", "failed": "bold red", "skipped": "yellow", "gap": "magenta"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One check: a scenario, behaviour or foreign case in one tier. ``cells`` counts what was compared, ``seconds`` the time."""

    tier: str
    backend: str
    name: str
    status: Status
    cells: int = 0
    seconds: float = 0.0
    detail: str = ""

    @property
    def topic(self) -> str:
        """First part of the name."""
        return self.name.partition("/")[0]


@dataclass(slots=True)
class Report:
    """All entries of a run."""

    entries: list[Entry] = field(default_factory=list)

    @property
    def summary(self) -> str:
        """One line: how many passed, failed, were skipped."""
        counts = Counter(entry.status for entry in self.entries)
        gaps = f" ({counts['gap']} known gaps)" if counts["gap"] else ""
        return f"{counts['passed']} passed, {counts['failed']} failed, {counts['skipped'] + counts['gap']} skipped{gaps}"

    @property
    def exit_code(self) -> int:
        """0 when something was checked and nothing failed."""
        statuses = {entry.status for entry in self.entries}
        return 0 if "failed" not in statuses and "passed" in statuses else 1

    def table(self) -> Table:
        """Return one row for each tier, backend and topic."""
        table = Table(title="conformance", title_justify="left", show_edge=False, pad_edge=False)
        for column, justify in (("tier", "left"), ("backend", "left"), ("topic", "left")):
            table.add_column(column, justify="left" if justify == "left" else "right")
        for column in ("passed", "failed", "skipped", "cells", "seconds"):
            table.add_column(column, justify="right")
        groups: dict[tuple[str, str, str], list[Entry]] = {}
        for entry in self.entries:
            groups.setdefault((entry.tier, entry.backend, entry.topic), []).append(entry)
        for (tier, backend, topic), entries in sorted(groups.items()):
            counts = Counter(entry.status for entry in entries)
            failed = f"[bold red]{counts['failed']}[/]" if counts["failed"] else "0"
            skipped = counts["skipped"] + counts["gap"]
            cells, seconds = sum(entry.cells for entry in entries), sum(entry.seconds for entry in entries)
            table.add_row(tier, backend, topic, str(counts["passed"]), failed, str(skipped), str(cells), f"{seconds:.1f}")
        return table

    def to_data(self) -> dict[str, Any]:
        """Return everything as plain data."""
        kernel = os.uname()
        return {
            "suite": version("polyplane-conformance"),
            "polyplane": version("polyplane"),
            "kernel": f"{kernel.sysname} {kernel.release} {kernel.machine}",
            "summary": self.summary,
            "counts": dict(Counter(entry.status for entry in self.entries)),
            "cells": sum(entry.cells for entry in self.entries),
            "results": [
                {
                    "tier": entry.tier,
                    "backend": entry.backend,
                    "name": entry.name,
                    "status": entry.status,
                    "cells": entry.cells,
                    "seconds": round(entry.seconds, 3),
                    **({"detail": entry.detail} if entry.detail else {}),
                }
                for entry in self.entries
            ],
        }

    def write(self, path: Path) -> None:
        """Write the report: JSON if the name ends so, otherwise YAML."""
        data = self.to_data()
        text = json.dumps(data, indent=2) if path.suffix == ".json" else yaml.safe_dump(data, sort_keys=False, allow_unicode=True)
        path.write_text(text, encoding="utf-8")
