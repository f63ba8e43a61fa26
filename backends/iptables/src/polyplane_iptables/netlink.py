"""Words of nfnetlink that `settypes` and `connmarks` have in common. Numbers: linux/netlink.h, linux/netfilter/nfnetlink.h."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from typing import Final

_NETLINK_NETFILTER: Final = 12
NLMSG_ERROR: Final = 2
NLMSG_DONE: Final = 3
NLM_F_REQUEST: Final = 1
NLM_F_ACK: Final = 4
NLM_F_DUMP: Final = 0x300
_HEADER: Final = struct.Struct("=LHHLL")
_SECONDS: Final = 5.0


def connected() -> socket.socket:
    """Return a socket to the netfilter of the thread's network namespace; no answer in five seconds is an `OSError`."""
    link = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
    link.settimeout(_SECONDS)
    return link


def request(kind: int, flags: int, family: int, *attributes: bytes) -> bytes:
    """Return a message of nfnetlink; ``kind``: its subsystem and type, ``family``: such as ``socket.AF_INET``."""
    body = bytes([family, 0, 0, 0]) + b"".join(attributes)
    return _HEADER.pack(_HEADER.size + len(body), kind, NLM_F_REQUEST | flags, 1, 0) + body


def attribute(kind: int, value: bytes) -> bytes:
    """Return an attribute, padded."""
    length = 4 + len(value)
    return struct.pack("=HH", length, kind) + value + bytes(-length % 4)


def messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the type and the body of each message in what a socket gave."""
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind = _HEADER.unpack_from(data, at)[:2]
        yield kind, data[at + _HEADER.size : at + length]
        at += length + -length % 4


def attributes(body: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the number of each attribute of a message of nfnetlink, and the whole attribute as it can be sent again."""
    at = 4
    while at + 4 <= len(body):
        length, kind = struct.unpack_from("=HH", body, at)
        yield kind & 0x3FFF, body[at : at + length] + bytes(-length % 4)
        at += length + -length % 4


def failure(body: bytes) -> int:
    """Return the errno in the body of an `NLMSG_ERROR`, 0 in an acknowledgement."""
    return int(-struct.unpack_from("=i", body)[0])
