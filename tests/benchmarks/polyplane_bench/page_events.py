"""The part of the page about events on their way to the kernel."""

from __future__ import annotations

from polyplane_bench.figures import Figure, Result
from polyplane_bench.tables import number, p50_p99, size, table


def lines(result: Result, charts_in: str) -> list[str]:
    """Return what is to be said about events."""
    kinds = list(dict.fromkeys(str(figure.case["event"]) for figure in result.find("event to wire")))
    written = []
    for figure in result.find("agent, CPU"):
        found = [result.one("event to wire", **figure.case, event=kind) for kind in kinds]
        busy = f"{figure.case['rate']} a second" if figure.case["rate"] else "nothing"
        cells = [p50_p99(one) for one in found]
        written.append(
            (_name(figure), size(int(figure.case["policies"])), busy, size(int(figure.case["peers"])), *cells, number(figure.median))
        )
    return [
        "## From an event to the wire",
        "",
        "Milliseconds from the write of an object at the API server of the test kit until the first datagram passes, or the last one has passed; p50 / p99.",
        "A step that finds its effect there before it begins is not reported: its round is measured again.",
        "On the way are the server, the watch, the agent's queue, the pause in which it gathers changes (10 ms, 100 ms while more keep coming), compiler and backend.",
        "*Elsewhere*: what else changes meanwhile, pods that move between groups that policies of this node admit. *Peers*: whom the policy in question admits, the sender among them.",
        "*CPU* is the agent's share of one processor with the commands it starts, the probes' own events included.",
        "",
        f"![From an event to the wire]({charts_in}/events-wire.svg)",
        "",
        *table(("backend", "policies here", "elsewhere", "peers", *kinds, "CPU, %"), written),
        "",
        "What the backend's share of that is, in milliseconds an apply:",
        "",
        *table(
            ("backend", "policies here", "elsewhere", "apply"),
            (
                (
                    _name(each),
                    size(int(each.case["policies"])),
                    f"{each.case['rate']} a second" if each.case["rate"] else "nothing",
                    p50_p99(each),
                )
                for each in result.find("apply")
            ),
        ),
    ]


def _name(figure: Figure) -> str:
    return str(figure.case["backend"])
