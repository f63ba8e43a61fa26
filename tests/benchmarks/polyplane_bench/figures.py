"""What a section hands back: figures with their spread, the machine they were measured on, and the file they are kept in."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, Self

ROOT: Final = Path(__file__).parents[3]

Case = Mapping[str, str | int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One measured quantity of one case: median, quartiles, 99th percentile and extremes of ``n`` samples."""

    measure: str
    unit: str
    case: Case
    n: int
    median: float
    p25: float
    p75: float
    p99: float
    low: float
    high: float

    @classmethod
    def of(cls, measure: str, unit: str, samples: Sequence[float], **case: str | int) -> Self:
        """Sum up samples, of which there must be at least one."""
        ranked = sorted(samples)
        values = {name: _rounded(quantile(ranked, share)) for name, share in _SHARES.items()}
        return cls(measure=measure, unit=unit, case=case, n=len(ranked), **values)


_SHARES: Final = {"median": 0.5, "p25": 0.25, "p75": 0.75, "p99": 0.99, "low": 0.0, "high": 1.0}


def quantile(ranked: Sequence[float], share: float) -> float:
    """Return a quantile of sorted samples, between two of them in proportion."""
    place = (len(ranked) - 1) * share
    below = int(place)
    above = min(below + 1, len(ranked) - 1)
    return ranked[below] + (ranked[above] - ranked[below]) * (place - below)


def median(samples: Iterable[float]) -> float:
    """Return the middle of some samples."""
    return quantile(sorted(samples), 0.5)


def _rounded(value: float) -> float:
    """Four digits are more than any of this is good for."""
    return float(f"{value:.4g}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Everything one run of one section found. ``load``: the machine's load average before and after, ourselves included."""

    section: str
    size: str
    machine: Mapping[str, str | int]
    date: str
    seconds: float
    figures: tuple[Figure, ...]
    load: tuple[float, float] = (0.0, 0.0)

    def find(self, measure: str, **case: str | int) -> Iterable[Figure]:
        """Yield the figures of a measure whose case has at least these values."""
        for figure in self.figures:
            if figure.measure == measure and all(figure.case.get(key) == value for key, value in case.items()):
                yield figure

    def one(self, measure: str, **case: str | int) -> Figure | None:
        """Return the first of `find`, None if there is none."""
        return next(iter(self.find(measure, **case)), None)

    def beside(self, other: Result) -> Result:
        """Return this result together with what another run of the same on the same machine found of other cases."""
        if (self.section, self.size, self.machine) != (other.section, other.size, other.machine):
            return self
        mine = {(figure.measure, tuple(figure.case.items())) for figure in self.figures}
        kept = tuple(figure for figure in other.figures if (figure.measure, tuple(figure.case.items())) not in mine)
        return (
            replace(self, figures=kept + self.figures, seconds=self.seconds + other.seconds, load=(other.load[0], self.load[1]))
            if kept
            else self
        )

    def write(self, directory: Path) -> Path:
        """Write the result as ``<section>.json``; one figure a line, so that two runs can be compared line by line."""
        directory.mkdir(parents=True, exist_ok=True)
        content: dict[str, Any] = asdict(self)
        figures = ",\n  ".join(json.dumps(figure) for figure in content.pop("figures"))
        head = json.dumps(content, indent=1).removesuffix("\n}")
        path = directory / f"{self.section}.json"
        path.write_text(f'{head},\n "figures": [\n  {figures}\n ]\n}}\n', encoding="utf-8")
        return path

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read what `write` wrote."""
        content = json.loads(path.read_text(encoding="utf-8"))
        figures = tuple(Figure(**figure) for figure in content.pop("figures"))
        return cls(figures=figures, load=tuple(content.pop("load")), **content)


@dataclass(slots=True)
class Samples:
    """Collects samples by measure and case; `figures` sums them up."""

    _values: dict[tuple[str, str, tuple[tuple[str, str | int], ...]], list[float]] = field(default_factory=dict)

    def add(self, measure: str, unit: str, value: float, **case: str | int) -> None:
        """Add one sample."""
        self._values.setdefault((measure, unit, tuple(case.items())), []).append(value)

    def figures(self) -> tuple[Figure, ...]:
        """Return a figure for each measure and case, in the order of their first samples."""
        return tuple(Figure.of(measure, unit, values, **dict(case)) for (measure, unit, case), values in self._values.items())


def now() -> str:
    """Return the date and time, to the minute."""
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")


def machine() -> dict[str, str | int]:
    """Describe this machine as far as it matters to the figures."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "polyplane": version("polyplane"),
        "commit": _said("git", "-C", str(ROOT), "describe", "--always", "--dirty"),
        "nftables": _said("nft", "--version"),
        "iptables": _said("iptables", "--version"),
        "ipset": _said("ipset", "--version"),
        "openvswitch": _said("ovs-vswitchd", "--version"),
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _said(*argv: str) -> str:
    """Return the first line that a tool says; empty if it is not there."""
    found = shutil.which(argv[0]) or shutil.which(argv[0], path="/usr/sbin:/sbin")
    if found is None:
        return ""
    done = subprocess.run([found, *argv[1:]], capture_output=True, text=True, check=False)
    return next(iter(done.stdout.splitlines()), "").strip()
