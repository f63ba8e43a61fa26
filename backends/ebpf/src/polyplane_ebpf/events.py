"""`Events`: read what the program tells about denied, logged and unreadable packets, from its ring buffer. No copies, no helper."""

from __future__ import annotations

import mmap
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Self

from polyplane.hookspecs import PacketEvent, PacketEventKind
from polyplane.ir.cidr import Cidr
from polyplane.ir.program import ICMP, ICMPV6, Direction, IcmpType
from polyplane_ebpf import encode
from polyplane_ebpf.maps import EventKind

#: ``struct event`` of ``program/10_types.h``.
_EVENT: Final = struct.Struct("=QQQ16s16sI2s2s2sBBBB2x")
_BUSY, _DISCARDED = 1 << 31, 1 << 30
_HEADER: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One packet the program had something to say about; ``time`` in seconds of the monotonic clock, ports 0 without ports.

    ``rule_id`` 0: no rule decided (an unreadable packet). ``sender`` and ``receiver`` are the endpoints' numbers, 0 for none.
    """

    time: float
    kind: EventKind
    direction: Direction
    rule_id: int
    sender: int
    receiver: int
    source: Cidr
    destination: Cidr
    protocol: int
    source_port: int
    port: int
    icmp: IcmpType | None

    def told(self) -> PacketEvent:
        """Return it in the words that all dataplanes share."""
        return PacketEvent(
            kind=PacketEventKind[self.kind.name],
            rule_id=self.rule_id,
            direction=self.direction,
            source=self.source,
            destination=self.destination,
            protocol=self.protocol,
            source_port=self.source_port,
            port=self.port,
            icmp=self.icmp,
        )


class Events:
    """The reading end of the ring buffer. There is one for all readers: what one has read, no other sees."""

    def __init__(self, descriptor: int, size: int) -> None:
        """Map the ring buffer whose descriptor this is, and whose data takes ``size`` bytes."""
        page = mmap.PAGESIZE
        self._size: Final = size
        self._read: Final = mmap.mmap(descriptor, page, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        # the data is mapped twice in a row, so that a record that goes over the end is in one piece
        self._written: Final = mmap.mmap(descriptor, page + 2 * size, mmap.MAP_SHARED, mmap.PROT_READ, offset=page)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Unmap."""
        self._read.close()
        self._written.close()

    def pending(self) -> Iterator[Event]:
        """Yield what has been written and not been read; ends when nothing is left."""
        while True:
            at: int = struct.unpack_from("=Q", self._read)[0]
            if at == struct.unpack_from("=Q", self._written)[0]:
                return
            place = mmap.PAGESIZE + at % self._size
            length: int = struct.unpack_from("=I", self._written, place)[0]
            if length & _BUSY:
                return
            content = self._written[place + _HEADER : place + _HEADER + _EVENT.size]
            step = _HEADER + (length & ~_DISCARDED)
            struct.pack_into("=Q", self._read, 0, at + (step + 7) // 8 * 8)
            if not length & _DISCARDED:
                yield decode(content)

    def follow(self, interval: float = 0.1) -> Iterator[Event]:
        """Yield events as they come, for ever."""
        while True:
            yield from self.pending()
            time.sleep(interval)


def decode(content: bytes) -> Event:
    """Read one ``struct event``."""
    moment, sender, receiver, source, destination, rule, source_port, port, icmp, protocol, family, side, kind = _EVENT.unpack(content)
    return Event(
        time=moment / 1e9,
        kind=EventKind(kind),
        direction=Direction.INGRESS if side else Direction.EGRESS,
        rule_id=rule,
        sender=sender,
        receiver=receiver,
        source=encode.address_of(source, family),
        destination=encode.address_of(destination, family),
        protocol=protocol,
        source_port=int.from_bytes(source_port, "big"),
        port=int.from_bytes(port, "big"),
        icmp=IcmpType(icmp[0], icmp[1]) if protocol in (ICMP, ICMPV6) else None,
    )
