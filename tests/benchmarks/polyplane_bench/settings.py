"""What the one who starts a benchmark may choose."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from polyplane_bench.figures import ROOT

#: What can be measured with packets: the backend's name, and its variant if it has some.
BACKENDS: Final = ("nftables", "iptables-nft", "iptables-legacy", "ebpf", "ovs")
RESULTS: Final = ROOT / "bench" / "results"


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
