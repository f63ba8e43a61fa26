"""`Watcher`: a thread that notices within milliseconds when the switch or its ports change.

Nothing in OVSDB tells that ovs-vswitchd has been started again, and then all flows are gone. What tells is the bridge's
management socket, on which we hold an OpenFlow connection: it ends with the process. By the same connection the switch tells
us of packets.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from collections.abc import Callable
from typing import Final

from polyplane_ovs.openflow import Link, PacketIn

#: Seconds between two looks for a switch that is away.
_LOOK_EVERY: Final = 0.02
#: Seconds between two looks for an ovsdb-server that is away, between two attempts to follow its news, and the longest sleep.
_IDLE: Final = 0.5


class Watcher:
    """Calls ``restarted`` when the switch has been away and is back, ``moved`` when ovsdb-server has news or is back.

    Both are called from the watcher's own thread; they return whether they could do their work, otherwise they are called again
    soon. ``descriptor`` says where news from ovsdb-server arrive, None while it is away. ``told`` gets each packet that the switch
    tells of, and what sends a frame out of a port.
    """

    def __init__(
        self,
        management: str,
        *,
        descriptor: Callable[[], int | None],
        restarted: Callable[[], bool],
        moved: Callable[[], bool],
        told: Callable[[PacketIn, Callable[[int, bytes], None]], None],
    ) -> None:
        self._management: Final = management
        self._descriptor: Final = descriptor
        self._restarted: Final = restarted
        self._moved: Final = moved
        self._told: Final = told
        # sockets, not descriptors: one that is closed refuses to be written to, and never is somebody else's file
        self._woken, self._waker = socket.socketpair()
        self._stopping = False
        self._thread: Final = threading.Thread(target=self._run, name="polyplane-ovs watcher", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Call back no more; may be called from any thread but must not hold what the callbacks wait for."""
        self.abandon()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join()

    def abandon(self) -> None:
        """Stop without waiting."""
        self._stopping = True
        with contextlib.suppress(OSError):
            self._waker.send(b"x")

    def _run(self) -> None:
        link: Link | None = None
        away = behind = False
        try:
            while not self._stopping:
                if link is None:
                    link = Link.open(self._management)
                    if link is None:
                        away = True
                        time.sleep(_LOOK_EVERY)
                        continue
                    link.listen()
                if away:
                    away = not self._restarted()
                descriptor = self._descriptor()
                if descriptor is None or behind:
                    behind = not self._moved()
                    descriptor = self._descriptor()
                waiting = [link.descriptor, self._woken.fileno(), *([] if descriptor is None else [descriptor])]
                try:
                    ready, _, _ = select.select(waiting, [], [], _LOOK_EVERY if away else _IDLE)
                except (OSError, ValueError):
                    continue  # the connection to ovsdb-server was closed meanwhile
                if link.descriptor in ready and not self._read(link):
                    link.close()
                    link, away = None, True
                if descriptor in ready:
                    behind = not self._moved()
        finally:
            if link is not None:
                link.close()
            self._woken.close()
            self._waker.close()

    def _read(self, link: Link) -> bool:
        return link.read(lambda packet: self._told(packet, link.emit))
