"""`Numbers`: which source ports and echo identifiers probes use, so that no probe is taken for part of an earlier conversation.

Conntrack remembers a UDP probe for 30 seconds after its last packet. Left to itself, the kernel picks source ports at random and
so, every few thousand probes, picks one that conntrack still knows: the packet then counts as established, and a dataplane
that lets those pass is blamed for a leak. Therefore numbers are dealt in turn, for all namespaces of a sandbox together
(addresses move between pods), and come back only after 50,000 probes of their kind.
"""

from __future__ import annotations

import errno
import os
import random
import socket
from typing import Final

#: The kernel's own choices lie above: see ``ip_local_port_range`` in `polyplane_conformance.sandbox.wiring`.
FIRST: Final = 10_000
COUNT: Final = 50_000
#: Numbers in a row that somebody else may have before we give up.
_MOST_TAKEN: Final = 200


class Numbers:
    """One turn of numbers for each protocol and IP version; begins anywhere, so that two runs do not use the same ports."""

    def __init__(self) -> None:
        self._last: dict[tuple[int, int], int] = {}

    def take(self, protocol: int, family: int) -> int:
        """Return the next number, from `FIRST` to `FIRST` + `COUNT` - 1."""
        key = (protocol, family)
        last = self._last.get(key)
        number = random.randrange(COUNT) if last is None else (last + 1) % COUNT  # noqa: S311  (no secret)
        self._last[key] = number
        return FIRST + number

    def bind(self, sock: socket.socket, protocol: int, family: int) -> int:
        """Bind a socket to the next number that is free in its namespace; return it.

        :raises OSError: when none of very many is
        """
        for _ in range(_MOST_TAKEN):
            number = self.take(protocol, family)
            try:
                sock.bind(("", number))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
            else:
                return number
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
