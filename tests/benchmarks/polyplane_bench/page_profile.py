"""The part of the page about where the time goes."""

from __future__ import annotations

from polyplane_bench.figures import Result
from polyplane_bench.tables import number, table


def lines(result: Result, _charts_in: str) -> list[str]:
    """Return what is to be said about profiles."""
    parts = [
        "## Where the time goes",
        "",
        "What py-spy saw 500 times a second, from outside: which of our functions was running, itself or in a library or system call of its own, and which it was called from.",
        "`make bench SECTIONS=profile` leaves a flame graph of each beside the results, `profile-*.svg`, and the same for [speedscope](https://www.speedscope.app), `profile-*.speedscope.json`; both have every function, and those of libraries.",
        "What waits, for a switch or for a command, is seen little of, but where a thread of its own does nothing else; it is in the seconds.",
    ]
    for what in dict.fromkeys(str(figure.case["what"]) for figure in result.find("samples")):
        wall, own, commands = (result.one(f"{kind}, seconds", what=what) for kind in ("wall", "own", "commands"))
        assert wall is not None
        assert own is not None
        assert commands is not None
        says = f"{number(wall.median)} s by the clock, {number(own.median)} s of CPU, {number(commands.median)} s of the commands it ran."
        rows = []
        for figure in result.find("own share", what=what):
            within = result.one("share with callees", **figure.case)
            rows.append((f"`{figure.case['function']}`", number(figure.median), number(within.median) if within else "–"))
        parts += [
            "",
            f"### {what[0].upper()}{what[1:]}",
            "",
            says,
            "",
            *table(("function", "running, %", "in its callees as well, %"), rows),
        ]
    return parts
