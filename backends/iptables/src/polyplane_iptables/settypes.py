"""`kernel_has`: which types of sets the kernel knows. Asked by netlink: ``ipset`` only says what it knows itself."""

from __future__ import annotations

import errno
import os
import socket
import struct
from typing import Final

#: linux/netlink.h, linux/netfilter/nfnetlink.h and linux/netfilter/ipset/ip_set.h
_NETLINK_NETFILTER: Final = 12
_TYPE_REQUEST: Final = 6 << 8 | 13
_NLM_F_REQUEST: Final = 1
_NLMSG_ERROR: Final = 2
_ATTR_PROTOCOL, _ATTR_TYPENAME, _ATTR_FAMILY = 1, 3, 5
_PROTOCOL: Final = 6
_HEADER: Final = struct.Struct("=LHHLL")
_SECONDS: Final = 5.0


def kernel_has(name: str) -> bool:
    """Whether the kernel knows a type of sets such as ``hash:net``; it loads the module if need be.

    :raises OSError: it does not answer, or not to us (CAP_NET_ADMIN), or knows no sets at all
    """
    attributes = b"".join(
        (
            _attribute(_ATTR_PROTOCOL, bytes([_PROTOCOL])),
            _attribute(_ATTR_TYPENAME, name.encode() + b"\0"),
            _attribute(_ATTR_FAMILY, bytes([socket.AF_INET])),
        )
    )
    body = bytes([socket.AF_INET, 0, 0, 0]) + attributes
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as asking:
        asking.settimeout(_SECONDS)
        asking.send(_HEADER.pack(_HEADER.size + len(body), _TYPE_REQUEST, _NLM_F_REQUEST, 1, 0) + body)
        answer = asking.recv(4096)
    if _HEADER.unpack_from(answer)[1] != _NLMSG_ERROR:
        return True
    code = -struct.unpack_from("=i", answer, _HEADER.size)[0]
    if code in (errno.EPERM, errno.EINVAL):
        # EINVAL: nfnetlink knows no ipset.
        raise OSError(code, os.strerror(code), f"ipset type {name}")
    return False


def _attribute(kind: int, value: bytes) -> bytes:
    length = 4 + len(value)
    return struct.pack("=HH", length, kind) + value + bytes(-length % 4)
