"""`settle`: wait until the switch forwards by its new flows.

Open vSwitch forwards by a cache of recent decisions. After a change of flows its revalidator threads go through the cache, up to
some 25 µs an entry; until then what has been decided goes on being done. ``revalidator/wait`` answers at the end of the next
round. A round that began before our change says nothing, so two are waited for; and since an idle switch begins a round only
every half second, each is provoked.
"""

from __future__ import annotations

import contextlib
import errno
import time
from pathlib import Path
from typing import Any, Final

import ovs.jsonrpc
import ovs.poller
import ovs.stream

from polyplane_ovs.openflow import Link
from polyplane_ovs.options import OvsOptions
from polyplane_ovs.owned import Stage

_ROUNDS: Final = 2
#: Seconds that the question may take to reach the switch before we provoke the round it waits for.
_HEAD_START: Final = 0.002
#: Milliseconds after which a round is provoked again, should the question have come too late for the first; doubles each time.
_AGAIN: Final = 50
#: Seconds after which we go on in any case: the cache holds 200,000 entries at most.
_LONGEST: Final = 5.0


def settle(options: OvsOptions) -> bool:
    """Wait until the flows of our last bundle are what packets meet; False where the switch cannot be asked.

    The sockets lie beside the bridge's. Without them (another user's, or out of a container's sight) the wait is left out.
    """
    control = _control_socket(options)
    link = Link.open(options.management)
    if control is None or link is None:
        if link is not None:
            link.close()
        return False
    error, stream = ovs.stream.Stream.open_block(ovs.stream.Stream.open(f"unix:{control}"), 1000)
    if error:
        link.close()
        return False
    connection = ovs.jsonrpc.Connection(stream)
    try:
        return all(_round(connection, link, options) for _ in range(_ROUNDS))
    finally:
        connection.close()
        link.close()


def _round(connection: Any, link: Link, options: OvsOptions) -> bool:
    message = ovs.jsonrpc.Message.create_request("revalidator/wait", [])
    error = connection.send(message)
    time.sleep(_HEAD_START)
    deadline = time.monotonic() + _LONGEST
    pause = _AGAIN
    reply = None
    while not error and time.monotonic() < deadline:
        link.read()
        link.touch(options.first_table + Stage.SELF)
        provoked = time.monotonic()
        while (left := provoked + pause / 1000 - time.monotonic()) > 0:
            error, reply = connection.recv()
            if error != errno.EAGAIN:
                break
            error = 0
            connection.run()
            poller = ovs.poller.Poller()
            connection.wait(poller)
            connection.recv_wait(poller)
            poller.timer_wait(max(1, int(left * 1000)))
            poller.block()
        if reply is not None:
            return reply.error is None
        pause *= 2
    return False


def _control_socket(options: OvsOptions) -> Path | None:
    """Return the control socket of the ovs-vswitchd that serves our bridge."""
    folder = Path(options.run_dir)
    with contextlib.suppress(OSError, ValueError):
        path = folder / f"ovs-vswitchd.{int((folder / 'ovs-vswitchd.pid').read_text(encoding='ascii'))}.ctl"
        if path.is_socket():
            return path
    return None
