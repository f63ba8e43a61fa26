"""`Place`: one network namespace as the prober sees it, with its raw sockets.

Raw sockets get everything of their protocol, questions and answers alike, so one socket per protocol and family serves as
client and as responder. The ICMP sockets also hear every error message, which tells a refusal from a missing route.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from polyplane_conformance import netns
from polyplane_conformance.probe import icmp, sctp, wire
from polyplane_conformance.probe.loop import Loop
from polyplane_conformance.probe.model import ICMP, ICMPV6, SCTP, Outcome
from polyplane_conformance.probe.numbers import Numbers

_FAMILIES: Final = {4: socket.AF_INET, 6: socket.AF_INET6}

# Constants of <linux/in.h>, <linux/in6.h>, <linux/icmp.h> and <linux/icmpv6.h> that Python 3.11 does not name.
_IP_PKTINFO: Final = 8
_SOL_RAW: Final = 255
_ICMP_FILTER: Final = 1
_ICMPV6_FILTER: Final = 1

Ancillary = list[tuple[int, int, bytes]]


class Waiting(NamedTuple):
    """Whom to tell about an answer, which must repeat the nonce of the question: whatever is late or meant for others does not."""

    report: Callable[[Answer], None]
    nonce: int


class Answer(NamedTuple):
    """What an attempt learned: the outcome, who answered, and how it was put."""

    outcome: Outcome
    who: str = ""
    detail: str = ""


def ask_for_destination(sock: socket.socket, family: int) -> None:
    """Have the kernel say, with each datagram, to which of our addresses it was sent."""
    if family == 4:
        sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)


def answer_from(ancillary: Ancillary) -> Ancillary:
    """Turn what `ask_for_destination` brought into what makes the answer leave from that address.

    A host with several addresses would otherwise answer from whichever the route prefers, which no client recognises.
    """
    for level, kind, data in ancillary:
        if (level, kind) == (socket.IPPROTO_IP, _IP_PKTINFO):
            return [(level, kind, bytes(4) + data[8:12] + bytes(4))]
        if (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO):
            return [(level, kind, data[:16] + bytes(4))]
    return []


class Place:
    """A network namespace, entered by descriptor; owns its raw sockets and whatever else was opened through it."""

    def __init__(self, loop: Loop, name: str, path: Path, numbers: Numbers) -> None:
        self.name = name
        self.loop = loop
        self.numbers = numbers
        #: Who waits for an answer or an ICMP error: by protocol, family, and source port, echo identifier or token.
        self.expected: dict[tuple[int, int, int], Waiting] = {}
        #: Who serves an SCTP port (protocol 132) or a protocol without ports (port 0).
        self.served: dict[tuple[int, int], str] = {}
        #: Called when the place is left; servers and flows put their `close` here.
        self.closers: dict[object, Callable[[], None]] = {}
        self._raw: dict[tuple[int, int], socket.socket] = {}
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self.raw(ICMP, 4)
            self.raw(ICMPV6, 6)
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """Close everything that lives here; the kernel then forgets the namespace if nobody else holds it."""
        for close in list(self.closers.values()):
            close()
        for sock in self._raw.values():
            self.loop.forget(sock.fileno())
            sock.close()
        self._raw.clear()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def open(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """Make a socket of this namespace, nonblocking. ``family`` is 4 or 6.

        :raises OSError: when the place has been left, or whatever `socket.socket` raises
        """
        netns.enter(self._descriptor)
        sock = socket.socket(_FAMILIES[family], kind, protocol)
        sock.setblocking(False)  # noqa: FBT003  (the socket module has it so)
        return sock

    def raw(self, protocol: int, family: int) -> socket.socket:
        """Return the raw socket of a protocol; made when first asked for."""
        sock = self._raw.get((protocol, family))
        if sock is None:
            sock = self.open(family, socket.SOCK_RAW, protocol)
            ask_for_destination(sock, family)
            if protocol == ICMP:  # a set bit blocks a type: everything but echo reply and destination unreachable
                sock.setsockopt(_SOL_RAW, _ICMP_FILTER, struct.pack("@I", 0xFFFF_FFFF & ~(1 << 0 | 1 << 3)))
            elif protocol == ICMPV6:
                passing = 1 << 1 | 1 << 129
                sock.setsockopt(ICMPV6, _ICMPV6_FILTER, (~passing & (1 << 256) - 1).to_bytes(32, "little"))
            self._raw[protocol, family] = sock
            self.loop.watch(sock.fileno(), lambda _events: self._read(protocol, family))
        return sock

    def read_errors(self, family: int) -> None:
        """Read the ICMP messages that have arrived, now: a socket's error code often comes before its explanation is read."""
        self._read(ICMP if family == 4 else ICMPV6, family)

    def _read(self, protocol: int, family: int) -> None:
        sock = self._raw[protocol, family]
        with contextlib.suppress(BlockingIOError):
            for _ in range(64):
                data, ancillary, _, sender = sock.recvmsg(4096, 256)
                if family == 4:
                    data = data[(data[0] & 15) * 4 :]
                if protocol in {ICMP, ICMPV6}:
                    self._icmp(family, data, sender[0])
                elif protocol == SCTP:
                    self._sctp(family, data, sender[0], ancillary)
                else:
                    self._other(protocol, family, data, sender[0], ancillary)

    def _tell(self, protocol: int, family: int, key: int, answer: Answer, *, nonce: int | None) -> None:
        """Pass an answer on; nonce None: an error message, which quotes too little of the packet to contain it."""
        waiting = self.expected.get((protocol, family, key))
        if waiting is not None and nonce in {None, waiting.nonce}:
            waiting.report(answer)

    def _icmp(self, family: int, data: bytes, sender: str) -> None:
        message = icmp.decode(family, data, sender)
        if isinstance(message, icmp.EchoReply):
            answer = Answer(Outcome.ALLOWED, "", f"reply from {sender}")
            self._tell(ICMP if family == 4 else ICMPV6, family, message.identifier, answer, nonce=message.nonce)
        elif message is not None:
            outcome = Outcome.REJECTED if message.refused else Outcome.BROKEN
            self._tell(message.protocol, family, message.key, Answer(outcome, "", message.text), nonce=None)

    def _sctp(self, family: int, data: bytes, sender: str, ancillary: Ancillary) -> None:
        packet = sctp.decode(data)
        if packet is None:
            return
        if packet.chunk == sctp.INIT:
            who = self.served.get((SCTP, packet.destination_port))
            reply = sctp.SctpPacket(
                packet.destination_port,
                packet.source_port,
                packet.initiate_tag,
                sctp.ABORT if who is None else sctp.INIT_ACK,
                initiate_tag=1,
                cookie=(who or "").encode(),
            )
            self._reply(SCTP, family, reply.encode(), sender, ancillary)
        elif packet.chunk == sctp.INIT_ACK:
            answer = Answer(Outcome.ALLOWED, packet.cookie.decode("utf-8", "replace"))
            self._tell(SCTP, family, packet.destination_port, answer, nonce=packet.tag)
        elif packet.chunk == sctp.ABORT:
            self._tell(SCTP, family, packet.destination_port, Answer(Outcome.REJECTED, "", "SCTP abort"), nonce=packet.tag)

    def _other(self, protocol: int, family: int, data: bytes, sender: str, ancillary: Ancillary) -> None:
        message = wire.parse_datagram(data)
        if message is None:
            return
        kind, token, text = message
        who = self.served.get((protocol, 0))
        if kind == wire.ASK and who is not None:
            self._reply(protocol, family, wire.datagram(wire.ANSWER, token, who), sender, ancillary)
        elif kind == wire.ANSWER:
            self._tell(protocol, family, token, Answer(Outcome.ALLOWED, text), nonce=token)

    def _reply(self, protocol: int, family: int, data: bytes, to: str, ancillary: Ancillary) -> None:
        # an answer the local firewall refuses or a full buffer drops is a lost packet; the client's next attempt asks again
        with contextlib.suppress(OSError):
            self._raw[protocol, family].sendmsg([data], answer_from(ancillary), 0, (to, 0))
