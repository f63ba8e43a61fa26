"""One colour for each layout, in all charts."""

from __future__ import annotations

from typing import Final

COLOURS: Final = {
    "nftables": "#1f77b4",
    "ebpf": "#2ca02c",
    "ovs": "#9467bd",
    "iptables-nft": "#ff7f0e",
    "iptables-legacy": "#d6a05c",
    "none": "#555555",
}
_OTHERS: Final = "#a6a6a6"


def colour(layout: str) -> str:
    """Return a backend's colour; alternatives are all grey."""
    return COLOURS.get(layout, _OTHERS)
