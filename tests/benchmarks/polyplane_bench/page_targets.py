"""What was aimed at, and whether it was met: the first table of the page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from polyplane_bench.figures import Result, median
from polyplane_bench.page_core import Headline
from polyplane_bench.page_packets import FLAT, with_many_on_one_pod, with_one_policy
from polyplane_bench.tables import number, size, table

#: At 100,000 pods and 10,000 policies.
COLD_SECONDS = 10
PEAK_MIB = 400
EVENT_MS = 5
#: An event at 100,000 pods may cost so many times what it costs at 1,000.
GROWTH = 2

_REASONS = (
    "The dearest event is the one that brings a policy into force here whose peers nobody had asked for before:",
    "its set is resolved for the first time, and costs what its members cost, some microseconds each (profile: `PeerSets.acquire`).",
    "CPU time on a machine that others use as well is up to two or three times that of a quiet one, since they empty its caches.",
)


def lines(results: Mapping[str, Result]) -> list[str]:
    """Return the table of targets."""
    rows = [(what, f"≤ {number(target)}", number(found), "yes" if found <= target else "**no**") for what, target, found in _rows(results)]
    if not rows:
        return []
    return ["", "## Targets", "", *table(("what", "target", "measured", "met"), rows), "", *_REASONS]


def _rows(results: Mapping[str, Result]) -> Iterator[tuple[str, float, float]]:
    if "core" in results:
        yield from _core(results["core"])
    if "packets" in results:
        for backend in ("nftables", "ebpf", "ovs"):
            one, many = with_one_policy(results["packets"], backend), with_many_on_one_pod(results["packets"], backend)
            if one and many:
                yield f"{backend}: a datagram with 1 000 policies on its pod, to one policy", FLAT, many.median / one.median
    if "churn" in results:
        found = list(results["churn"].find("agent restarted, operations"))
        yield "native operations of a restart without changes, any backend", 0, max(figure.high for figure in found)
        yield (
            "datagrams lost while the agent is killed and started",
            0,
            max(one.high for one in results["churn"].find("agent restarted, lost")),
        )


def _core(result: Result) -> Iterator[tuple[str, float, float]]:
    found = Headline.of(result)
    where = f"{size(found.pods)} pods, {size(found.policies)} policies"
    yield f"cold start, seconds of CPU ({where})", COLD_SECONDS, found.cold.median
    if found.peak:
        yield f"cold start, peak memory in MiB ({where})", PEAK_MIB, found.peak.median
    yield f"an event, 99th percentile in ms of CPU; the dearest kind: {found.dearest.case['event']} ({where})", EVENT_MS, found.dearest.p99
    # A larger cluster has more pods in a namespace, whose addresses all move.
    crowd = {kind: ratio for kind, ratio in found.grown.items() if kind != "namespace relabelled"}
    if crowd:
        steepest = max(crowd, key=lambda kind: crowd[kind])
        yield f"an event, median, to a cluster of {size(found.smallest)} pods; all kinds", GROWTH, median(found.grown.values())
        yield f"the same, the kind that grows most but for a namespace relabelled: {steepest}", GROWTH, crowd[steepest]
