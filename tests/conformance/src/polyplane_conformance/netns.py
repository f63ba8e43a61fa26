"""Entering and removing named network namespaces, for one thread at a time.

A namespace belongs to a thread, not to a process: only the calling thread moves, what it starts (threads, children) begins
where it is, and a socket stays for ever in the namespace it was made in. `os.setns` exists from Python 3.12 on, therefore
ctypes. Entering with an open descriptor costs about 10 µs, ``ip netns exec`` 2 ms.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

#: Where ``ip netns`` keeps its names, each a bind mount of a namespace.
NETNS_DIRECTORY: Final = Path("/run/netns")

_CLONE_NEWNET: Final = 0x4000_0000
_MNT_DETACH: Final = 2

_libc = ctypes.CDLL(None, use_errno=True)


def enter(descriptor: int) -> None:
    """Move the calling thread into the network namespace that ``descriptor`` is open on.

    :raises OSError: without CAP_SYS_ADMIN, or when the descriptor is no namespace
    """
    if _libc.setns(descriptor, _CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, f"setns: {os.strerror(number)}")


@contextlib.contextmanager
def inside(path: Path) -> Iterator[None]:
    """Run the body in another network namespace; the thread comes back afterwards, whatever happens."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        away = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            enter(away)
        finally:
            os.close(away)
        try:
            yield
        finally:
            enter(home)
    finally:
        os.close(home)


def write_sysctls(values: dict[str, str]) -> None:
    """Set kernel parameters of the calling thread's namespace: keys as paths below ``/proc/sys``; ones this kernel lacks are skipped."""
    for key, value in values.items():
        with contextlib.suppress(FileNotFoundError):
            Path("/proc/sys", key).write_text(value, encoding="ascii")


def names() -> list[str]:
    """Return the names of all named namespaces of this machine."""
    try:
        return sorted(entry.name for entry in NETNS_DIRECTORY.iterdir())
    except FileNotFoundError:
        return []


def delete(name: str) -> None:
    """Remove a named namespace; one that is already gone is no error.

    The kernel destroys it when the last process or socket in it goes.
    """
    path = NETNS_DIRECTORY / name
    # EINVAL: no mount there (an ip netns add that died half-way); ENOENT: somebody else was faster
    if _libc.umount2(str(path).encode(), _MNT_DETACH) and ctypes.get_errno() not in {errno.EINVAL, errno.ENOENT}:
        number = ctypes.get_errno()
        raise OSError(number, f"umount {path}: {os.strerror(number)}")
    path.unlink(missing_ok=True)
