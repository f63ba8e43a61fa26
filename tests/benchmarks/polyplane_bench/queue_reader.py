"""Decides about every packet of a netfilter queue in Python: accepts it. Speaks nfnetlink itself, in some thirty lines.

An enforcer would look its policies up here; this is the price before it does.
"""

from __future__ import annotations

import socket
import struct
from typing import Final

NUMBER: Final = 100
_NETLINK_NETFILTER: Final = 12
_SUBSYSTEM: Final = 3 << 8
_PACKET, _VERDICT, _CONFIG = _SUBSYSTEM | 0, _SUBSYSTEM | 1, _SUBSYSTEM | 2
_REQUEST: Final = 1
_ACCEPT: Final = 1
#: Attributes: command and parameters of a configuration; header of a packet; header of a verdict.
_COMMAND, _PARAMETERS, _PACKET_HEADER, _VERDICT_HEADER = 1, 2, 1, 2
_BIND, _COPY_PACKET = 1, 2


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def _message(kind: int, payload: bytes) -> bytes:
    body = struct.pack("!BBH", socket.AF_UNSPEC, 0, NUMBER) + payload
    return struct.pack("=IHHII", 16 + len(body), kind, _REQUEST, 0, 0) + body


def main() -> None:
    """Bind to the queue and accept everything, for ever."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as link:
        link.bind((0, 0))
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        link.send(_message(_CONFIG, _attribute(_COMMAND, struct.pack("!BxH", _BIND, socket.AF_INET))))
        link.send(_message(_CONFIG, _attribute(_PARAMETERS, struct.pack("!IB", 128, _COPY_PACKET))))
        while True:
            answer = _verdicts(link.recv(1 << 16))
            if answer:
                link.send(answer)


def _verdicts(data: bytes) -> bytes:
    """Return a verdict for each packet of a datagram of the kernel."""
    answers = b""
    while len(data) >= 16:
        length, kind = struct.unpack_from("=IH", data)
        if kind == _PACKET:
            # netlink header 16, nfnetlink header 4, then attributes; the packet's header is the first
            size, name = struct.unpack_from("=HH", data, 20)
            assert (name & 0x3FFF, size) == (_PACKET_HEADER, 11)
            (identity,) = struct.unpack_from("!I", data, 24)
            answers += _message(_VERDICT, _attribute(_VERDICT_HEADER, struct.pack("!II", _ACCEPT, identity)))
        data = data[(length + 3) & ~3 :]
    return answers


if __name__ == "__main__":
    main()
