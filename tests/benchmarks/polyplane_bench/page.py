"""The page that shows the results: the same for ``bench/results/report.md`` and for the documentation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from polyplane_bench import page_churn, page_core, page_events, page_packets, page_profile, page_targets
from polyplane_bench.figures import ROOT, Result

#: The results that the documentation shows, and their charts.
PUBLISHED: Final = ROOT / "docs" / "reference" / "performance"

_SECTIONS: Final[Mapping[str, Callable[[Result, str], list[str]]]] = {
    "core": page_core.lines,
    "events": page_events.lines,
    "packets": page_packets.lines,
    "churn": page_churn.lines,
    "profile": page_profile.lines,
}

_HEAD: Final = """\
# Performance

{banner}
What polyplane costs, measured by its own benchmark suite on one machine. Times are of that machine; ratios, counts and shapes should be alike on others, and `make bench` says so or not:

```shell
make bench                                        # all sections, quick
make bench SIZE=full SECTIONS=core,packets        # as below
make bench SECTIONS=packets MEASURE=nftables,ebpf # only these backends
make bench SECTIONS=profile MEASURE=nftables      # flame graphs, and the functions that take most of the time
```

It writes `bench/results/*.json`, charts, and a report like this page.
Where the load average says that others were using the machine as well, trust CPU times, ratios and counts, and read wall-clock times as upper bounds.
Every figure is a median; what stands behind it in parentheses are the quartiles of its samples, where they differ.
"""


def read(directory: Path) -> dict[str, Result]:
    """Read the results of a directory, by section."""
    return {path.stem: Result.read(path) for path in sorted(directory.glob("*.json")) if path.stem in _SECTIONS}


def text(results: Mapping[str, Result], *, charts_in: str, banner: str = "") -> str:
    """Return the page for some results; links to charts begin with ``charts_in``."""
    parts = [_HEAD.format(banner=banner)]
    parts += _machines(results)
    parts += page_targets.lines(results)
    for name, lines in _SECTIONS.items():
        if name in results:
            parts += ["", *lines(results[name], charts_in)]
    return "\n".join(parts) + "\n"


def _machines(results: Mapping[str, Result]) -> list[str]:
    """Say where and when; sections may have been measured at different times."""
    lines = ["## The machine", ""]
    described: dict[str, list[str]] = {}
    for name, result in results.items():
        facts = result.machine
        tools = [str(facts[tool]) for tool in ("nftables", "iptables", "ipset", "openvswitch") if facts.get(tool)]
        text = (
            f"{facts['processor']}, {facts['cores']} cores, {facts['memory_gib']} GiB, Linux {facts['kernel']}, Python {facts['python']}, "
            f"polyplane {facts['polyplane']}; {'; '.join(tools)}."
        )
        described.setdefault(text, []).append(
            f"{name} (size {result.size}, {result.date}, {result.seconds:.0f} s, load average {result.load[0]:g} to {result.load[1]:g})"
        )
    for text, sections in described.items():
        lines.append(f"- {', '.join(sections)}: {text}")
    return lines
