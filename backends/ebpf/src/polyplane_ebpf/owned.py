"""What is ours in the BPF file system, and under which names. Everything we make is pinned there, and nothing else is ours.

``<bpffs>/polyplane/v<layout>/<instance>/`` holds ``map_<name>``, ``program_<function>_<tag>``, ``link_<family>_<hook>_<namespace>_<tag>``,
where packets are answered ``tcx_<device>_<side>_<tag>`` or ``clsact_<device>``, and ``name``, if the namespace has one. A directory
``new-<instance>`` beside it is one that is being made.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from polyplane.errors import BackendUnavailable
from polyplane_ebpf.maps import LAYOUT

_ROOT: Final = "polyplane"
_NEW: Final = "new-"
_VERSION: Final = re.compile(r"v\d+")
_NAMESPACE_INSTANCE: Final = re.compile(r"(?:new-)?ns-(\d+)")
#: Where named network namespaces are, each a file.
NETNS_DIRECTORY: Final = Path("/run/netns")
#: A symbolic link to the name of the network namespace, if it has one.
NAME_PIN: Final = "name"
_BPF_FS_MAGIC: Final = 0xCAFE4A11
_libc: Final = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Place:
    """The directories of one instance below a BPF file system."""

    bpffs: Path
    instance: str

    @property
    def directory(self) -> Path:
        """Where the present layout is pinned."""
        return self.bpffs / _ROOT / f"v{LAYOUT}" / self.instance

    @property
    def draft(self) -> Path:
        """Where it is pinned until it is complete."""
        return self.directory.with_name(_NEW + self.instance)

    def others(self) -> Iterator[Path]:
        """Yield directories of this instance in other layouts, which another version left."""
        for version in self._versions():
            for name in (self.instance, _NEW + self.instance):
                path = version / name
                if path not in (self.directory, self.draft) and path.is_dir():
                    yield path

    def abandoned(self) -> Iterator[Path]:
        """Yield directories of instances whose network namespace had a name, and has lost it."""
        for version in self._versions():
            for path in sorted(version.iterdir()):
                match = _NAMESPACE_INSTANCE.fullmatch(path.name)
                if match is None or path in (self.directory, self.draft) or not (path / NAME_PIN).is_symlink():
                    continue
                if _inode(NETNS_DIRECTORY / (path / NAME_PIN).readlink()) != int(match[1]):
                    yield path

    def _versions(self) -> list[Path]:
        root = self.bpffs / _ROOT
        return sorted(path for path in root.iterdir() if _VERSION.fullmatch(path.name)) if root.is_dir() else []


def instance_of(namespace: int) -> str:
    """Return the instance's name for a namespace, given as inode; ours keep it alive, so the number is not used again."""
    return f"ns-{namespace}"


def name_of(namespace: int) -> str | None:
    """Return the name of a network namespace, if it has one."""
    try:
        return next((path.name for path in sorted(NETNS_DIRECTORY.iterdir()) if _inode(path) == namespace), None)
    except FileNotFoundError:
        return None


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except OSError:
        return None


def map_pin(name: str) -> str:
    """Return the name of a map's pin."""
    return f"map_{name}"


def program_pin(function: str, tag: str) -> str:
    """Return the name of a program's pin; ``tag`` changes with the instructions."""
    return f"program_{function}_{tag}"


def link_pin(family: int, hook: str, namespace: int, tag: str) -> str:
    """Return the name of a link's pin; ``namespace``: inode of the network namespace, which lives while the link does."""
    return f"link_{family}_{hook}_{namespace}_{tag}"


def is_link(name: str) -> bool:
    """Whether a pin is a link's."""
    return name.startswith(("link_", "tcx_"))


def is_answer(name: str) -> bool:
    """Whether a pin is about the program that answers on one device."""
    return name.startswith(("tcx_", "clsact_"))


def remove(directory: Path) -> int:
    """Remove a directory with all pins in it; return how many there were. Links go first: nothing decides by half a set of maps."""
    if not directory.is_dir():
        return 0
    pins = sorted(directory.iterdir(), key=lambda pin: (not is_link(pin.name), pin.name))
    for pin in pins:
        pin.unlink(missing_ok=True)
    directory.rmdir()
    for parent in (directory.parent, directory.parent.parent):
        try:
            parent.rmdir()
        except OSError as error:
            if error.errno not in {errno.ENOTEMPTY, errno.ENOENT, errno.EBUSY}:
                raise
    return len(pins)


def mount(bpffs: Path) -> None:
    """Mount the BPF file system if there is none.

    :raises BackendUnavailable: it cannot be mounted
    """
    if is_mounted(bpffs):
        return
    if _libc.mount(b"bpf", os.fsencode(bpffs), b"bpf", 0, b"mode=0700"):
        reason = os.strerror(ctypes.get_errno())
        raise BackendUnavailable(f"no BPF file system at {bpffs}, and it cannot be mounted: {reason}; try: mount -t bpf bpf {bpffs}")


def is_mounted(bpffs: Path) -> bool:
    """Whether there is a BPF file system."""
    buffer = ctypes.create_string_buffer(256)
    return _libc.statfs(os.fsencode(bpffs), buffer) == 0 and int.from_bytes(buffer.raw[:4], sys.byteorder) == _BPF_FS_MAGIC
