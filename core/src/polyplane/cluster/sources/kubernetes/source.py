"""`KubernetesSource`: the plugin; options, threads, and when everything is in sync."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from polyplane.cluster.model import Dialect, InSync, SourceEvent
from polyplane.cluster.sources.kubernetes.connection import Connection
from polyplane.cluster.sources.kubernetes.reflector import Reflector, Settings
from polyplane.cluster.sources.kubernetes.resources import resources
from polyplane.errors import ConfigError
from polyplane.hookspecs import hookimpl

_TEXTS: Final = ("kubeconfig", "context")
_SECONDS: Final = ("watch_time", "silence", "retry_first", "retry_max", "absent_interval")
_OPTIONS: Final = (*_TEXTS, "page_size", "watch_list", *_SECONDS)
#: Seconds to wait for a thread to end.
_STOP_TIMEOUT: Final = 5.0

Emit = Callable[[SourceEvent], None]


def _bad(name: str, value: object, remedy: str) -> ConfigError:
    return ConfigError(f"source kubernetes: option {name!r} is {value!r}; {remedy}")


def _settings(options: Mapping[str, object]) -> Settings:
    """Check the options that are no texts.

    :raises ConfigError: naming the option and the remedy
    """
    page_size = options.get("page_size", Settings().page_size)
    if isinstance(page_size, bool) or not isinstance(page_size, int) or not 1 <= page_size <= 100_000:
        raise _bad("page_size", page_size, "write a number of objects between 1 and 100000")
    watch_list = options.get("watch_list", True)
    if not isinstance(watch_list, bool):
        raise _bad("watch_list", watch_list, "write true or false")
    seconds: dict[str, float] = {}
    for name in _SECONDS:
        value = options.get(name, getattr(Settings(), name))
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 86_400:
            raise _bad(name, value, "write a number of seconds above 0")
        seconds[name] = float(value)
    return Settings(page_size=page_size, watch_list=watch_list, **seconds)


class KubernetesSource:
    """Follows an API server.

    Options: ``kubeconfig`` and ``context`` (default: as kubectl does it, or the pod's service account), ``page_size`` of lists,
    ``watch_list`` (whether to stream them where the server can), and times in seconds: ``watch_time``, ``silence``,
    ``retry_first``, ``retry_max``, ``absent_interval``; see `Settings`.
    """

    def __init__(self, options: Mapping[str, object]) -> None:
        """Check the options and read the configuration; the server is not asked yet.

        :raises ConfigError: an unknown option, a bad value, or no usable configuration of the API server
        """
        for name in options:
            if name not in _OPTIONS:
                raise ConfigError(f"source kubernetes: unknown option {name!r}; known are {', '.join(_OPTIONS)}")
        texts: dict[str, str | None] = {}
        for name in _TEXTS:
            value = options.get(name)
            if value is not None and (not isinstance(value, str) or not value):
                raise _bad(name, value, "write a text, or leave it out")
            texts[name] = value
        self._settings = _settings(options)
        self._connection = Connection(**texts)
        self._reflectors: list[Reflector] = []
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._waiting = 0
        self._emit: Emit | None = None

    @property
    def versions(self) -> Mapping[str, str | None]:
        """Kind to the version up to which everything has been emitted; None while that is unknown."""
        return {reflector.resource.kind: reflector.version for reflector in self._reflectors}

    @hookimpl
    def polyplane_source_start(self, emit: Emit, dialects: Sequence[Dialect]) -> bool:
        """Begin to follow pods, namespaces, nodes and the policies of the dialects, each in a thread."""
        self._connection.reopen()
        self._emit = emit
        self._reflectors = [
            Reflector(resource, self._connection, self._settings, emit=self._deliver, synced=self._one_synced)
            for resource in resources(dialects)
        ]
        self._waiting = len(self._reflectors)
        self._threads = [
            threading.Thread(target=reflector.run, name=f"polyplane-{reflector.resource.kind.lower()}", daemon=True)
            for reflector in self._reflectors
        ]
        for thread in self._threads:
            thread.start()
        return True

    @hookimpl
    def polyplane_source_stop(self) -> bool:
        """Stop following; returns when the threads have ended."""
        for reflector in self._reflectors:
            reflector.stop()
        self._connection.close()
        for thread in self._threads:
            if thread is not threading.current_thread():
                # One that waits for a slow answer to a list ends with the process; `_deliver` keeps it quiet.
                thread.join(_STOP_TIMEOUT)
        self._emit = None
        self._threads = []
        return True

    def _deliver(self, event: SourceEvent) -> None:
        if (emit := self._emit) is not None:
            emit(event)

    def _one_synced(self) -> None:
        with self._lock:
            self._waiting -= 1
            last = self._waiting == 0
        if last:
            self._deliver(InSync())
