"""How prober and client talk: one JSON object a line over a Unix socket pair, datagrams between probes and servers."""

from __future__ import annotations

import json
import struct
from typing import Any, Final, NamedTuple

Message = dict[str, Any]

_MAGIC: Final = b"PP"
ASK: Final = 1
ANSWER: Final = 2
#: Asks a server to send of its own accord, every ``number`` milliseconds.
PUSH: Final = 3
#: Ends a `PUSH`.
STOP: Final = 4


def encode(message: Message) -> bytes:
    """Return the message as one line."""
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


class Lines:
    """Cuts a byte stream into messages."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[Message]:
        """Add what was read; return the messages that are complete now."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [json.loads(line) for line in lines]


class Order(NamedTuple):
    """A probe as the prober gets it: places and addresses instead of names.

    ``twin`` is the place whose path to the same server no policy touches; its answer proves that the server lives. It asks
    ``twin_address`` and ``twin_port``, which are the probe's own except where no such path leads there.
    """

    place: str
    address: str
    protocol: int
    port: int
    source_port: int
    twin: str
    twin_address: str
    twin_port: int

    @classmethod
    def plain(cls, place: str, address: str, protocol: int) -> Order:
        """Return an order without ports that nobody else need vouch for."""
        return cls(place, address, protocol, 0, 0, place, address, 0)

    def as_twin(self) -> Order:
        """Return the twin's own order."""
        return self._replace(place=self.twin, address=self.twin_address, port=self.twin_port, source_port=0)

    @property
    def family(self) -> int:
        """4 or 6."""
        return 6 if ":" in self.address else 4


def datagram(kind: int, number: int, text: str = "") -> bytes:
    """Return the payload of a UDP or raw probe: what it is, a 32-bit token, and who speaks."""
    return struct.pack("!2sBxI", _MAGIC, kind, number) + text.encode()


def parse_datagram(data: bytes) -> tuple[int, int, str] | None:
    """Return kind, token and text; None when it is nothing of ours."""
    if len(data) < 8 or data[:2] != _MAGIC:
        return None
    _, kind, number = struct.unpack_from("!2sBxI", data)
    return kind, number, data[8:].decode("utf-8", "replace")
