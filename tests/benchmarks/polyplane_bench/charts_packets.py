"""The packets' charts."""

from __future__ import annotations

from typing import Any

from polyplane_bench.figures import Result
from polyplane_bench.palette import colour
from polyplane_bench.tables import size


def policies(result: Result) -> Any:
    """Cost of a datagram over the number of policies: spread over pods, and all on the receiver."""
    import matplotlib.pyplot as plt

    canvas, panels = plt.subplots(1, 2, figsize=(10.5, 4.8), sharey=True)
    for axes, placed, title in zip(panels, ("spread", "one pod"), ("spread over the node's pods", "all on the receiver"), strict=True):
        ends = []
        for layout in dict.fromkeys(str(figure.case["layout"]) for figure in result.find("UDP, CPU", wiring="routed")):
            points = _points(result, layout, placed)
            if layout == "none" or len(points) < 2:
                continue
            counts, values = zip(*points, strict=True)
            own = " " not in layout
            axes.plot(
                counts,
                values,
                marker="o",
                color=colour(layout),
                linewidth=2.2 if own else 1.2,
                linestyle="-" if own else "--",
                markersize=5,
            )
            ends.append((values[-1], counts[-1], layout))
        _label(axes, ends)
        axes.axhline(1, color=colour("none"), linewidth=1, linestyle=":")
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_title(title)
        axes.set_xlabel("policies")
        ticks = sorted({count for figure in result.find("UDP, CPU", placed=placed) if (count := int(figure.case["policies"]))} | {1})
        axes.set_xticks(ticks, [size(tick) for tick in ticks])
        axes.minorticks_off()
        axes.set_xlim(0.8, ticks[-1] * 60)
        axes.yaxis.set_major_formatter("{x:g}×")
    top = panels[0].get_ylim()[1]
    panels[0].set_yticks([tick for tick in (1, 2, 5, 10, 20, 50, 100, 200) if tick <= top])
    canvas.suptitle("CPU of a UDP datagram, times that of forwarding without policies", x=0.02, ha="left")
    return canvas


def _points(result: Result, layout: str, placed: str) -> list[tuple[int, float]]:
    """Return the ratio to nothing by number of policies; the largest node for each."""
    none = result.one("UDP, CPU", layout="none", wiring="routed")
    found: dict[int, tuple[int, float]] = {}
    for figure in result.find("UDP, CPU", layout=layout, wiring="routed", addresses=0):
        count = int(figure.case["policies"])
        if none is not None and count and (count == 1 or figure.case["placed"] == placed):
            endpoints = int(figure.case["endpoints"])
            if endpoints >= found.get(count, (0, 0.0))[0]:
                found[count] = endpoints, figure.median / none.median
    return sorted((count, value) for count, (_, value) in found.items())


def _label(axes: Any, ends: list[tuple[float, int, str]]) -> None:
    """Write names at the ends of lines, apart from each other."""
    lowest = 0.0
    for value, count, layout in sorted(ends):
        lowest = max(value, lowest * 1.24)
        axes.annotate(
            layout,
            (count, value),
            xytext=(count * 1.25, lowest),
            color=colour(layout) if " " not in layout else "#777777",
            va="center",
            fontsize=9,
            arrowprops={"arrowstyle": "-", "color": "#d0d0d0", "linewidth": 0.6},
        )
