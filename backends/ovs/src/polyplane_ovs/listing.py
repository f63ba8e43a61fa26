"""`parse_flows`: what ``ovs-ofctl dump-flows`` lists, as the book has it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from polyplane_ovs.flows import Key, Value, match_text

#: What a listing says about a flow that belongs neither to its match nor to its actions.
_ASIDE: Final = frozenset(
    {
        "duration", "idle_age", "hard_age", "idle_timeout", "hard_timeout", "importance", "send_flow_rem", "check_overlap",
        "reset_counts", "no_packet_counts", "no_byte_counts",
    }
)  # fmt: skip
_DEFAULT_PRIORITY: Final = 32768


@dataclass(frozen=True, slots=True)
class Listed:
    """One flow of a listing, with its counters (0 where the listing has none)."""

    key: Key
    value: Value
    packets: int = 0
    bytes: int = 0


class NotUnderstood(ValueError):
    """A listing has a line that is no flow."""


def parse_flows(listing: str) -> Iterator[Listed]:
    """Yield the flows of a listing.

    :raises NotUnderstood: at the first line that is neither a flow nor a heading
    """
    for line in listing.splitlines():
        text = line.strip()
        if not text or text.startswith(("OFPST_FLOW reply", "NXST_FLOW reply")):
            continue
        head, found, actions = text.partition("actions=")
        if not found:
            raise NotUnderstood(f"cannot read the flow {text!r}")
        yield _flow(head, actions)


def _flow(head: str, actions: str) -> Listed:
    table = cookie = packets = size = 0
    priority = _DEFAULT_PRIORITY
    match: list[str] = []
    # flags such as send_flow_rem are followed by a space only
    for token in head.replace(",", " ").split():
        name, _, value = token.partition("=")
        match name:
            case "table":
                table = int(value)
            case "cookie":
                cookie = int(value, 16)
            case "priority":
                priority = int(value)
            case "n_packets":
                packets = int(value)
            case "n_bytes":
                size = int(value)
            case _ if name not in _ASIDE:
                match.append(token)
    return Listed(Key(table, priority, match_text(match)), Value(actions, cookie), packets, size)
