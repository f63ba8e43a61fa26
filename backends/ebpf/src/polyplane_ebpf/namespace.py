"""What there is to know about a network namespace."""

from __future__ import annotations

import socket
from pathlib import Path

from polyplane.backend_kit.namespaces import in_namespace


def interfaces(path: str | None) -> dict[str, int]:
    """Return the interfaces of a namespace: name → number."""
    return {name: number for number, name in in_namespace(path, socket.if_nameindex)}


def identity(path: str | None) -> int:
    """Return the number that tells a namespace from all others while it exists."""
    return Path(path or "/proc/thread-self/ns/net").stat().st_ino
