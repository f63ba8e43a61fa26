"""Charts of the results as SVG, drawn by matplotlib: one look, one colour for each backend, labels where the lines are.

An SVG names the content it was drawn from, so that one can tell without matplotlib whether it is current.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from polyplane_bench import charts_core, charts_events, charts_packets
from polyplane_bench.figures import Result

_DRAWN_FROM: Final = "drawn from "
_CHARTS: Final[Mapping[str, Mapping[str, Callable[[Result], Any]]]] = {
    "core": {"core-cold": charts_core.cold, "core-events": charts_core.events},
    "events": {"events-wire": charts_events.wire},
    "churn": {"churn-times": charts_events.churn},
    "packets": {"packets-policies": charts_packets.policies},
}
#: Text stays text; nothing depends on the time or on chance.
_STYLE: Final[dict[str, Any]] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "polyplane",
    "font.family": "sans-serif",
    "font.sans-serif": ["Helvetica", "Arial", "DejaVu Sans", "sans-serif"],
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#888888",
    "axes.labelcolor": "#333333",
    "axes.titlelocation": "left",
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "figure.titlesize": 12,
    "figure.titleweight": "bold",
    "xtick.color": "#555555",
    "ytick.color": "#555555",
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "figure.facecolor": "white",
    "figure.constrained_layout.use": True,
}


def stale(results: Mapping[str, Result], directory: Path) -> Iterator[Path]:
    """Yield the charts that are not there or were drawn from something else."""
    for result in results.values():
        for name in _CHARTS.get(result.section, {}):
            path = directory / f"{name}.svg"
            if not path.exists() or f"{_DRAWN_FROM}{_digest(result)}" not in path.read_text(encoding="utf-8"):
                yield path


def draw(results: Mapping[str, Result], directory: Path) -> bool:
    """Draw the charts that are stale; return False if matplotlib is not installed and there are some."""
    wanted = set(stale(results, directory))
    if not wanted:
        return True
    if find_spec("matplotlib") is None:
        return False
    import matplotlib as mpl

    mpl.use("svg")
    for result in results.values():
        for name, drawing in _CHARTS.get(result.section, {}).items():
            if (path := directory / f"{name}.svg") in wanted:
                with mpl.rc_context(_STYLE):
                    canvas = drawing(result)
                    if canvas is not None:
                        canvas.savefig(path, metadata={"Date": None, "Description": f"{_DRAWN_FROM}{_digest(result)}"})
    return True


def _digest(result: Result) -> str:
    """Name the content of a result and the code that draws it."""
    code = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("charts*.py")))
    return hashlib.blake2b(repr(result).encode() + code, digest_size=8).hexdigest()
