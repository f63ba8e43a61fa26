"""The part of the page about much at once."""

from __future__ import annotations

from polyplane_bench.figures import Case, Result
from polyplane_bench.tables import number, size, table


def lines(result: Result, charts_in: str) -> list[str]:
    """Return what is to be said about churn."""
    cases = [figure.case for figure in result.find("agent, memory")]
    policies = size(int(cases[0]["policies"])) if cases else "–"
    return [
        "## Much at once",
        "",
        f"With {policies} policies on 110 pods of the node, whose peers are groups of ten of 1 000 other pods. Seconds of wall-clock time from the first write at the API server until the last is effective on the wire.",
        "Meanwhile the client sends the server a datagram a millisecond, which policies allow throughout: *lost* counts those that did not arrive.",
        "",
        f"![Much at once]({charts_in}/churn-times.svg)",
        "",
        "### A thousand pods restart",
        "",
        "All peers of the policies are deleted and created anew with other addresses, as fast as the server takes them.",
        "",
        *_table(result, cases, "pods restarted", ("written", "time", "applies", "operations", "CPU")),
        "",
        "### 250 policies come at once",
        "",
        *_table(result, cases, "policies at once", ("time", "applies", "operations", "CPU")),
        "",
        "### The agent starts",
        "",
        "First on an empty node, then after `kill -9` while nothing has changed: it reads back what its predecessor left and changes nothing.",
        "Memory is the agent's at the end of all this, with its interpreter.",
        "",
        *_start(result, cases),
    ]


def _table(result: Result, cases: list[Case], what: str, columns: tuple[str, ...]) -> list[str]:
    units = {"written": "writing, s", "time": "in force after, s", "CPU": "agent's CPU, s"}
    rows = [
        (str(case["backend"]), *(_median(result, f"{what}, {column}", case) for column in columns), _lost(result, what, case))
        for case in cases
    ]
    return table(("backend", *(units.get(column, column) for column in columns), "lost of sent"), rows)


def _start(result: Result, cases: list[Case]) -> list[str]:
    columns = (
        "first start, apply",
        "first start, operations",
        "agent restarted, time",
        "agent restarted, apply",
        "agent restarted, operations",
    )
    rows = [
        (
            str(case["backend"]),
            *(_median(result, column, case) for column in columns),
            _lost(result, "agent restarted", case),
            _median(result, "agent, memory", case),
        )
        for case in cases
    ]
    head = ("first apply, s", "operations", "restart to in force, s", "of that apply, s", "operations", "lost of sent", "memory, MiB")
    return table(("backend", *head), rows)


def _median(result: Result, measure: str, case: Case) -> str:
    figure = result.one(measure, **case)
    return number(figure.median) if figure else "–"


def _lost(result: Result, what: str, case: Case) -> str:
    """Say how many were lost in the worst run, of how many."""
    lost, sent = result.one(f"{what}, lost", **case), result.one(f"{what}, sent", **case)
    return f"{number(lost.high)} of {number(sent.high)}" if lost and sent else "–"
