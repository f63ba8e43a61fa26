"""`Listener`: packets that our rules send to an nflog group, by netlink; `parse_event`: what one of them says. Never waits.

Rules put into the prefix why they log and which way: ``polyplane deny ingress 0badf00d``. Only the headers come with it.
"""

from __future__ import annotations

import contextlib
import errno
import re
import socket
import struct
import weakref
from collections.abc import Iterator
from typing import Final

from polyplane.backend_kit.namespaces import in_namespace
from polyplane.backend_kit.nfnetlink import NLM_F_ACK, NLMSG_ERROR, attribute, attributes, connected, failure, messages, request
from polyplane.backend_kit.packets import read_headers
from polyplane.hookspecs import PacketEvent, PacketEventKind
from polyplane.ir.program import Direction

#: linux/netfilter/nfnetlink.h and linux/netfilter/nfnetlink_log.h
_MSG_PACKET: Final = 4 << 8
_MSG_CONFIG: Final = 4 << 8 | 1
_CFG_CMD, _CFG_MODE, _CFG_TIMEOUT = 1, 2, 4
_CMD_BIND: Final = 1
_COPY_PACKET: Final = 2
_PAYLOAD, _PREFIX = 9, 10
#: Enough for an IPv6 header with some extension headers and the ports.
_HEADERS: Final = 128
_BUFFER: Final = 1 << 20
#: Hundredths of a second for which the kernel collects packets.
_TIMEOUT: Final = 10
#: Events of one call; the kernel drops what does not fit into its buffer.
_MOST: Final = 500
_WORDS: Final = re.compile(r"polyplane (deny|log) (ingress|egress) ([0-9a-f]{8})")


class Listener:
    """A socket that is bound to one group of one network namespace."""

    def __init__(self, netns: str | None, group: int) -> None:
        """Bind.

        :raises OSError: without CAP_NET_ADMIN, or when another program listens to the group (EBUSY)
        """
        self._socket: Final = in_namespace(netns, connected)
        # A backend is not told when it is no longer needed.
        self._end: Final = weakref.finalize(self, self._socket.close)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
            self._configure(group, _CFG_CMD, struct.pack("=B", _CMD_BIND))
            self._configure(group, _CFG_MODE, struct.pack(">LBx", _HEADERS, _COPY_PACKET))
            self._configure(group, _CFG_TIMEOUT, struct.pack(">L", _TIMEOUT))
            self._socket.setblocking(False)  # noqa: FBT003 (the socket's own interface)
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the group."""
        self._end()

    def events(self) -> Iterator[PacketEvent]:
        """Yield what has come, at most 500 events, oldest first."""
        with contextlib.suppress(BlockingIOError):
            for _ in range(_MOST):
                try:
                    data = self._socket.recv(1 << 16)
                except OSError as error:
                    if error.errno == errno.ENOBUFS:
                        # Some were lost, and the kernel says so once.
                        continue
                    raise
                yield from parse_messages(data)

    def _configure(self, group: int, number: int, value: bytes) -> None:
        self._socket.send(request(_MSG_CONFIG, NLM_F_ACK, socket.AF_UNSPEC, attribute(number, value), resource=group))
        answers = (message for data in iter(lambda: self._socket.recv(1 << 16), b"") for message in messages(data))
        if code := next(failure(message.body) for message in answers if message.kind == NLMSG_ERROR):
            raise OSError(code, f"nflog group {group}")


def parse_messages(data: bytes) -> Iterator[PacketEvent]:
    """Yield the events in what the socket gave; whatever is not ours or cannot be read is passed over."""
    for message in messages(data):
        if message.kind == _MSG_PACKET:
            found = {one.kind: one.value for one in attributes(message.body)}
            event = parse_event(found.get(_PREFIX, b""), found.get(_PAYLOAD, b""))
            if event is not None:
                yield event


def parse_event(prefix: bytes, packet: bytes) -> PacketEvent | None:
    """Return what a logged packet says, None if it is not ours or its addresses cannot be read."""
    words = _WORDS.match(prefix.decode("ascii", "replace"))
    headers = read_headers(packet)
    if words is None or headers is None:
        return None
    return PacketEvent(
        kind=PacketEventKind(words[1]),
        rule_id=int(words[3], 16),
        direction=Direction(words[2]),
        source=headers.source,
        destination=headers.destination,
        protocol=headers.protocol,
        source_port=headers.ports[0],
        port=headers.ports[1],
        icmp=headers.icmp,
    )
