"""`Report`: what a run found, for machines (YAML or JSON) and for people (a table and one line)."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, metadata, version
from pathlib import Path
from typing import Any, Final, Literal

import pytest
import yaml
from rich.table import Table

from polyplane.errors import PolyplaneError
from polyplane.hookspecs import BACKENDS
from polyplane.plugins import find
from polyplane_conformance.features import OPERATION
from polyplane_conformance.profiles import profiles, seconds_by_tier

API_VERSION: Final = "conformance.polyplane.dev/v1"
#: What the model tier is about.
COMPILER: Final = "polyplane's compiler"

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
    #: What it is about: a kind of policy, or ``Operation``, or empty where nothing was asked for; and which extended features it needs.
    api: str = OPERATION
    features: tuple[str, ...] = ()

    @property
    def topic(self) -> str:
        """First part of the name."""
        return self.name.partition("/")[0]


@dataclass(slots=True)
class Report:
    """All entries of a run."""

    entries: list[Entry] = field(default_factory=list)

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Report:
        """Read what `to_data` returned."""
        return cls([Entry(**{**entry, "features": tuple(entry.get("features", ()))}) for entry in data["results"]])

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
            "apiVersion": API_VERSION,
            "kind": "ConformanceReport",
            "suite": version("polyplane-conformance"),
            "polyplane": version("polyplane"),
            "kernel": f"{kernel.sysname} {kernel.release} {kernel.machine}",
            "date": datetime.now(UTC).date().isoformat(),
            "summary": self.summary,
            "implementations": self._implementations(),
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
                    "api": entry.api,
                    **({"features": list(entry.features)} if entry.features else {}),
                    **({"detail": entry.detail} if entry.detail else {}),
                }
                for entry in self.entries
            ],
        }

    def _implementations(self) -> list[dict[str, Any]]:
        """Each backend with its profiles; the model tier is about no backend but about polyplane's compiler."""
        groups: dict[str, list[Entry]] = {}
        for entry in self.entries:
            groups.setdefault(entry.backend, []).append(entry)
        return [
            {
                "name": COMPILER if backend == "-" else backend,
                **_distribution("" if backend == "-" else backend),
                "secondsByTier": seconds_by_tier(entries),
                "profiles": profiles(entries),
            }
            for backend, entries in sorted(groups.items())
            if any(entry.status != "skipped" for entry in entries)
        ]

    def write(self, path: Path) -> None:
        """Write the report: JSON if the name ends so, otherwise YAML."""
        data = self.to_data()
        text = json.dumps(data, indent=2) if path.suffix == ".json" else yaml.safe_dump(data, sort_keys=False, allow_unicode=True)
        path.write_text(text, encoding="utf-8")


#: Where a run keeps its report.
REPORT: Final = pytest.StashKey[Report]()


def _distribution(backend: str) -> dict[str, str]:
    """The distribution that a backend comes in (polyplane itself for no backend), with its version and, if it states one, its home page."""
    try:
        name = find(BACKENDS, backend).distribution if backend else "polyplane"
        found = metadata(name)
    except (PolyplaneError, PackageNotFoundError):
        return {}
    home = next((url.partition(", ")[2] for url in found.get_all("Project-URL") or ()), "")
    return {"distribution": name, "version": version(name), **({"url": home} if home else {})}
