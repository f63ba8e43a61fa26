"""`Way`: one table of the node, followed in a thread; and what each kind of them finds."""

from __future__ import annotations

import socket
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import structlog

from polyplane.compile.places import Place
from polyplane.ir.cidr import Cidr

_log: Final[structlog.stdlib.BoundLogger] = structlog.get_logger("polyplane.locate")

#: Seconds until a table that could not be followed is read again.
_RETRY: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What one way knows.

    ``interfaces``: at which interface an address is. ``pods``: by name, as far as it is certain. ``candidates``: interfaces of
    which one may be the pod's, for pods without a certain one. ``devices``: interfaces that the backend sees under their name.
    """

    interfaces: Mapping[Cidr, str] = field(default_factory=dict)
    pods: Mapping[str, Place] = field(default_factory=dict)
    candidates: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    devices: frozenset[str] = frozenset()


class Way(ABC):
    """Follows one table; `start` and `stop` are called once each."""

    #: For the log.
    name: str

    def __init__(self) -> None:
        self.found = Found()
        #: Set once `found` says what there is.
        self.known: Final = threading.Event()
        self._stopping: Final = threading.Event()
        self._alarm: socket.socket
        #: Becomes readable when it is time to stop.
        self._woken: socket.socket
        self._changed: Callable[[], None] = lambda: None
        self._thread: threading.Thread

    def start(self, changed: Callable[[], None]) -> None:
        """Begin to follow, in the network namespace of the calling thread; ``changed`` is called from the way's own."""
        self._changed = changed
        self._alarm, self._woken = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name=f"polyplane-locate-{self.name}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End, soon."""
        self._stopping.set()
        self._alarm.send(b"!")
        self._thread.join()
        self._alarm.close()
        self._woken.close()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._follow()
            except Exception as error:  # noqa: BLE001  # the libraries raise what they like; whatever it was, reading anew is right
                if not self._stopping.is_set():
                    _log.info("where pods are is read again", way=self.name, error=f"{type(error).__name__}: {error}")
                    self._stopping.wait(_RETRY)

    def _say(self, found: Found) -> None:
        if found != self.found or not self.known.is_set():
            self.found = found
            self.known.set()
            self._changed()

    @abstractmethod
    def _follow(self) -> None:
        """Read everything and follow it, saying what was found, until told to stop.

        :raises Exception: the table must be read anew
        """
