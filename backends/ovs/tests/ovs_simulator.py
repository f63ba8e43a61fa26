"""A switch on paper: what our tables from `Stage.NEAR` on do with a packet of a trusted or a pod's port."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from polyplane.ir.evaluate import Packet
from polyplane.ir.program import ICMP, ICMPV6, PROTOCOLS_WITH_PORTS
from polyplane_ovs import fields
from polyplane_ovs.flows import Key, Value
from polyplane_ovs.owned import Stage, rule_id_of

FULL = 0xFFFF_FFFF


@dataclass
class Seen:
    """What became of the packet, and the rule ids of the flows it met, in order."""

    allowed: bool
    rules: list[int] = field(default_factory=list)
    #: Those of flows that tell the controller.
    told: list[int] = field(default_factory=list)


class Switch:
    def __init__(self, flows: Mapping[Key, Value]) -> None:
        self._tables: dict[int, list[tuple[Key, Value]]] = {}
        for key, value in flows.items():
            self._tables.setdefault(key.table, []).append((key, value))
        for table in self._tables.values():
            table.sort(key=lambda flow: -flow[0].priority)

    def forward(self, packet: Packet) -> Seen:
        """Begin where the original tuple is in its registers; the packet opens a connection and comes from a trusted port."""
        registers = [0] * 16
        for first, address in ((fields.SOURCE, packet.source), (fields.DESTINATION, packet.destination)):
            for word in range(address.bits // 32):
                registers[first + word] = address.address >> (address.bits - 32 * (word + 1)) & FULL
        port = packet.port if packet.protocol in PROTOCOLS_WITH_PORTS else 0
        if packet.protocol in (ICMP, ICMPV6) and packet.icmp is not None:
            port = packet.icmp.type << 8 | (packet.icmp.code or 0)
        registers[fields.KEY] = packet.protocol << 16 | port
        registers[fields.FLAGS] = fields.TRUSTED
        seen = Seen(allowed=False)
        table: int | None = int(Stage.NEAR)
        while table is not None and table < Stage.COMMIT:
            table = self._step(table, packet, registers, seen)
        seen.allowed = table is not None
        return seen

    def _step(self, table: int, packet: Packet, registers: list[int], seen: Seen) -> int | None:
        value = next((value for key, value in self._tables.get(table, ()) if self._matches(key.match, packet, registers)), None)
        if value is None or value.actions == "drop":
            if value is not None:
                seen.rules.append(rule_id_of(value.cookie))
            return None
        seen.rules.append(rule_id_of(value.cookie))
        following = None
        for action in re.split(r",(?![^(]*\))", value.actions):
            if match := re.fullmatch(r"set_field:(\w+)->xreg(\d)", action):
                number, index = int(match[1], 0), int(match[2]) * 2
                registers[index], registers[index + 1] = number >> 32, number & FULL
            elif match := re.fullmatch(r"set_field:(\w+)/(\w+)->reg(\d+)", action):
                number, mask, index = int(match[1], 0), int(match[2], 0), int(match[3])
                registers[index] = registers[index] & ~mask | number
            elif match := re.fullmatch(r"(?:goto_table:|resubmit\(,)(\d+)\)?", action):
                following = int(match[1])
            elif match := re.fullmatch(r"move:(NXM_NX_CT_TP_SRC|OXM_OF_SCTP_SRC)\[\]->NXM_NX_REG15\[0\.\.15\]", action):
                registers[fields.FLAGS] = registers[fields.FLAGS] & ~0xFFFF | packet.source_port
            elif action.startswith("controller("):
                seen.told.append(rule_id_of(value.cookie))
            else:
                raise AssertionError(f"the simulator does not know {action}")
        return following

    @staticmethod
    def _matches(match: str, packet: Packet, registers: list[int]) -> bool:
        v4 = packet.source.family == 4
        protocols = {"tcp": 6, "udp": 17, "sctp": 132}
        for token in filter(None, match.split(",")):
            name, _, value = token.partition("=")
            if name in ("ip", "ipv6"):
                holds = v4 is (name == "ip")
            elif name.rstrip("6") in protocols:
                holds = packet.protocol == protocols[name.rstrip("6")] and v4 is not name.endswith("6")
            elif found := re.fullmatch(r"reg(\d+)", name):
                wanted, _, mask = value.partition("/")
                bits = int(mask, 0) if mask else FULL
                holds = registers[int(found[1])] & bits == int(wanted, 0)
            elif name in ("nw_src", "ipv6_src"):
                holds = packet.source.address_text == value
            elif name in ("nw_dst", "ipv6_dst"):
                holds = packet.destination.address_text == value
            elif name == "ct_state":
                holds = True
            elif name in ("in_port", "dl_dst"):
                holds = False
            else:
                raise AssertionError(f"the simulator does not know {token}")
            if not holds:
                return False
        return True
