"""Reports of several runs side by side: a matrix in Markdown or HTML for people, JUnit and a summary in YAML for machines."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree as ET

import yaml

Row = tuple[str, ...]

_SIGNS: Final[Mapping[str, str]] = {"success": "yes", "partial": "partly", "failure": "no"}
_STYLE: Final = (
    "body{font-family:sans-serif;margin:2rem}table{border-collapse:collapse;margin:1rem 0}td,th{border:1px solid #999;"
    "padding:.3rem .6rem;text-align:left}.yes{background:#cfc}.partly{background:#ffc}.no{background:#fcc}"
)


class NoReport(ValueError):
    """A file that cannot be read as a report; the message names it and says why."""


def read_reports(path: Path) -> list[Mapping[str, Any]]:
    """Read the reports of a file, YAML or JSON (which is YAML); a summary holds several.

    :raises NoReport: when the file is not there, or holds something else
    """
    try:
        found = list(yaml.load_all(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader))
    except (OSError, yaml.YAMLError) as error:
        raise NoReport(f"{path}: {error}") from error
    if not found or any(not isinstance(data, dict) or data.get("kind") != "ConformanceReport" for data in found):
        raise NoReport(f"{path} is no conformance report; write one with polyplane-conformance run --report FILE")
    return found


def to_summary(reports: Iterable[Mapping[str, Any]]) -> str:
    """Return the reports without their single results, as one stream of YAML documents, which `read_reports` reads."""
    brief = [{key: value for key, value in report.items() if key != "results"} for report in reports]
    return yaml.safe_dump_all(brief, sort_keys=False, allow_unicode=True, width=140, explicit_start=True)


def columns(reports: Iterable[Mapping[str, Any]]) -> list[tuple[str, Mapping[str, Any], Mapping[str, Any]]]:
    """Return every implementation of every report: its title, itself, its report."""
    found = [(one, report) for report in reports for one in report["implementations"]]
    titles = [" ".join(filter(None, (one["name"], one.get("version")))) for one, _ in found]
    several = {title for title in titles if titles.count(title) > 1}
    return [
        (f"{title} ({report['kernel']})" if title in several else title, one, report)
        for title, (one, report) in zip(titles, found, strict=True)
    ]


def tables(reports: Iterable[Mapping[str, Any]]) -> list[tuple[str, list[Row]]]:
    """Return the titled tables of the matrix, each with its header row first."""
    across = columns(reports)
    names = [title for title, _, _ in across]
    by_name = [{profile["name"]: profile for profile in one["profiles"]} for _, one, _ in across]
    every = list(dict.fromkeys(name for found in by_name for name in found))
    rows = [(name, *(_cell(found.get(name)) for found in by_name)) for name in sorted(every)]
    feature_rows: list[Row] = []
    pairs = sorted(
        {
            (name, feature)
            for found in by_name
            for name, profile in found.items()
            for feature in (*profile.get("supportedFeatures", ()), *profile.get("unsupportedFeatures", ()))
        }
    )
    for name, feature in pairs:
        feature_rows.append((f"{name.partition('/')[0]}: {feature}", *(_feature(found.get(name), feature) for found in by_name)))
    tiers = sorted({tier for _, one, _ in across for tier in one["secondsByTier"]})
    times = [(tier, *(str(one["secondsByTier"].get(tier, "")) for _, one, _ in across)) for tier in tiers]
    return [
        ("Profiles", [("profile", *names), *rows]),
        ("Extended features", [("feature", *names), *feature_rows]),
        ("Seconds", [("tier", *names), *times]),
        (
            "Run on",
            [
                ("what", *names),
                *((key, *(str(report[key]) for _, _, report in across)) for key in ("kernel", "polyplane", "suite", "date")),
            ],
        ),
    ]


def exceptions(reports: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return one line for everything that failed or was not asked, with the reason."""
    return [
        f"{title}, {profile['name']}: {test['name']} ({test['tier']}) {verb}: {test['reason']}"
        for title, one, _ in columns(reports)
        for profile in one["profiles"]
        for key, verb in (("failedTests", "failed"), ("skippedTests", "not asked"))
        for test in profile.get(key, ())
    ]


def _cell(profile: Mapping[str, Any] | None) -> str:
    if profile is None:
        return ""
    counts = profile["statistics"]
    return f"{_SIGNS[profile['result']]} ({counts['passed']} of {sum(counts.values())})"


def _feature(profile: Mapping[str, Any] | None, feature: str) -> str:
    if profile is None:
        return ""
    return "yes" if feature in profile.get("supportedFeatures", ()) else "no" if feature in profile.get("unsupportedFeatures", ()) else ""


def to_markdown(reports: Iterable[Mapping[str, Any]], *, level: int = 1) -> str:
    """Return the matrix as Markdown; its title is a heading of this level."""
    given, sharps = list(reports), "#" * level
    parts = [f"{sharps} Conformance\n"]
    for title, (header, *rows) in tables(given):
        if rows:
            lines = [header, tuple("---" for _ in header), *rows]
            text = "\n".join(f"| {' | '.join(map(_plain, line))} |" for line in lines)
            parts.append(f"{sharps}# {title}\n\n{text}\n")
    if lines_of := exceptions(given):
        parts.append(f"{sharps}# Exceptions\n\n" + "\n".join(f"- {line}" for line in lines_of) + "\n")
    return "\n".join(parts)


def _plain(cell: str) -> str:
    return cell.replace("|", "\\|")


def to_html(reports: Iterable[Mapping[str, Any]]) -> str:
    """Return the matrix as one HTML page that needs nothing else."""
    given = list(reports)
    parts = [f"<!doctype html><html lang=en><meta charset=utf-8><title>Conformance</title><style>{_STYLE}</style><h1>Conformance</h1>"]
    for title, (header, *rows) in tables(given):
        if rows:
            head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
            body = "".join(f"<tr><th>{escape(row[0])}</th>{''.join(map(_data, row[1:]))}</tr>" for row in rows)
            parts.append(f"<h2>{escape(title)}</h2><table><tr>{head}</tr>{body}</table>")
    if lines := exceptions(given):
        parts.append("<h2>Exceptions</h2><ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>")
    return "\n".join((*parts, "</html>\n"))


def _data(cell: str) -> str:
    word = cell.partition(" ")[0]
    return f"<td class={word}>{escape(cell)}</td>" if word in _SIGNS.values() else f"<td>{escape(cell)}</td>"


def to_junit(reports: Iterable[Mapping[str, Any]]) -> str:
    """Return all results as JUnit XML: a suite for each tier and backend, a test case for each check."""
    root = ET.Element("testsuites")
    for report in reports:
        groups: dict[str, list[Mapping[str, Any]]] = {}
        for entry in report.get("results", ()):
            groups.setdefault(f"{entry['tier']}.{entry['backend']}", []).append(entry)
        for name, entries in groups.items():
            statuses = [entry["status"] for entry in entries]
            suite = ET.SubElement(root, "testsuite", name=name, tests=str(len(entries)), failures=str(statuses.count("failed")))
            suite.set("skipped", str(statuses.count("skipped") + statuses.count("gap")))
            suite.set("time", f"{sum(entry['seconds'] for entry in entries):.3f}")
            for entry in entries:
                case = ET.SubElement(suite, "testcase", classname=name, name=entry["name"], time=f"{entry['seconds']:.3f}")
                detail = entry.get("detail", "")
                if entry["status"] == "failed":
                    ET.SubElement(case, "failure", message=detail.partition("\n")[0]).text = detail
                elif entry["status"] != "passed":
                    ET.SubElement(case, "skipped", message=detail)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"
