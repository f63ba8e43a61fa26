"""Charts of events on their way to the wire, and of much at once."""

from __future__ import annotations

from typing import Any

from polyplane_bench.figures import Result
from polyplane_bench.palette import colour
from polyplane_bench.tables import size


def wire(result: Result) -> Any:
    """From p50 to p99, by backend: quiet and under load, with many policies there."""
    import matplotlib.pyplot as plt

    figures = list(result.find("event to wire"))
    policies = max(int(figure.case["policies"]) for figure in figures)
    rates = sorted({int(figure.case["rate"]) for figure in figures})
    backends = list(dict.fromkeys(str(figure.case["backend"]) for figure in figures))[::-1]
    kinds = list(dict.fromkeys(str(figure.case["event"]) for figure in figures))
    peers = sorted({int(figure.case["peers"]) for figure in figures})
    canvas, panels = plt.subplots(1, len(rates), figsize=(10.5, 0.85 * len(backends) + 1.4), sharey=True, sharex=True, squeeze=False)
    for axes, rate in zip(panels[0], rates, strict=True):
        for row, backend in enumerate(backends):
            for place, kind in enumerate(kinds):
                every = list(result.find("event to wire", backend=backend, event=kind, rate=rate, policies=policies))
                height = row + 0.27 - 0.18 * place
                low, high = min(one.median for one in every), max(one.p99 for one in every)
                axes.plot([low, high], [height] * 2, "-", color=colour(backend), linewidth=2.5, alpha=0.45, solid_capstyle="round")
                for one in every:
                    axes.plot([one.median], [height], "o", color=colour(backend), markersize=4.5)
                axes.annotate(kind, (high, height), (6, 0), textcoords="offset points", va="center", fontsize=7.5, color="#777777")
        axes.set_title(f"{rate} other events a second" if rate else "nothing else going on")
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.grid(visible=False, axis="y")
        axes.margins(x=0.18)
    panels[0][0].set_yticks(range(len(backends)), backends)
    for label, backend in zip(panels[0][0].get_yticklabels(), backends, strict=True):
        label.set_color(colour(backend))
        label.set_fontweight("bold")
    canvas.suptitle(
        f"From the API server to the wire, ms: medians (dots) for {size(peers[0])} to {size(peers[-1])} peers, to the worst p99; {size(policies)} policies",
        x=0.02,
        ha="left",
    )
    return canvas


def churn(result: Result) -> Any:
    """Seconds that each of the three upheavals takes."""
    import matplotlib.pyplot as plt

    titles = {
        "pods restarted, time": "1 000 pods restart",
        "policies at once, time": "250 policies at once",
        "agent restarted, time": "agent killed and started",
    }
    backends = list(dict.fromkeys(str(figure.case["backend"]) for figure in result.find("agent, memory")))[::-1]
    canvas, panels = plt.subplots(1, 3, figsize=(10.5, 0.42 * len(backends) + 1.2), sharey=True)
    for axes, (measure, title) in zip(panels, titles.items(), strict=True):
        for row, backend in enumerate(backends):
            figure = result.one(measure, backend=backend)
            if figure is not None:
                axes.barh([row], [figure.median], color=colour(backend), height=0.62)
                axes.annotate(f"{figure.median:.2g} s", (figure.median, row), (4, 0), textcoords="offset points", va="center", fontsize=9)
        axes.set_title(title)
        axes.set_yticks(range(len(backends)), backends)
        axes.margins(x=0.2)
        axes.grid(visible=False, axis="y")
    canvas.suptitle("Seconds until everything is in force", x=0.02, ha="left")
    return canvas
