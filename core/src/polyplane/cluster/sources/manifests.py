"""`ManifestSource`: cluster objects from a directory of YAML and JSON files, followed while they change.

One thread looks and emits. inotify (through watchfiles) only says when to look: what is emitted depends on what the directory
holds then, so lost, doubled or odd events change nothing. A slow regular look covers what inotify cannot see, such as
the targets of links that lead out of the directory.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Final

import watchfiles

from polyplane.cluster.model import InSync, SourceEvent, SourceProblem
from polyplane.cluster.sources.inventory import Inventory
from polyplane.cluster.sources.scan import Scanner
from polyplane.errors import ConfigError
from polyplane.hookspecs import hookimpl

_OPTIONS: Final = ("directory", "debounce_ms")
_DEFAULT_DEBOUNCE_MS: Final = 50
#: How long changes may keep coming before they are looked at anyway, in multiples of the debounce time.
_PATIENCE: Final = 10
#: Seconds between signs of life of the watcher; the directory itself being replaced is noticed this late.
_TICK: Final = 0.25
#: Seconds between looks that nothing asked for.
_LOOK_ANYWAY: Final = 10.0
#: Seconds between looks while the directory cannot be watched.
_POLL: Final = 1.0

Emit = Callable[[SourceEvent], None]


def _options(options: Mapping[str, object]) -> tuple[Path, int]:
    """Check the options and return directory and debounce time.

    :raises ConfigError: naming the option and the remedy
    """
    for name in options:
        if name not in _OPTIONS:
            raise ConfigError(f"source manifests: unknown option {name!r}; known are {' and '.join(_OPTIONS)}")
    directory = options.get("directory")
    if not isinstance(directory, str | os.PathLike) or not os.fspath(directory):
        raise ConfigError("source manifests: option 'directory' is missing or no path; name the directory that holds the manifests")
    debounce = options.get("debounce_ms", _DEFAULT_DEBOUNCE_MS)
    if isinstance(debounce, bool) or not isinstance(debounce, int) or not 1 <= debounce <= 10_000:
        raise ConfigError(f"source manifests: option 'debounce_ms' is {debounce!r}; write a number of milliseconds between 1 and 10000")
    path = Path(os.fsdecode(directory))
    _check_directory(path)
    return path, debounce


def _check_directory(path: Path) -> None:
    if not path.exists():
        raise ConfigError(f"source manifests: the directory {path} does not exist; create it or correct option 'directory'")
    if not path.is_dir():
        raise ConfigError(f"source manifests: {path} is not a directory; name the directory that holds the manifests")


def read_directory(path: str | os.PathLike[str]) -> list[SourceEvent]:
    """Read a directory once: every object and problem in it, then `InSync`.

    :raises ConfigError: when there is no such directory
    """
    directory = Path(path)
    _check_directory(directory)
    inventory = Inventory()
    Scanner(directory, inventory).scan(None)
    return [*inventory.events(), InSync()]


class ManifestSource:
    """The source plugin ``manifests``. Options: ``directory``, and ``debounce_ms``, how long a change must rest (default 50)."""

    def __init__(self, options: Mapping[str, object]) -> None:
        """Check the options; nothing is read yet.

        :raises ConfigError: for an unknown option, a bad value, or a directory that is not there
        """
        self._directory, self._debounce_ms = _options(options)
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    @hookimpl
    def polyplane_source_start(self, emit: Emit) -> bool:
        """Begin to read and follow the directory in a thread.

        :raises ConfigError: when the directory has gone since the options were checked
        """
        _check_directory(self._directory)
        self._stopping.clear()
        self._thread = threading.Thread(target=self._run, args=(emit,), name="polyplane-manifests", daemon=True)
        self._thread.start()
        return True

    @hookimpl
    def polyplane_source_stop(self) -> bool:
        """Stop following; returns when the thread has ended."""
        self._stopping.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
            self._thread = None
        return True

    def _run(self, emit: Emit) -> None:
        inventory = Inventory()
        scanner = Scanner(self._directory, inventory)
        watch = _Watch(self._directory, self._debounce_ms, self._stopping)
        scanner.scan(None)
        self._deliver(emit, [*inventory.events(), InSync()])
        watch_problem: str | None = None
        with closing(watch.signals()) as signals:
            # The watch begins after the first look, and its first signal asks for another: nothing falls in between.
            for _ in signals:
                watch.again = not scanner.scan(time.monotonic())
                events = inventory.events()
                if watch.problem != watch_problem:
                    watch_problem = watch.problem
                    events.append(SourceProblem(where=f"watch on {self._directory}", problem=watch_problem))
                self._deliver(emit, events)

    def _deliver(self, emit: Emit, events: list[SourceEvent]) -> None:
        for event in events:
            if self._stopping.is_set():
                return
            emit(event)


class _Watch:
    """Says when to look at the directory: after changes have come to rest, when things were not settled, and now and then."""

    def __init__(self, directory: Path, debounce_ms: int, stopping: threading.Event) -> None:
        self._directory = directory
        self._debounce_ms = debounce_ms
        self._stopping = stopping
        #: The last look left something open: look again at the next tick.
        self.again = False
        #: Why the directory cannot be watched, while it cannot; it is looked at every `_POLL` seconds instead.
        self.problem: str | None = None

    def signals(self) -> Generator[None, None, None]:
        """Yield each time the directory should be looked at, until stopped."""
        while not self._stopping.is_set():
            identity = self._identity()
            if identity is None:
                self.problem = None
                yield
                self._wait_for_another(None)
                continue
            try:
                yield from self._changes(identity)
            except (OSError, RuntimeError) as error:
                # watchfiles raises RuntimeError for what its Rust part cannot put into an errno.
                if self._identity() == identity:
                    self.problem = f"cannot be watched ({error}), so changes are noticed late; raise fs.inotify.max_user_watches"
                    yield
                    self._stopping.wait(_POLL)

    def _identity(self) -> tuple[int, int] | None:
        """Which directory the path leads to now; None when to none."""
        try:
            status = self._directory.stat()
        except OSError:
            return None
        return (status.st_dev, status.st_ino) if self._directory.is_dir() else None

    def _wait_for_another(self, identity: tuple[int, int] | None) -> None:
        while self._identity() == identity and not self._stopping.wait(_TICK):
            pass

    def _changes(self, identity: tuple[int, int]) -> Generator[None, None, None]:
        """Watch one directory until the path leads to another one."""
        last_look = float("-inf")
        with closing(self._raw_changes()) as raw:
            for changes in raw:
                if self._identity() != identity:
                    return
                now = time.monotonic()
                if changes or self.again or now - last_look >= _LOOK_ANYWAY:
                    self.problem = None
                    last_look = now
                    yield

    def _raw_changes(self) -> Generator[set[tuple[watchfiles.Change, str]], None, None]:
        return watchfiles.watch(
            self._directory,
            watch_filter=None,
            step=self._debounce_ms,
            debounce=self._debounce_ms * _PATIENCE,
            stop_event=self._stopping,
            rust_timeout=int(_TICK * 1000),
            yield_on_timeout=True,
            raise_interrupt=False,
            ignore_permission_denied=True,
        )
