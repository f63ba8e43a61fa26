"""`clear`: takes bits out of the marks of all connections of one family, by ctnetlink.

By netlink and not by pyroute2, whose tuples know only the ports of TCP and UDP: here each tuple goes back as it came.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import time
from collections.abc import Iterator
from typing import Final

from polyplane.backend_kit.nfnetlink import (
    NLM_F_ACK,
    NLM_F_DUMP,
    NLMSG_DONE,
    NLMSG_ERROR,
    attribute,
    attributes,
    connected,
    failure,
    messages,
    request,
)
from polyplane.ir.cidr import Family

#: linux/netfilter/nfnetlink.h and linux/netfilter/nfnetlink_conntrack.h
_CT_NEW: Final = 1 << 8
_CT_GET: Final = 1 << 8 | 1
_TUPLE_ORIG, _MARK, _ZONE, _MARK_MASK = 1, 8, 18, 21
_FAMILY: Final = {Family.IPV4: socket.AF_INET, Family.IPV6: socket.AF_INET6}
_AT_ONCE: Final = 64
#: What is found marked a second time was marked by a connection that inherited it meanwhile; more often means that somebody marks on.
_ROUNDS: Final = 10
_PAUSE: Final = 0.1


class MarksStuck(Exception):
    """Connections' marks cannot be cleared; the text says why, with the remedy."""


def clear(family: int, mask: int) -> int:
    """Clear the bits of ``mask`` in the marks of a family's connections, in all zones; return how many had any of them.

    Packets that were under way when it was called are through before it begins, and it ends with a look that found none.

    :raises MarksStuck: the kernel has no ctnetlink or does not let us, or others mark connections as fast
    """
    _let_packets_through()
    total = 0
    try:
        with connected() as link:
            for _ in range(_ROUNDS):
                found = sum(_cleared(link, _FAMILY[Family(family)], mask, 1 << bit) for bit in range(32) if mask >> bit & 1)
                if not found:
                    return total
                total += found
    except OSError as error:
        raise MarksStuck(f"connections' marks cannot be cleared ({error}): modprobe nf_conntrack_netlink, grant CAP_NET_ADMIN") from error
    raise MarksStuck(f"somebody else marks connections with bits of {mask:#x}: choose others")


def _let_packets_through() -> None:
    """Wait until no packet is in a table that has been replaced.

    The kernel lets all packets pass before it ends the closing of a packet socket (packet_release in net/packet/af_packet.c).
    """
    try:
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0).close()
    except PermissionError:
        time.sleep(_PAUSE)  # without CAP_NET_RAW: a packet is in a table for some microseconds


def _cleared(link: socket.socket, family: int, mask: int, bit: int) -> int:
    """Clear the mask in the connections that have one of its bits; return how many those were."""
    nothing = attribute(_MARK, bytes(4)) + attribute(_MARK_MASK, struct.pack(">L", mask))
    marked = list(_marked(link, family, bit))
    for start in range(0, len(marked), _AT_ONCE):
        some = marked[start : start + _AT_ONCE]
        link.send(b"".join(request(_CT_NEW, NLM_F_ACK, family, connection, nothing) for connection in some))
        answers = 0
        while answers < len(some):
            for answer in messages(link.recv(1 << 16)):
                answers += 1
                _check(failure(answer.body), errno.ENOENT)  # it has ended meanwhile
    return len(marked)


def _marked(link: socket.socket, family: int, bit: int) -> Iterator[bytes]:
    """Yield what names each connection whose mark has the bit: tuple and zone."""
    wanted = struct.pack(">L", bit)
    link.send(request(_CT_GET, NLM_F_DUMP, family, attribute(_MARK, wanted), attribute(_MARK_MASK, wanted)))
    while True:
        for message in messages(link.recv(1 << 16)):
            if message.kind == NLMSG_DONE:
                return
            if message.kind == NLMSG_ERROR:
                _check(failure(message.body))
            else:
                yield b"".join(one.whole for one in attributes(message.body) if one.kind in (_TUPLE_ORIG, _ZONE))


def _check(code: int, harmless: int = 0) -> None:
    if code not in (0, harmless):
        raise OSError(code, os.strerror(code))
