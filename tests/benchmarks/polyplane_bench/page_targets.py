"""What was aimed at, and whether it was met: the first table of the page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from polyplane_bench.figures import Result, median
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
    cold = max(result.find("cold start, CPU", local=110), key=lambda figure: (figure.case["pods"], figure.case["policies"]))
    where = f"{size(int(cold.case['pods']))} pods, {size(int(cold.case['policies']))} policies"
    yield f"cold start, seconds of CPU ({where})", COLD_SECONDS, cold.median
    peak = result.one("cold start, peak memory", **cold.case)
    if peak:
        yield f"cold start, peak memory in MiB ({where})", PEAK_MIB, peak.median
    events = list(result.find("event, CPU", **cold.case))
    worst = max(events, key=lambda figure: figure.p99)
    yield f"an event, 99th percentile in ms of CPU; the dearest kind: {worst.case['event']} ({where})", EVENT_MS, worst.p99
    smallest = min(int(figure.case["pods"]) for figure in result.find("cold start, CPU", policies=cold.case["policies"]))
    grown = {
        str(event.case["event"]): event.median / small.median
        for event in events
        if (small := result.one("event, CPU", **{**event.case, "pods": smallest})) and small.median
    }
    crowd = {kind: ratio for kind, ratio in grown.items() if kind != "namespace relabelled"}
    steepest = max(crowd, key=lambda kind: crowd[kind])
    yield f"an event, median, to a cluster of {size(smallest)} pods; all kinds", GROWTH, median(crowd.values())
    yield f"the same, the kind that grows most: {steepest}", GROWTH, crowd[steepest]
