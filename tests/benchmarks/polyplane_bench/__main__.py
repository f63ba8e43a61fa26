"""The command line: ``python -m polyplane_bench [--size full] [--sections core,packets] [--backends nftables,ebpf]``."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from polyplane_bench import charts, churn, core, events, packets, page, profiles
from polyplane_bench.figures import Figure, Result, machine, now
from polyplane_bench.settings import BACKENDS, RESULTS, Settings, Size, missing

SECTIONS: Final[dict[str, Callable[[Settings], tuple[Figure, ...]]]] = {
    "core": core.measure,
    "events": events.measure,
    "packets": packets.measure,
    "churn": churn.measure,
    "profile": profiles.measure,
}


def main() -> int:
    """Measure, write results and report, and say where they are."""
    options = _parser().parse_args()
    settings = Settings(size=Size(options.size), backends=options.backends, results=options.results)
    if not options.report:
        settings = _possible(settings)
        for name in options.sections:
            if reason := _prevented(name, settings):
                settings.say(f"without {name}: {reason}")
                continue
            began, load = time.monotonic(), os.getloadavg()[0]
            figures = SECTIONS[name](settings)
            result = Result(
                section=name,
                size=str(settings.size),
                machine=machine(),
                date=now(),
                seconds=round(time.monotonic() - began),
                figures=figures,
                load=(round(load, 1), round(os.getloadavg()[0], 1)),
            )
            before = page.read(settings.results).get(name)
            settings.say(f"{name}: {(result.beside(before) if before else result).write(settings.results)}")
    if options.publish:
        for name in options.sections:
            shutil.copyfile(settings.results / f"{name}.json", page.PUBLISHED / f"{name}.json")
        settings.say(f"published in {page.PUBLISHED}; `make docs` writes the page anew")
    report = settings.results / "report.md"
    results = page.read(settings.results)
    report.write_text(page.text(results, charts_in="."), encoding="utf-8")
    drawn = charts.draw(results, settings.results)
    settings.say(f"report: {report}" + ("" if drawn else "; its charts need matplotlib: pip install -r tests/benchmarks/requirements.txt"))
    return 0


def _prevented(section: str, settings: Settings) -> str:
    """Say why a section cannot be measured here; empty if it can."""
    if section == "profile":
        return profiles.missing()
    return "" if section == "core" or settings.backends else "no backend can be measured here"


def _possible(settings: Settings) -> Settings:
    """Leave out the backends that cannot be measured here, and say why."""
    reasons = {backend: missing(backend) for backend in settings.backends}
    for backend, reason in reasons.items():
        if reason:
            settings.say(f"without {backend}: {reason}")
    return replace(settings, backends=tuple(backend for backend, reason in reasons.items() if not reason))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="polyplane_bench", description="Measure polyplane on this machine.")
    parser.add_argument("--size", choices=[str(size) for size in Size], default=str(Size.QUICK), help="how much to measure")
    parser.add_argument("--sections", type=_some(SECTIONS), default=tuple(SECTIONS), help=f"some of {','.join(SECTIONS)}")
    parser.add_argument("--backends", type=_some(BACKENDS), default=BACKENDS, help=f"some of {','.join(BACKENDS)}")
    parser.add_argument("--results", type=Path, default=RESULTS, help="directory for results and report")
    parser.add_argument("--report", action="store_true", help="measure nothing, write the report of what is there")
    parser.add_argument("--publish", action="store_true", help="take the results over into the documentation")
    return parser


def _some(known: object) -> Callable[[str], tuple[str, ...]]:
    names = tuple(known)  # type: ignore[arg-type, var-annotated]  # a dictionary or a tuple of names

    def read(text: str) -> tuple[str, ...]:
        chosen = tuple(part.strip() for part in text.split(",") if part.strip())
        for name in chosen:
            if name not in names:
                raise argparse.ArgumentTypeError(f"there is no {name}; there are {', '.join(names)}")
        return chosen or names

    return read


if __name__ == "__main__":
    sys.exit(main())
