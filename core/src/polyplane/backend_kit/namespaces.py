"""`in_namespace`: one call inside another network namespace, without moving the process.

A network namespace belongs to a thread, and what the thread starts (sockets, child processes) begins where the thread is.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from typing import Final, TypeVar

#: os.setns came with Python 3.12.
_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNET: Final = 0x40000000

T = TypeVar("T")


def in_namespace(path: str | None, call: Callable[[], T]) -> T:
    """Run ``call`` in the network namespace at ``path``, in a thread that ends with it (some 50 µs); its exceptions are raised here.

    :param path: such as ``/run/netns/NAME``; None: in the caller's own namespace and thread
    :raises OSError: the namespace cannot be entered
    """
    if path is None:
        return call()
    results: list[T] = []
    failures: list[BaseException] = []

    def work() -> None:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                if _LIBC.setns(descriptor, _CLONE_NEWNET):
                    code = ctypes.get_errno()
                    raise OSError(code, os.strerror(code), path)
            finally:
                os.close(descriptor)
            results.append(call())
        except BaseException as error:  # noqa: BLE001 (handed to the caller's thread, all of them)
            failures.append(error)

    thread = threading.Thread(target=work, name="polyplane-netns")
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return results[0]
