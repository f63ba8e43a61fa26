"""The packets' part of the page."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from polyplane_bench.figures import Case, Figure, Result
from polyplane_bench.tables import number, ratio, size, spread, table

_KINDS: Final = ("UDP", "TCP_RR", "TCP_CRR", "TCP_STREAM")
_WHAT: Final = ("layout", "policies", "pods", "addresses")
#: A packet with a thousand policies on its pod may cost so many times what it costs with one.
FLAT: Final = 1.25

_ALTERNATIVES: Final = (
    "The alternatives are laid out by the benchmark as other enforcers do it:",
    "",
    "- *linear chains*: one chain a policy, and a rule in FORWARD for each;",
    "- *ipsets and chains*: one chain a pod, and in it a rule for each of its policies;",
    "- *queue to a program*: the first packet of a connection goes to a program, which accepts it without looking anything up;",
    "- *conjunctive flows*: a clause each for peers, pod and port.",
    "",
    "They have rules for the pods that policies select and no others, and let established connections pass before any policy, so TCP_RR and TCP_STREAM never meet one there.",
    "polyplane's default looks at every packet of the original direction again, and so cuts what is no longer allowed.",
)


def lines(result: Result, charts_in: str) -> list[str]:
    """Return what is to be said about packets."""
    return [
        "## What a packet costs",
        "",
        "Between two pods of one node; every layout has a node of its own, all are loaded at the same time, and rounds visit them in a new order each.",
        "Cost is CPU time of everything that touches the packet, so that it does not depend on what else the machine does; the first figure of each cell is its ratio to forwarding without any policy.",
        "UDP: nanoseconds a datagram of 18 bytes, one way, every one a first packet; a billion divided by that is datagrams a second and processor. TCP_RR: µs for one byte there and back. TCP_CRR: µs to connect, exchange a byte each and close. TCP_STREAM: seconds for a GiB.",
        "The traffic matches the last policy; each policy admits addresses of its own (from a thousand on they share a thousand groups) to a port of its own.",
        "",
        f"![Cost of a packet by the number of policies]({charts_in}/packets-policies.svg)",
        "",
        "`none`, backends and alternatives on routed pods; Linux forwards:",
        "",
        *_table(result, "routed"),
        "",
        "On a bridge of Open vSwitch, whose userspace datapath forwards; cost is that of the sender and of the switch:",
        "",
        *_table(result, "bridge"),
        "",
        *_ALTERNATIVES,
        "",
        "### A thousand policies on one pod",
        "",
        *_flat(result),
        "",
        "### How many a second",
        "",
        "The same traffic by the clock: one thread plays both ends, and shares the machine with whoever else uses it.",
        "",
        *_rates(result),
    ]


def rows(result: Result, wiring: str) -> Iterator[Case]:
    """Yield the cases of a wiring: nothing first, then by layout, number of policies and where they are."""
    cases = [figure.case for figure in result.find("UDP, CPU", wiring=wiring)]
    order = list(dict.fromkeys(str(case["layout"]) for case in sorted(cases, key=_rank)))
    yield from sorted(
        cases,
        key=lambda case: (
            order.index(str(case["layout"])),
            case["addresses"],
            case["placed"] == "one pod",
            case["policies"],
            case["endpoints"],
        ),
    )


def _rank(case: Case) -> tuple[bool, bool, str]:
    return case["layout"] != "none", " " in str(case["layout"]), str(case["layout"])


def _table(result: Result, wiring: str) -> list[str]:
    written = []
    for case in rows(result, wiring):
        cells = [_cell(result, kind, wiring, case) for kind in _KINDS]
        load = result.one("load", **case)
        written.append((*_what(case), *cells, number(load.median) if load else "–"))
    return table((*_WHAT, *_KINDS, "load, s"), written)


def _rates(result: Result) -> list[str]:
    """Return the same traffic by the clock, both wirings in one table."""
    written = [
        (wiring, *_what(case), *(spread(result.one(f"{kind}, rate", **case)) for kind in _KINDS))
        for wiring in ("routed", "bridge")
        for case in rows(result, wiring)
    ]
    return table(("wiring", *_WHAT, "datagrams/s", "TCP_RR/s", "TCP_CRR/s", "Gbit/s"), written)


def _what(case: Case) -> tuple[str, str, str, str]:
    """Name a case in the columns `_WHAT`."""
    placed = f" {case['placed']}" if int(case["policies"]) > 1 else ""
    addresses = size(int(case["addresses"])) if case["addresses"] else "–"
    return str(case["layout"]), f"{size(int(case['policies']))}{placed}", str(case["endpoints"]), addresses


def _cell(result: Result, kind: str, wiring: str, case: Case) -> str:
    figure, none = result.one(f"{kind}, CPU", **case), result.one(f"{kind}, CPU", layout="none", wiring=wiring)
    if figure is None or none is None:
        return "–"
    return f"**{figure.median / none.median:.2f}** {number(figure.median)} ({number(figure.p25)}–{number(figure.p75)})"


def with_one_policy(result: Result, layout: str, kind: str = "UDP") -> Figure | None:
    """Return the cost with one policy on ten pods."""
    return result.one(f"{kind}, CPU", layout=layout, policies=1, endpoints=10, addresses=0)


def with_many_on_one_pod(result: Result, layout: str, kind: str = "UDP") -> Figure | None:
    """Return the cost with a thousand policies that all select the receiver."""
    return result.one(f"{kind}, CPU", layout=layout, placed="one pod")


def _flat(result: Result) -> list[str]:
    layouts = list(dict.fromkeys(str(figure.case["layout"]) for figure in result.find("UDP, CPU", placed="one pod")))
    written = [
        (layout, *(ratio(with_many_on_one_pod(result, layout, kind), with_one_policy(result, layout, kind)) for kind in _KINDS))
        for layout in layouts
    ]
    says = f"Cost of 1 000 policies that all select the receiver, as a ratio to one policy. Target for nftables, eBPF and Open vSwitch: at most {FLAT}; iptables renders the rules themselves and grows with them."
    return [says, "", *table(("layout", *_KINDS), written)]
