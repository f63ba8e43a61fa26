"""Doing something in another network namespace, without moving the process."""

from __future__ import annotations

import ctypes
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

_T = TypeVar("_T")
#: os.setns came with Python 3.12.
_libc: Final = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNET: Final = 0x40000000


def inside(path: str | None, work: Callable[[], _T]) -> _T:
    """Call ``work`` in the namespace at ``path``, None being our own, in a thread that ends with it."""
    if path is None:
        return work()
    result: list[_T] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                if _libc.setns(descriptor, _CLONE_NEWNET):
                    number = ctypes.get_errno()
                    raise OSError(number, f"setns: {os.strerror(number)}", path)
            finally:
                os.close(descriptor)
            result.append(work())
        except BaseException as error:  # noqa: BLE001  # raised again below, in the thread that asked
            failure.append(error)

    thread = threading.Thread(target=run, name=f"in {path}")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return result[0]


def interfaces(path: str | None) -> dict[str, int]:
    """Return the interfaces of a namespace: name → number."""
    return {name: number for number, name in inside(path, socket.if_nameindex)}


def identity(path: str | None) -> int:
    """Return the number that tells a namespace from all others while it exists."""
    return Path(path or "/proc/thread-self/ns/net").stat().st_ino
