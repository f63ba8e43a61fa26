"""Section core: what a cluster costs the agent before any dataplane; each case in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Final

from polyplane_bench.cluster import Raw, Shape
from polyplane_bench.figures import Figure, Samples
from polyplane_bench.settings import Settings, Size

_KIT: Final = Path(__file__).parents[1]


def shapes(size: Size) -> list[Shape]:
    """Return the clusters to try."""
    if size is Size.QUICK:
        return [
            Shape(pods=1000, policies=1000, namespaces=100),
            Shape(pods=10_000, policies=1000, namespaces=100),
            Shape(pods=10_000, policies=1000, namespaces=100, local=250),
        ]
    return [
        Shape(pods=pods, policies=policies, local=local)
        for pods in (1000, 10_000, 100_000)
        for policies in (100, 1000, 10_000)
        for local in ((110, 250) if policies == 10_000 else (110,))
    ]


def measure(settings: Settings) -> tuple[Figure, ...]:
    """Run every case; a cold start several times, events in each of the processes."""
    samples = Samples()
    runs, rounds = (1, 20) if settings.size is Size.QUICK else (2, 60)
    for number in range(runs):
        for shape in shapes(settings.size):
            if number and shape.local != 110:
                continue  # once is enough to see what more pods here cost
            settings.say(f"core: {shape}, run {number + 1} of {runs}")
            _add(samples, shape, _run(shape, rounds))
    return samples.figures()


def _run(shape: Shape, rounds: int) -> Raw:
    argv = [sys.executable, "-m", "polyplane_bench.core_case", json.dumps({**asdict(shape), "rounds": rounds})]
    done = subprocess.run(argv, env={**os.environ, "PYTHONPATH": str(_KIT)}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"core, {shape}: {done.stderr.strip()}")
    result: Raw = json.loads(done.stdout)
    return result


def _add(samples: Samples, shape: Shape, found: Raw) -> None:
    case = {"pods": shape.pods, "policies": shape.policies, "local": shape.local}
    samples.add("cold start, CPU", "s", found["cold"], **case)
    samples.add("cold start, peak memory", "MiB", found["peak"], **case)
    samples.add("memory before the start", "MiB", found["before"], **case)
    for what, number in found["facts"].items():
        samples.add(f"in the program: {what}", "", number, **case)
    for kind, every in found["events"].items():
        for one in every:
            samples.add("event, CPU", "ms", one["seconds"] * 1000, **case, event=kind)
            samples.add("event, operations", "", one["operations"], **case, event=kind)
            samples.add("event, addresses", "", one["addresses"], **case, event=kind)
            samples.add("event, recomputations", "", sum(one["recomputations"].values()), **case, event=kind)
