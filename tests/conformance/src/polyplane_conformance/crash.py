"""Fault injection: an agent that dies between any two steps of an `apply`, whatever the backend is made of.

A backend's native operations cannot be told from outside: a netlink message, a process, a system call. Between two of them
there is always a call of a Python function. So the apply is done by a child process, which dies at its n-th call; n runs over
the whole apply in even strides. What the child did until then stays in the kernel, as after a ``kill -9``.
"""

from __future__ import annotations

import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Final

#: Status of a child that was made to die.
_DIED: Final = 86
_FAILED: Final = 87


def count_calls(work: Callable[[], object]) -> int:
    """Do the work in a child process to its end; return how many calls that took.

    :raises RuntimeError: when the work fails there
    """
    reading, writing = os.pipe()
    counter = _Counter(sys.maxsize)

    def count() -> None:
        counter.run(work)
        os.write(writing, str(counter.calls).encode())

    with os.fdopen(reading, "rb") as pipe:
        try:
            _in_child(count)
        finally:
            os.close(writing)
        return int(pipe.read())


def die_at(work: Callable[[], object], call: int) -> bool:
    """Do the work in a child process that dies at its n-th call; return whether it came to that.

    :raises RuntimeError: when the work fails before
    """
    counter = _Counter(call)
    return _in_child(lambda: counter.run(work)) == _DIED


def strides(calls: int, points: int) -> Iterator[int]:
    """Yield so many call numbers (fewer if there are fewer calls), evenly over all of them, the last one included."""
    yield from sorted({max(1, calls * number // points) for number in range(1, points + 1)})


def _in_child(work: Callable[[], None]) -> int:
    """Do the work in a child process; return the status that it ended with, 0 or `_DIED`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # other threads wait for processes; the child touches none of their locks
        child = os.fork()
    if child == 0:
        status = _FAILED
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code not in (0, _DIED):
        raise RuntimeError(f"the work fails in a child process with status {code}")
    return code


class _Counter:
    """Counts calls of Python and C functions in all threads of a process and ends it at the given one."""

    def __init__(self, last: int) -> None:
        self.calls = 0
        self._last = last

    def run(self, work: Callable[[], object]) -> None:
        threading.setprofile(self._see)
        sys.setprofile(self._see)
        try:
            work()
        finally:
            sys.setprofile(None)
            threading.setprofile(None)

    def _see(self, _frame: FrameType, event: str, _argument: Any) -> None:
        if event in ("call", "c_call"):
            self.calls += 1
            if self.calls >= self._last:
                os._exit(_DIED)
