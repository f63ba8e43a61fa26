"""What the observers share that write to the API server: their options, and `Writer`, which writes when it is due."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from random import Random
from typing import Final, Generic, TypeVar

from polyplane.cluster.sources.kubernetes.connection import Connection
from polyplane.errors import ConfigError

T = TypeVar("T", bound=Hashable)

#: Seconds over which the agents of a cluster spread what they have to write.
SPREAD: Final = 10.0
#: Seconds until a write that failed is tried again.
RETRY: Final = 30.0


def read_options(observer: str, options: Mapping[str, object], defaults: Mapping[str, float]) -> tuple[Connection, dict[str, float]]:
    """Return the API server that an observer's options name, and its times in seconds.

    :param defaults: the times there are
    :raises ConfigError: an unknown option, a bad value, or no usable configuration of an API server
    """
    texts: dict[str, str] = {}
    seconds = dict(defaults)
    for name, value in options.items():
        if name in seconds and isinstance(value, int | float) and not isinstance(value, bool) and value >= 0:
            seconds[name] = float(value)
        elif name in {"kubeconfig", "context"} and isinstance(value, str) and value:
            texts[name] = value
        else:
            known = f"there are kubeconfig and context (texts) and {', '.join(defaults)} (seconds)"
            raise ConfigError(f"observer.{observer}: option {name!r} is unknown or its value {value!r} is none; {known}")
    return Connection(**texts), seconds


class Writer(Generic[T]):
    """A thread that writes things one by one, each when it is due: no agent's dataplane waits for the API server.

    :param name: of the thread, which starts with the first thing
    :param write: writes one; returns the seconds until it is to be written again, None if it is done
    :param spread: seconds over which what is new is spread
    """

    def __init__(self, name: str, write: Callable[[T], float | None], spread: float) -> None:
        self._name: Final = name
        self._write: Final = write
        self._spread: Final = spread
        self._random: Final = Random()  # noqa: S311  # jitter is no secret
        self._changed: Final = threading.Condition()
        self._wanted: Collection[T] = ()
        self._due: dict[T, float] = {}
        self._thread: threading.Thread | None = None

    def update(self, wanted: Collection[T], new: Iterable[T]) -> None:
        """Let go of what is not wanted any more, and write what is new, spread over the time given."""
        with self._changed:
            now = time.monotonic()
            self._wanted = wanted
            self._due = {thing: at for thing, at in self._due.items() if thing in wanted}
            self._due |= {thing: now + self._spread * self._random.random() for thing in new}
            self._changed.notify()
        if self._thread is None and self._due:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()

    def _run(self) -> None:
        """Write what is due, for ever."""
        while True:
            thing = self._next()
            again = self._write(thing)
            with self._changed:
                if again is not None and thing in self._wanted:
                    # What became new while it was being written is due earlier.
                    self._due.setdefault(thing, time.monotonic() + again * self._random.uniform(0.8, 1.2))

    def _next(self) -> T:
        """Wait until something is due, and take it."""
        with self._changed:
            while True:
                thing = min(self._due, key=self._due.__getitem__, default=None)
                pause = None if thing is None else self._due[thing] - time.monotonic()
                if thing is not None and pause is not None and pause <= 0:
                    del self._due[thing]
                    return thing
                self._changed.wait(pause)
