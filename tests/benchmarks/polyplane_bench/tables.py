"""Small helpers for Markdown tables of figures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from polyplane_bench.figures import Figure


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a table; the first column is text, the others are numbers."""
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]


def number(value: float) -> str:
    """Write a number with three digits that count."""
    if value == 0:
        return "0"
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}".replace(",", " ")
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"


def spread(figure: Figure | None, unit: str = "") -> str:
    """Write a median and, if it was measured more than once and moved, its quartiles."""
    if figure is None:
        return "–"
    text = f"{number(figure.median)}{f' {unit}' if unit else ''}"
    low, high = number(figure.p25), number(figure.p75)
    return text if figure.n < 2 or low == high else f"{text} ({low}–{high})"


def p50_p99(figure: Figure | None) -> str:
    """Write a median and a 99th percentile."""
    return "–" if figure is None else f"{number(figure.median)} / {number(figure.p99)}"


def ratio(above: Figure | None, below: Figure | None) -> str:
    """Write how many times one median is the other."""
    if above is None or below is None or not below.median:
        return "–"
    return f"{above.median / below.median:.2f}"


def size(count: int) -> str:
    """Write a count as people say it: 10k."""
    return f"{count // 1000}k" if count >= 1000 and count % 1000 == 0 else str(count)
