"""`kernel_has`: which types of sets the kernel knows. Asked by netlink: ``ipset`` only says what it knows itself."""

from __future__ import annotations

import errno
import os
import socket
from typing import Final

from polyplane.backend_kit.nfnetlink import NLMSG_ERROR, attribute, connected, failure, messages, request

#: linux/netfilter/nfnetlink.h and linux/netfilter/ipset/ip_set.h
_TYPE_REQUEST: Final = 6 << 8 | 13
_ATTR_PROTOCOL, _ATTR_TYPENAME, _ATTR_FAMILY = 1, 3, 5
_PROTOCOL: Final = 6


def kernel_has(name: str) -> bool:
    """Whether the kernel knows a type of sets such as ``hash:net``; it loads the module if need be.

    :raises OSError: it does not answer, or not to us (CAP_NET_ADMIN), or knows no sets at all
    """
    asked = (
        attribute(_ATTR_PROTOCOL, bytes([_PROTOCOL])),
        attribute(_ATTR_TYPENAME, name.encode() + b"\0"),
        attribute(_ATTR_FAMILY, bytes([socket.AF_INET])),
    )
    with connected() as link:
        link.send(request(_TYPE_REQUEST, 0, socket.AF_INET, *asked))
        answer = next(messages(link.recv(4096)))
    if answer.kind != NLMSG_ERROR:
        return True
    code = failure(answer.body)
    if code in (errno.EPERM, errno.EINVAL):
        # EINVAL: nfnetlink knows no ipset.
        raise OSError(code, os.strerror(code), f"ipset type {name}")
    return False
