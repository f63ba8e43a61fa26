"""`Faults`: what goes wrong next, said by the test, read by the server."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from enum import Enum, auto


class WatchList(Enum):
    """How the server answers ``sendInitialEvents``."""

    WORKS = auto()
    #: A server that does not know it refuses with 422.
    UNKNOWN = auto()
    #: With etcd 3.4 it answers 200 and an ERROR event of code 500.
    OLD_ETCD = auto()
    #: The end marker never comes.
    ENDLESS = auto()


@dataclass
class _Planned:
    path: str
    times: int
    watches: bool | None


@dataclass
class _Failure(_Planned):
    code: int
    retry_after: int


@dataclass
class _Cut(_Planned):
    after: int


@dataclass
class Faults:
    """Read by every request. ``path`` arguments are a part of the URL's path, empty for all."""

    watch_list: WatchList = WatchList.WORKS
    #: Accepted bearer tokens; None: no authentication.
    tokens: set[str] | None = None
    #: Plural names that nobody may read.
    forbidden: set[str] = field(default_factory=set)
    #: Seconds before each piece of an answer, and its size in bytes; 0: no delay.
    delay: float = 0.0
    piece: int = 2000
    #: Plural names whose watches say nothing.
    mute: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._failures: list[_Failure] = []
        self._cuts: list[_Cut] = []
        self._errors: list[_Failure] = []

    def fail(self, code: int, *, path: str = "", times: int = 1, retry_after: int = 0, watches: bool | None = None) -> None:
        """Answer the next requests with an HTTP status; ``watches``: only to watches, or only to others."""
        with self._lock:
            self._failures.append(_Failure(path, times, watches, code, retry_after))

    def cut(self, after: int, *, path: str = "", times: int = 1, watches: bool | None = None) -> None:
        """Close the connection after so many bytes of the answer's body."""
        with self._lock:
            self._cuts.append(_Cut(path, times, watches, after))

    def error_event(self, code: int, *, path: str = "", times: int = 1) -> None:
        """Answer the next watches with 200 and an ERROR event."""
        with self._lock:
            self._errors.append(_Failure(path, times, watches=True, code=code, retry_after=0))

    def next_failure(self, path: str, *, watch: bool) -> tuple[int, int] | None:
        """Return HTTP status and Retry-After for this request, if it is to fail."""
        with self._lock:
            found = _next(self._failures, path, watch=watch)
        return (found.code, found.retry_after) if isinstance(found, _Failure) else None

    def next_cut(self, path: str, *, watch: bool) -> int | None:
        """Return after how many bytes this answer is cut off, if it is."""
        with self._lock:
            found = _next(self._cuts, path, watch=watch)
        return found.after if isinstance(found, _Cut) else None

    def next_error_event(self, path: str) -> int | None:
        """Return the code of the ERROR event that this watch sends, if it does."""
        with self._lock:
            found = _next(self._errors, path, watch=True)
        return found.code if isinstance(found, _Failure) else None


def _next(planned: list[_Failure] | list[_Cut], path: str, *, watch: bool) -> _Planned | None:
    for plan in planned:
        if plan.times > 0 and plan.path in path and plan.watches in (None, watch):
            plan.times -= 1
            return plan
    return None
