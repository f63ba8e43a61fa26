"""Profiles of a report, in the manner of the Gateway API: for each API a core that everybody must have, and what is beyond it.

An implementation is conformant to a profile when all of its checks passed; a skipped check of a core makes it partial.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final, Protocol

#: Results of a profile, best first.
RESULTS: Final = ("success", "partial", "failure")


class Check(Protocol):
    """What profiles need to know of one entry of a report."""

    @property
    def api(self) -> str: ...
    @property
    def features(self) -> tuple[str, ...]: ...
    @property
    def tier(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def status(self) -> str: ...
    @property
    def detail(self) -> str: ...
    @property
    def seconds(self) -> float: ...


def profiles(checks: Iterable[Check]) -> list[dict[str, Any]]:
    """Return the profiles of one implementation as plain data, by API, core first; checks about nothing count nowhere."""
    groups: dict[tuple[str, str], list[Check]] = {}
    for check in filter(lambda check: check.api, checks):
        groups.setdefault((check.api, "extended" if check.features else "core"), []).append(check)
    return [_profile(api, level, group) for (api, level), group in sorted(groups.items())]


def _profile(api: str, level: str, checks: list[Check]) -> dict[str, Any]:
    counts = Counter(check.status for check in checks)
    held_back = counts["skipped"] + counts["gap"]
    result = "failure" if counts["failed"] or not counts["passed"] else "partial" if held_back else "success"
    supported = features(checks)
    return {
        "name": f"{api}/{level}",
        "result": result,
        "statistics": {status: counts[status] for status in ("passed", "failed", "gap", "skipped")},
        **({"supportedFeatures": sorted(name for name, yes in supported.items() if yes)} if supported else {}),
        **({"unsupportedFeatures": sorted(name for name, yes in supported.items() if not yes)} if supported else {}),
        **_listed("failedTests", checks, ("failed",)),
        **_listed("skippedTests", checks, ("gap", "skipped")),
    }


def features(checks: Iterable[Check]) -> Mapping[str, bool]:
    """Return every feature that a check was about, and whether all of those checks passed; skipped ones do not count."""
    found: dict[str, bool] = {}
    for check in checks:
        for feature in check.features if check.status != "skipped" else ():
            found[feature] = found.get(feature, True) and check.status == "passed"
    return found


def _listed(key: str, checks: Iterable[Check], statuses: tuple[str, ...]) -> Mapping[str, list[dict[str, str]]]:
    """The checks of these statuses, each with the first line of its reason; nothing if there are none."""
    found = [{"name": check.name, "tier": check.tier, "reason": _reason(check)} for check in checks if check.status in statuses]
    return {key: found} if found else {}


def _reason(check: Check) -> str:
    return next(filter(None, check.detail.removeprefix("Skipped: ").splitlines()), check.status)


def seconds_by_tier(checks: Iterable[Check]) -> dict[str, float]:
    """Return how long each tier took."""
    took: dict[str, float] = {}
    for check in checks:
        took[check.tier] = took.get(check.tier, 0.0) + check.seconds
    return {tier: round(seconds, 1) for tier, seconds in sorted(took.items())}
