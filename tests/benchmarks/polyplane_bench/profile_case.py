"""One case of the section profile, in a process of its own: it lets py-spy watch it while it does what is to be seen, and only then.

py-spy reads the process from outside, so that what calls many small functions does not look dearer than it is.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from polyplane import logs
from polyplane.config import LogFormat, LogLevel
from polyplane.ir.program import EMPTY
from polyplane.reconcile.diff import diff
from polyplane_bench import core_case
from polyplane_bench.cluster import Shape, SyntheticCluster
from polyplane_bench.packets import ends, plane
from polyplane_bench.programs import Load, grown, program, shortened

#: The profiler, installed beside the interpreter.
SPY: Final = Path(sys.executable).with_name("py-spy")
_RATE: Final = 500

#: What is to be seen, once everything it needs is there.
Work = Callable[[], object]


def cold_start(_stack: ExitStack, pods: int, policies: int) -> Work:
    """Follow a whole cluster; its objects are made before."""
    events = list(SyntheticCluster(Shape(pods=pods, policies=policies)).events())
    node = core_case.Node()
    return lambda: node.start(iter(events))


def follow_events(_stack: ExitStack, pods: int, policies: int, rounds: int) -> Work:
    """Follow events of every kind, one by one."""
    cluster, node = SyntheticCluster(Shape(pods=pods, policies=policies)), core_case.Node()
    node.start(cluster.events())
    chance = random.Random(cluster.shape.seed)  # noqa: S311 (no secret)
    events = [event for _ in range(rounds) for _, event in core_case.events(cluster, node.compiler.program, chance)]
    return lambda: [node.follow(event) for event in events]


def first_apply(stack: ExitStack, backend: str, policies: int) -> Work:
    """Bring many policies into force on a node without any.

    What the backend sets up there once is not watched: a kernel gives up verifying a program whenever py-spy stops the process.
    """
    _, made = stack.enter_context(plane(backend))
    empty, many = (program(Load(policies=number, endpoints=250), *ends()) for number in (0, policies))
    made.apply(diff(EMPTY, empty))
    delta = diff(empty, many)
    return lambda: made.apply(delta)


def apply_changes(stack: ExitStack, backend: str, policies: int, seconds: float) -> Work:
    """Among many policies, let an address join a set and leave it, and a policy go and come back, as often as there is time."""
    _, made = stack.enter_context(plane(backend))
    base = program(Load(policies=policies, endpoints=250), *ends())
    made.apply(diff(EMPTY, base))
    steps = [grown(base), base, shortened(base), base]
    deltas = [diff(before, after) for before, after in zip([base, *steps], steps, strict=False)]

    def work() -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for delta in deltas:
                made.apply(delta)

    return work


CASES: Final[dict[str, Callable[..., Work]]] = {
    "core, cold start": cold_start,
    "core, events": follow_events,
    "first apply": first_apply,
    "changes": apply_changes,
}


@contextmanager
def watched(path: Path, form: str, *, native: bool) -> Iterator[None]:
    """Let py-spy record what the body does; ``native`` also what its libraries do."""
    argv = [str(SPY), "record", "--pid", str(os.getpid()), "--rate", str(_RATE), "--function", "--format", form, "--output", str(path)]
    spy = subprocess.Popen([*argv, *(["--native"] if native else [])], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert spy.stdout is not None
    said = spy.stdout.readline()
    if "Sampling process" not in said:
        raise RuntimeError(f"py-spy: {said}{spy.communicate()[0]}")
    try:
        yield
    finally:
        spy.send_signal(signal.SIGINT)
        said, _ = spy.communicate()
    if spy.returncode:
        raise RuntimeError(f"py-spy: {said}")


def main() -> None:
    """Read what to do as JSON from the command line, do it, print what it took."""
    logs.configure(LogLevel.ERROR, LogFormat.TEXT)
    given: dict[str, Any] = json.loads(sys.argv[1])
    case, form, path = given.pop("case"), given.pop("form"), Path(given.pop("path"))
    with ExitStack() as stack:
        work = CASES[case](stack, **given)
        with watched(path, form, native="backend" in given):
            wall, cpu = time.monotonic(), os.times()
            work()
            wall, after = time.monotonic() - wall, os.times()
    own = after.user + after.system - cpu.user - cpu.system
    commands = after.children_user + after.children_system - cpu.children_user - cpu.children_system
    sys.stdout.write(json.dumps({"wall": wall, "own": own, "commands": commands}) + "\n")


if __name__ == "__main__":
    main()
