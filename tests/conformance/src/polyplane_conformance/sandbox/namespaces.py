"""Names of a sandbox's namespaces: they say who owns them, so that anybody can tell a leftover from a sandbox in use.

``pp-<process id>-<start time of that process>-<serial>-<what>``: a process id alone would be used again; together with the
start time (clock ticks since boot) it never is.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from polyplane.errors import PolyplaneError
from polyplane_conformance import netns

_OWNED: Final = re.compile(r"pp-(?P<pid>[0-9]+)-(?P<start>[0-9]+)-[0-9]+-.+")
_serials: Final = itertools.count(1)
#: Seconds a work queue of a busy kernel may take.
_WORK_QUEUE_PATIENCE: Final = 5.0


class SandboxError(PolyplaneError):
    """A sandbox cannot be built or changed; the message has what the system said."""


def start_time(pid: int) -> int | None:
    """Clock ticks since boot at which a process started, None if there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # the second field is the command in parentheses and may itself contain spaces and parentheses; the start time is field 22
    return int(stat.rpartition(")")[2].split()[19])


def new_prefix() -> str:
    """Return the beginning of all names of one sandbox, different for each."""
    return f"pp-{os.getpid()}-{start_time(os.getpid())}-{next(_serials)}-"


def label(name: str) -> str:
    """Return the part of a namespace's name that says what it is: a pod's ``namespace/name`` with the slash replaced."""
    return name.replace("/", "_")


def sweep() -> tuple[str, ...]:
    """Remove the namespaces of processes that are no more; return their names. Everything else is left alone."""
    removed = []
    for name in netns.names():
        match = _OWNED.fullmatch(name)
        if match is not None and start_time(int(match["pid"])) != int(match["start"]):
            netns.delete(name)
            removed.append(name)
    return tuple(removed)


def sweep_directories(where: Path) -> None:
    """Remove the directories in ``where`` of processes that are no more."""
    for path in where.iterdir() if where.is_dir() else ():
        match = _OWNED.fullmatch(path.name)
        if match is not None and start_time(int(match["pid"])) != int(match["start"]):
            shutil.rmtree(path, ignore_errors=True)


def create(names: Iterable[str]) -> None:
    """Create named namespaces.

    :raises SandboxError: with what ``ip`` said
    """
    ip_batch(None, [f"netns add {name}" for name in names])


def ip_batch(name: str | None, lines: Iterable[str]) -> None:
    """Run ``ip -batch`` in a namespace (None: in our own), all lines or up to the first that fails.

    :raises SandboxError: with what ``ip`` said and the line it was about
    """
    ip_batches({name: list(lines)})


def ip_batches(batches: Mapping[str | None, list[str]]) -> None:
    """Run several batches side by side, one ``ip`` for each namespace.

    :raises SandboxError: for the first that failed, after all have ended
    """
    running = []
    try:
        for name, lines in batches.items():
            where = [] if name is None else ["-n", name]
            process = subprocess.Popen(["ip", *where, "-batch", "-"], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            running.append((name, lines, process))
            assert process.stdin is not None
            process.stdin.write("".join(f"{line}\n" for line in lines))
            process.stdin.close()
    except FileNotFoundError as error:
        raise SandboxError("a sandbox needs the command ip; install iproute2") from error
    finally:
        failures = [text for name, lines, process in running if (text := _outcome(name, lines, process))]
    if failures:
        raise SandboxError(failures[0])


def await_addresses(name: str, addresses: Iterable[str]) -> None:
    """Wait until the namespace answers for its IPv6 addresses.

    The kernel (6.18) makes an address local from a work queue, also with ``nodad``: on a busy machine after ``ip`` has ended.

    :raises SandboxError: when it takes longer than any work queue should
    """
    missing = {address for address in addresses if ":" in address}
    deadline = time.monotonic() + _WORK_QUEUE_PATIENCE
    while missing:
        command = ["ip", "-n", name, "-6", "route", "show", "table", "local"]
        local = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        missing.difference_update(local)
        if missing and time.monotonic() > deadline:
            raise SandboxError(f"{name}: the kernel did not take up {', '.join(sorted(missing))} in {_WORK_QUEUE_PATIENCE:.0f} s")


def _outcome(name: str | None, lines: list[str], process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    with process.stderr:
        said = process.stderr.read().strip()
    if process.wait() == 0:
        return ""
    match = re.search(r"Command failed -:(\d+)", said)
    line = lines[int(match[1]) - 1] if match is not None else "; ".join(lines[:3])
    return f"ip in {name or 'the host'}: {line!r}: {said}"
