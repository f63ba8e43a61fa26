"""The few figures that the README quotes."""

from __future__ import annotations

from collections.abc import Mapping

from polyplane_bench.figures import Result, median
from polyplane_bench.page_core import Headline
from polyplane_bench.page_packets import with_many_on_one_pod, with_one_policy
from polyplane_bench.settings import BACKENDS
from polyplane_bench.tables import number, ratio, size, table


def lines(results: Mapping[str, Result]) -> list[str]:
    """Return the summary of whatever results there are."""
    parts: list[str] = []
    if "core" in results:
        parts += _core(results["core"])
    head = (
        "packet, 1 policy",
        "packet, 1 000 on its pod",
        "packet, most policies on the node",
        "change, ms",
        "change among 200/s, ms",
        "restart changes",
        "lost",
    )
    if {"packets", "events", "churn"} <= results.keys():
        written = [(backend, *_backend(results, backend)) for backend in BACKENDS]
        parts += ["", *_explained(results), "", *table(("backend", *head), written)]
    return parts


def _core(result: Result) -> list[str]:
    found = Headline.of(result)
    first = f"With {size(found.pods)} pods and {size(found.policies)} policies in the cluster the agent"
    first += f" is ready after **{number(found.cold.median)} s** of CPU, takes **{number(found.peak.median) if found.peak else '–'} MiB** at its peak,"
    first += f" and follows an event in **{number(median(event.median for event in found.events))} ms** of CPU"
    grown = found.grown.values()
    return [
        f"{first} (99th percentile of the dearest, {found.dearest.case['event']}: {number(found.dearest.p99)} ms).",
        *([f"That is {number(median(grown))} times what an event costs with {size(found.smallest)} pods."] if grown else []),
    ]


def _explained(results: Mapping[str, Result]) -> list[str]:
    churn = next(iter(results["churn"].find("agent, memory")))
    load, cores = results["events"].load, results["events"].machine["cores"]
    most = max(int(figure.case["policies"]) for figure in results["events"].find("event to wire"))
    return [
        "*Packet*: CPU of a UDP datagram as a ratio to forwarding it without policies (Open vSwitch: its userspace datapath to itself), which policies of its pod and of others cost.",
        "*Change*: median from the API server to the wire, with nothing else going on and while 200 other objects change a second.",
        f"That is wall-clock time with {size(most)} policies on the node, at a load average of {load[0]:g} to {load[1]:g} on {cores} cores.",
        f"*Restart*: native operations after `kill -9` with {size(int(churn.case['policies']))} policies, and datagrams lost meanwhile.",
    ]


def _backend(results: Mapping[str, Result], backend: str) -> list[str]:
    packets, events, churn = results["packets"], results["events"], results["churn"]
    none = packets.one("UDP, CPU", layout="none", wiring="bridge" if backend == "ovs" else "routed")
    spread = [one for one in packets.find("UDP, CPU", layout=backend, placed="spread", addresses=0) if one.case["policies"]]
    found = [
        with_one_policy(packets, backend),
        with_many_on_one_pod(packets, backend),
        max(spread, key=lambda one: one.case["policies"], default=None),
    ]
    cells = [ratio(figure, none) for figure in found]
    most = max((int(figure.case["policies"]) for figure in events.find("event to wire", backend=backend)), default=0)
    for rate in sorted({int(figure.case["rate"]) for figure in events.find("event to wire")}):
        every = [figure.median for figure in events.find("event to wire", backend=backend, rate=rate, policies=most)]
        cells.append(number(median(every)) if every else "–")
    operations, lost = churn.one("agent restarted, operations", backend=backend), churn.one("agent restarted, lost", backend=backend)
    return [*cells, number(operations.high) if operations else "–", number(lost.high) if lost else "–"]
