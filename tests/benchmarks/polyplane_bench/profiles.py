"""Section profile: where the time goes, as flame graphs and as the functions that take most of it.

Everything is run twice, as py-spy writes one format at a time: an SVG to look at, and a file for speedscope, from which the
shares are counted.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any, Final

from polyplane_bench.figures import Figure, Samples
from polyplane_bench.profile_case import SPY
from polyplane_bench.settings import Settings, Size

_KIT: Final = Path(__file__).parents[1]
#: Functions shown of each case.
TOP: Final = 12

#: Where threads wait that are no business of the agent's.
_SANDBOX: Final = "(polyplane_conformance/"

#: What a case is called, and what it is given.
Case = tuple[str, dict[str, Any]]


def missing() -> str:
    """Say what keeps this section from running here; empty if nothing does."""
    if not SPY.exists():
        return "py-spy is not installed: pip install -r tests/benchmarks/requirements.txt"
    return "" if os.geteuid() == 0 else "a process may be watched by root only"


def cases(settings: Settings) -> list[Case]:
    """Return what to watch."""
    full = settings.size is Size.FULL
    cluster = {"pods": 100_000 if full else 10_000, "policies": 10_000 if full else 1000}
    node = {"policies": 10_000 if full else 1000}
    found: list[Case] = [("core, cold start", cluster), ("core, events", {**cluster, "rounds": 100 if full else 50})]
    for backend in settings.backends:
        found += [("first apply", {**node, "backend": backend}), ("changes", {**node, "backend": backend, "seconds": 5 if full else 2})]
    return found


def measure(settings: Settings) -> tuple[Figure, ...]:
    """Watch every case; leave a flame graph and a file for speedscope of each beside the results."""
    settings.results.mkdir(parents=True, exist_ok=True)
    samples = Samples()
    for case, given in cases(settings):
        what = ", ".join(filter(None, (str(given.get("backend", "")), case)))
        settings.say(f"profile: {what}")
        stem = settings.results / f"profile-{what.replace(', ', '-').replace(' ', '-')}"
        for form, suffix in (("flamegraph", ".svg"), ("speedscope", ".speedscope.json")):
            took = _run({**given, "case": case, "form": form, "path": str(stem.with_suffix(suffix))})
            for kind, seconds in took.items():
                samples.add(f"{kind}, seconds", "s", seconds, what=what)
        own, within, total = shares(json.loads(stem.with_suffix(".speedscope.json").read_text(encoding="utf-8")))
        samples.add("samples", "", total, what=what)
        for function, count in own.most_common(TOP):
            samples.add("own share", "%", 100 * count / total, what=what, function=function)
            samples.add("share with callees", "%", 100 * within[function] / total, what=what, function=function)
    return samples.figures()


def shares(recorded: dict[str, Any]) -> tuple[Counter[str], Counter[str], int]:
    """Count the samples of a recording for speedscope, but for those of the sandbox: by our function that was running, itself or in
    a library that it called; by all of ours it was called from; and all."""
    names = [_name(frame) for frame in recorded["shared"]["frames"]]
    own, within = Counter[str](), Counter[str]()
    for thread in recorded["profiles"]:
        for stack in thread["samples"]:
            ours = [name for frame in stack if (name := names[frame]) is not None]
            if ours and _SANDBOX not in ours[-1]:
                own[ours[-1]] += 1
                within.update(set(ours))
    return own, within, own.total()


def _name(frame: dict[str, Any]) -> str | None:
    """Name a function and its module; None if it is not ours."""
    parts = Path(frame["file"] or "").parts
    at = max((at for at, part in enumerate(parts[:-1]) if part.startswith("polyplane")), default=None)
    return None if at is None else f"{frame['name']} ({'/'.join(parts[at:])})"


def _run(given: dict[str, Any]) -> dict[str, float]:
    argv = [sys.executable, "-m", "polyplane_bench.profile_case", json.dumps(given)]
    done = subprocess.run(argv, env={**os.environ, "PYTHONPATH": str(_KIT)}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"profile, {given['case']}: {done.stderr.strip()}")
    took: dict[str, float] = json.loads(done.stdout)
    return took
