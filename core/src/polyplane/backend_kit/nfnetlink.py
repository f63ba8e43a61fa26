"""Words of nfnetlink, by which the kernel's netfilter (nf_tables, ipset, nflog) is spoken to without its tools.

Numbers are those of ``linux/netlink.h`` and ``linux/netfilter/nfnetlink.h``. What the kernel says is read as far as it can be.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

NLMSG_ERROR: Final = 2
NLMSG_DONE: Final = 3
NLM_F_REQUEST: Final = 0x1
NLM_F_ACK: Final = 0x4
NLM_F_DUMP: Final = 0x300
NLM_F_CREATE: Final = 0x400

_NETLINK_NETFILTER: Final = 12
_NESTED: Final = 0x8000
_HEADER: Final = struct.Struct("=IHHII")
#: Family, version, and what the message is about beside its attributes.
_ABOUT: Final = struct.Struct("!BBH")
_ATTRIBUTE: Final = struct.Struct("=HH")


class Message(NamedTuple):
    """One message: its type, the number of what it answers, and what follows the header."""

    kind: int
    number: int
    body: bytes


class Attribute(NamedTuple):
    """One attribute: its type without flags, what it holds, and all of it as it can be sent again."""

    kind: int
    value: bytes
    whole: bytes


def connected(seconds: float = 5.0) -> socket.socket:
    """Return a socket to the netfilter of the thread's network namespace; no answer in so many seconds is an `OSError`."""
    link = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
    link.settimeout(seconds)
    return link


def request(kind: int, flags: int, family: int, *attributes: bytes, resource: int = 0, number: int = 1) -> bytes:
    """Return a message.

    :param kind: its subsystem (upper byte) and type
    :param family: such as ``socket.AF_INET``
    :param resource: what it is about, such as the group of nflog
    :param number: what the answer refers to
    """
    body = _ABOUT.pack(family, 0, resource) + b"".join(attributes)
    return _HEADER.pack(_HEADER.size + len(body), kind, NLM_F_REQUEST | flags, number, 0) + body


def attribute(kind: int, value: bytes, *, nested: bool = False) -> bytes:
    """Return an attribute, padded; ``nested``: it holds attributes."""
    length = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(length, kind | (_NESTED if nested else 0)) + value + bytes(-length % 4)


def string(kind: int, value: str) -> bytes:
    """Return an attribute that holds a name."""
    return attribute(kind, value.encode("ascii") + b"\0")


def messages(data: bytes) -> Iterator[Message]:
    """Yield the messages in what a socket gave."""
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, _, number, _ = _HEADER.unpack_from(data, at)
        if length < _HEADER.size:
            return
        yield Message(kind, number, data[at + _HEADER.size : at + length])
        at += length + -length % 4


def attributes(body: bytes) -> Iterator[Attribute]:
    """Yield the attributes in the body of a message of nfnetlink."""
    at = _ABOUT.size
    while at + _ATTRIBUTE.size <= len(body):
        length, kind = _ATTRIBUTE.unpack_from(body, at)
        if length < _ATTRIBUTE.size:
            return
        whole = body[at : at + length]
        yield Attribute(kind & 0x3FFF, whole[_ATTRIBUTE.size :], whole + bytes(-length % 4))
        at += length + -length % 4


def failure(body: bytes) -> int:
    """Return the errno in the body of an `NLMSG_ERROR`, 0 if it acknowledges."""
    return -int(struct.unpack_from("=i", body)[0])
