"""`Told`: what the switch tells us of packets: answers those that are refused, and keeps events for observers."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from polyplane.backend_kit.packets import read_headers
from polyplane.hookspecs import PacketEvent, PacketEventKind
from polyplane.ir.cidr import Cidr
from polyplane.ir.program import ICMP, ICMPV6, PROTOCOLS_WITH_PORTS, Direction, IcmpType
from polyplane_ovs import fields
from polyplane_ovs.openflow import PacketIn
from polyplane_ovs.options import OvsOptions
from polyplane_ovs.owned import Stage, is_ours, rule_id_of
from polyplane_ovs.refusals import refusal

#: Events that are kept until somebody asks; of more, the oldest are forgotten.
_MOST: Final = 1000
_EGRESS: Final = range(Stage.EGRESS, Stage.EGRESS_BRANCH + 1)
_INGRESS: Final = range(Stage.INGRESS, Stage.INGRESS_BRANCH + 1)
_IPV6: Final = b"\x86\xdd"
_ETHERNET: Final = 14


class Told:
    """Written to by the watcher's thread, read by the agent's."""

    def __init__(self, options: OvsOptions) -> None:
        self._options: Final = options
        self._events: Final[deque[PacketEvent]] = deque(maxlen=_MOST)

    def take(self, packet: PacketIn, emit: Callable[[int, bytes], None]) -> None:
        """Take in one packet; ``emit`` sends a frame out of a port."""
        if not is_ours(packet.cookie):
            return
        flags = packet.registers[fields.FLAGS]
        if flags & fields.REFUSED:
            answer = refusal(packet.data)
            if answer is not None:
                emit(packet.port, answer)
        denied = bool(flags & (fields.REFUSED | fields.DENIED))
        if not denied or self._options.tell_denied:
            event = self._event(packet, PacketEventKind.DENY if denied else PacketEventKind.LOG)
            if event is not None:
                self._events.append(event)

    def events(self) -> tuple[PacketEvent, ...]:
        """Return what has come since the last call, oldest first."""
        return tuple(self._events.popleft() for _ in range(len(self._events)))

    def _event(self, packet: PacketIn, kind: PacketEventKind) -> PacketEvent | None:
        stage = packet.table - self._options.first_table
        if stage not in _EGRESS and stage not in _INGRESS:
            return None
        registers = packet.registers
        family = 6 if packet.data[12:14] == _IPV6 else 4
        source, destination = (_address(registers, first, family) for first in (fields.SOURCE, fields.DESTINATION))
        protocol, key = registers[fields.KEY] >> 16 & 0xFF, registers[fields.KEY] & 0xFFFF
        headers = read_headers(packet.data[_ETHERNET:])
        reply = bool(registers[fields.FLAGS] & fields.REPLY)
        return PacketEvent(
            kind=kind,
            rule_id=rule_id_of(packet.cookie),
            direction=Direction.EGRESS if stage in _EGRESS else Direction.INGRESS,
            source=source,
            destination=destination,
            protocol=protocol,
            # of who opened the connection; only the packet itself has it
            source_port=headers.ports[reply] if headers is not None else 0,
            port=key if protocol in PROTOCOLS_WITH_PORTS else 0,
            icmp=IcmpType(key >> 8, key & 0xFF) if protocol in (ICMP, ICMPV6) else None,
        )


def _address(registers: tuple[int, ...], first: int, family: int) -> Cidr:
    value = 0
    for word in registers[first : first + (1 if family == 4 else 4)]:
        value = value << 32 | word
    return Cidr(family, value, 32 if family == 4 else 128)
