"""The core's part of the page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

from polyplane_bench.figures import Figure, Result
from polyplane_bench.tables import number, p50_p99, ratio, size, spread, table

#: Figures that other projects have published: other machines, other languages, other definitions.
PUBLISHED: Final = (
    (
        "Antrea's controller",
        "25k namespaces, 100k pods, 75k policies",
        "6 s",
        "1 500–1 700 MB",
        "comments in its networkpolicy_controller_perf_test.go",
    ),
    ("Antrea's controller", "1 namespace, 10k pods, 10k policies that select all of them", "10.7 s", "1 157 MB", "likewise"),
    ("Calico's calculation graph", "1k isolated namespaces", "0.045 s", "10 MB", "pull request 11866"),
    ("Calico's calculation graph", "10k isolated namespaces", "0.39 s", "48 MB", "likewise"),
    ("Calico's calculation graph", "100k isolated namespaces", "6.9 s", "402 MB", "likewise"),
)


@dataclass(frozen=True, slots=True)
class Headline:
    """What there is to say about the largest cluster: cold start, its peak memory, its events, and how each grew from the smallest."""

    pods: int
    policies: int
    smallest: int
    cold: Figure
    peak: Figure | None
    events: tuple[Figure, ...]
    grown: Mapping[str, float]

    @classmethod
    def of(cls, result: Result) -> Self:
        """Pick it from the results of the core."""
        cold = max(result.find("cold start, CPU", local=110), key=lambda figure: (figure.case["pods"], figure.case["policies"]))
        smallest = min(int(figure.case["pods"]) for figure in result.find("cold start, CPU", policies=cold.case["policies"]))
        events = tuple(result.find("event, CPU", **cold.case))
        grown = {
            str(event.case["event"]): event.median / small.median
            for event in events
            if (small := result.one("event, CPU", **{**event.case, "pods": smallest})) and small.median
        }
        peak = result.one("cold start, peak memory", **cold.case)
        return cls(int(cold.case["pods"]), int(cold.case["policies"]), smallest, cold, peak, events, grown)

    @property
    def dearest(self) -> Figure:
        """Return the kind of event with the highest 99th percentile."""
        return max(self.events, key=lambda figure: figure.p99)


def lines(result: Result, charts_in: str) -> list[str]:
    """Return what is to be said about the core."""
    return [
        "## The core at cluster size",
        "",
        "One node's agent without a dataplane: from decoded objects to the first complete program, and from one event to its delta.",
        "The cluster is synthetic and dual-stack; every pod declares two ports; policies are of ten sorts, from denials to egress by blocks.",
        "CPU seconds of one process, one thread; memory is the peak of the whole process with its interpreter and libraries.",
        "",
        f"![Cold start]({charts_in}/core-cold.svg)",
        "",
        *_cold(result),
        "",
        "For comparison what others have published about themselves, on other machines, in other languages, and about other parts of the work:",
        "",
        *table(("program", "cluster", "time", "memory", "source"), PUBLISHED),
        "",
        "### One event",
        "",
        f"![Events]({charts_in}/core-events.svg)",
        "",
        *_events(result),
    ]


def _cases(result: Result) -> list[tuple[int, int, int]]:
    found = [(figure.case["pods"], figure.case["policies"], figure.case["local"]) for figure in result.find("cold start, CPU")]
    return sorted((int(pods), int(policies), int(local)) for pods, policies, local in found)


def _cold(result: Result) -> list[str]:
    rows = []
    for pods, policies, local in _cases(result):
        case = {"pods": pods, "policies": policies, "local": local}
        counted = [result.one(f"in the program: {what}", **case) for what in ("policies", "sets", "set members")]
        rows.append(
            (
                size(pods),
                size(policies),
                str(local),
                spread(result.one("cold start, CPU", **case)),
                spread(result.one("cold start, peak memory", **case)),
                *(number(figure.median) if figure else "–" for figure in counted),
            )
        )
    return table(
        ("pods", "policies", "pods here", "cold start, s CPU", "peak memory, MiB", "policies here", "sets", "addresses in them"), rows
    )


def _events(result: Result) -> list[str]:
    cases = _cases(result)
    policies, local = max((policies, -local) for _, policies, local in cases)
    sizes = sorted({pods for pods, some, here in cases if (some, here) == (policies, -local)})
    kinds = list(dict.fromkeys(str(figure.case["event"]) for figure in result.find("event, CPU")))
    rows = []
    for kind in kinds:
        by_size = [result.one("event, CPU", pods=pods, policies=policies, local=-local, event=kind) for pods in sizes]
        counted = [
            result.one(f"event, {what}", pods=sizes[-1], policies=policies, local=-local, event=kind)
            for what in ("operations", "addresses", "recomputations")
        ]
        rows.append((kind, *map(p50_p99, by_size), ratio(by_size[-1], by_size[0]), *(p50_p99(figure) for figure in counted)))
    every = [f"{size(pods)} pods" for pods in sizes]
    says = [
        f"Milliseconds of CPU from an event to its delta, p50 / p99, with {size(policies)} policies and {-local} pods here.",
        "What the agent does every so often, audits and the reading of counters, is not part of it.",
        f"The ratio is that of the medians of {every[-1]} to {every[0]}.",
        "Operations, addresses added to and removed from sets, and pieces of work of the compiler are p50 / p99 of the largest cluster.",
        "Relabelling a namespace moves the addresses of all its pods, of which a larger cluster has more.",
        "",
    ]
    return says + table(("event", *every, "ratio", "operations", "addresses", "pieces of work"), rows)
