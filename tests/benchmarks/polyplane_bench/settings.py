"""What the one who starts a benchmark may choose."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from polyplane.hookspecs import BACKENDS as BACKEND_PLUGINS
from polyplane.plugins import list_plugins, load_backend
from polyplane_bench.figures import ROOT
from polyplane_conformance import needs

#: What can be measured with packets: the backend's name, and its variant if it has some.
BACKENDS: Final = ("nftables", "iptables-nft", "iptables-legacy", "ebpf", "ovs")
#: The tools that each needs, for itself or for its sandbox.
_TOOLS: Final = {
    "nftables": ("ip", "nft"),
    "iptables-nft": ("ip", "iptables-nft-restore", "ipset"),
    "iptables-legacy": ("ip", "iptables-legacy-restore", "ipset"),
    "ebpf": ("ip",),
    "ovs": ("ip", "ovs-vswitchd", "ovs-ofctl"),
}
RESULTS: Final = ROOT / "bench" / "results"


def missing(backend: str) -> str:
    """Say what keeps a backend from being measured here; empty if nothing does."""
    if lacking := needs.missing("root", *_TOOLS[backend]):
        return "; ".join(lacking)
    name = backend.partition("-")[0]
    if name not in {plugin.name for plugin in list_plugins(BACKEND_PLUGINS)}:
        return f"the distribution polyplane-{name} is not installed"
    return "; ".join(load_backend(name, {}).capabilities().missing) if name == "ebpf" else ""


class Size(StrEnum):
    """How much to measure."""

    #: Some minutes: enough to see whether something is wrong.
    QUICK = "quick"
    #: What the documentation shows.
    FULL = "full"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Size, backends to measure, and where results go."""

    size: Size = Size.QUICK
    backends: tuple[str, ...] = BACKENDS
    results: Path = RESULTS

    def say(self, text: str) -> None:
        """Tell the one who waits what is going on."""
        sys.stderr.write(f"bench: {text}\n")
        sys.stderr.flush()
