"""The faults of the sabotage run: one wrong line each, in the core and in each of the backends that come with it.

A fault replaces a text that occurs exactly once in its file; when the file has changed so that it does not, the run says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from polyplane_conformance.faults import compiler, ebpf, iptables, nftables, ovs
from polyplane_conformance.faults.fault import Fault

__all__ = ["PARTS", "Fault", "Part"]


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the code with its faults, and how the suite looks for them."""

    name: str
    faults: tuple[Fault, ...]
    tier: str
    backend: str


#: By name, in the order in which they are tried.
PARTS: Final = {
    part.name: part
    for part in (
        Part("compiler", compiler.FAULTS, "model", "memory"),
        Part("nftables", nftables.FAULTS, "netns", "nftables"),
        Part("iptables", iptables.FAULTS, "netns", "iptables"),
        Part("ebpf", ebpf.FAULTS, "netns", "ebpf"),
        Part("ovs", ovs.FAULTS, "netns", "ovs"),
    )
}
