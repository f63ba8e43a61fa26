"""Commands and daemons inside a sandbox's namespaces."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from polyplane_conformance import netns
from polyplane_conformance.sandbox.namespaces import SandboxError


def run(path: Path, argv: Sequence[str], *, text: str = "", env: Mapping[str, str] | None = None) -> str:
    """Run a command in a namespace with ``text`` as its input; return its output.

    :raises SandboxError: when it is missing or fails, with what it said
    """
    try:
        with netns.inside(path):
            done = subprocess.run(list(argv), input=text, env=env, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise SandboxError(f"the command {argv[0]} is not installed") from error
    if done.returncode:
        raise SandboxError(f"{' '.join(argv)} in {path.name}: {done.stderr.strip() or done.stdout.strip() or done.returncode}")
    return done.stdout


class Daemons:
    """Starts processes that must not outlive us; `close` ends them all.

    They are started by a thread of their own that lives until then, because the kernel sends the "parent died" signal
    when the *thread* that started them ends, not the process.
    """

    def __init__(self) -> None:
        self._starter = ThreadPoolExecutor(max_workers=1, thread_name_prefix="polyplane sandbox daemons")
        self._running: list[subprocess.Popen[str]] = []

    def spawn(
        self, path: Path, argv: Sequence[str], *, output: Path | None = None, env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[str]:
        """Start a process in a namespace; its output goes to a file (appended) or nowhere. It gets SIGKILL should we die.

        :raises SandboxError: when ``setpriv`` is not installed
        """
        process = self._starter.submit(self._start, path, argv, output, env).result()
        self._running.append(process)
        return process

    @staticmethod
    def _start(path: Path, argv: Sequence[str], output: Path | None, env: Mapping[str, str] | None) -> subprocess.Popen[str]:
        command = ["setpriv", "--pdeathsig", "KILL", *argv]
        try:
            with netns.inside(path), (output or Path("/dev/null")).open("ab") as sink:
                return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, env=env, text=True)
        except FileNotFoundError as error:
            raise SandboxError("daemons in a sandbox need the command setpriv; install util-linux") from error

    def close(self) -> None:
        """Kill what still runs."""
        for process in self._running:
            if process.poll() is None:
                process.kill()
            process.wait()
        self._running.clear()
        self._starter.shutdown()


@contextlib.contextmanager
def capture(daemons: Daemons, path: Path, into: Path, expression: str = "") -> Iterator[Path]:
    """Record packets of all interfaces of a namespace into a pcap file while the body runs.

    :raises SandboxError: when ``tcpdump`` is not installed or does not start
    """
    said = into.with_suffix(".log")
    process = daemons.spawn(path, ["tcpdump", "-i", "any", "--immediate-mode", "-U", "-w", str(into), *expression.split()], output=said)
    deadline = time.monotonic() + 60
    while "listening on" not in (text := said.read_text(encoding="utf-8")):
        if process.poll() is not None or time.monotonic() > deadline:
            raise SandboxError(f"tcpdump did not start in {path.name}: {text.strip() or 'is it installed?'}")
        time.sleep(0.01)
    try:
        yield into
    finally:
        time.sleep(0.05)  # tcpdump reads from a ring; what has just passed is not in it for certain yet
        process.terminate()
        process.wait()
