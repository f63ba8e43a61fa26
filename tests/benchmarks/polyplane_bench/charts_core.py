"""The core's charts."""

from __future__ import annotations

from typing import Any, Final

from polyplane_bench.figures import Result
from polyplane_bench.page_targets import EVENT_MS
from polyplane_bench.tables import size

_BLUES: Final = ("#9ecae1", "#4292c6", "#08519c")
_OTHERS: Final = "#999999"
#: Published by others: pods (or namespaces), seconds, whose.
_PUBLISHED: Final = ((100_000, 6.9, "Calico 6.9 s, Antrea 6 s"), (100_000, 6.0, ""), (10_000, 0.39, "Calico"))


def cold(result: Result) -> Any:
    """CPU and memory of a cold start over the size of the cluster."""
    import matplotlib.pyplot as plt

    canvas, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2))
    figures = list(result.find("cold start, CPU", local=110))
    for policies, colour, lift in zip(sorted({int(figure.case["policies"]) for figure in figures}), _BLUES, (-13, -2, 4), strict=False):
        for axes, measure in ((left, "cold start, CPU"), (right, "cold start, peak memory")):
            found = sorted(result.find(measure, policies=policies, local=110), key=lambda figure: figure.case["pods"])
            over, values = [figure.case["pods"] for figure in found], [figure.median for figure in found]
            axes.plot(over, values, "o-", color=colour, linewidth=2)
            axes.annotate(f"{size(policies)} policies", (over[-1], values[-1]), (7, lift), textcoords="offset points", color=colour)
    for pods, seconds, whose in _PUBLISHED:
        left.plot([pods], [seconds], "s", color=_OTHERS, fillstyle="none")
        left.annotate(whose, (pods, seconds), (-7, 4), textcoords="offset points", color=_OTHERS, ha="right", fontsize=9)
    for axes, title in ((left, "Cold start, seconds of CPU"), (right, "Peak memory of the process, MiB")):
        axes.set_xscale("log")
        axes.set_title(title)
        axes.set_xlabel("pods in the cluster")
        axes.margins(x=0.28)
        ticks = sorted({int(figure.case["pods"]) for figure in figures})
        axes.set_xticks(ticks, [size(tick) for tick in ticks])
        axes.minorticks_off()
    left.set_yscale("log")
    left.yaxis.set_major_formatter("{x:g}")
    left.yaxis.set_minor_formatter("")
    right.set_ylim(bottom=0)
    return canvas


def events(result: Result) -> Any:
    """From p50 to p99 of each kind of event, for the smallest and the largest cluster."""
    import matplotlib.pyplot as plt

    figures = list(result.find("event, CPU", local=110))
    policies = max(int(figure.case["policies"]) for figure in figures)
    figures = [figure for figure in figures if figure.case["policies"] == policies]
    sizes = sorted({int(figure.case["pods"]) for figure in figures})
    kinds = list(dict.fromkeys(str(figure.case["event"]) for figure in figures))[::-1]
    canvas, axes = plt.subplots(figsize=(9, 0.36 * len(kinds) + 1.3))
    for pods, colour, shift in ((sizes[0], _BLUES[0], 0.14), (sizes[-1], _BLUES[2], -0.14)):
        for row, kind in enumerate(kinds):
            for figure in (one for one in figures if (one.case["pods"], one.case["event"]) == (pods, kind)):
                axes.plot([figure.median, figure.p99], [row + shift] * 2, "-", color=colour, linewidth=3, solid_capstyle="round")
                axes.plot([figure.median], [row + shift], "o", color=colour, label=f"{size(pods)} pods" if row == 0 else None)
    axes.set_yticks(range(len(kinds)), kinds)
    axes.set_xscale("log")
    axes.axvline(EVENT_MS, color="#cb181d", linewidth=1, linestyle=":")
    axes.annotate("target for p99", (EVENT_MS, len(kinds) - 0.4), (4, 0), textcoords="offset points", color="#cb181d", fontsize=9)
    canvas.suptitle(f"From an event to its delta, ms of CPU: p50 (dot) to p99, {size(policies)} policies", x=0.02, ha="left")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.grid(visible=False, axis="y")
    axes.legend(frameon=False, loc="lower right")
    return canvas
