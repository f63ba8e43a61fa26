"""Profiles as reports show them: from entries to the matrix."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from xml.etree import ElementTree as ET

import pytest

from polyplane_conformance.features import EXTENDED, OPERATION, api_of, features_of
from polyplane_conformance.generate import generate
from polyplane_conformance.matrix import NoReport, exceptions, read_reports, to_html, to_junit, to_markdown, to_summary
from polyplane_conformance.report import Entry, Report
from polyplane_conformance.scenario import load_scenarios

ENTRIES = (
    Entry(tier="model", backend="-", name="union/one", status="passed", api="NetworkPolicy", seconds=1.25),
    Entry(tier="netns", backend="nftables", name="union/one", status="passed", api="NetworkPolicy", seconds=2),
    Entry(tier="netns", backend="nftables", name="ports/range", status="passed", api="NetworkPolicy", features=("port-ranges",)),
    Entry(
        tier="netns",
        backend="nftables",
        name="ports/sctp",
        status="gap",
        api="NetworkPolicy",
        features=("sctp",),
        detail="never: no | SCTP <here>",
    ),
    Entry(tier="netns", backend="nftables", name="corpus/netns-case", status="skipped", api="", detail="nobody asked for it"),
    Entry(tier="netns", backend="nftables", name="behaviour/drift", status="failed", detail="step 1: leaks\nmore"),
)


def written(folder: Path, entries: tuple[Entry, ...] = ENTRIES) -> Path:
    Report(list(entries)).write(folder / "report.yaml")
    return folder / "report.yaml"


def test_profiles_say_what_counts(tmp_path: Path) -> None:
    compiler, backend = read_reports(written(tmp_path))[0]["implementations"]
    assert compiler["distribution"] == "polyplane"
    assert (backend["name"], backend["distribution"]) == ("nftables", "polyplane-nftables")
    assert backend["secondsByTier"] == {"netns": 2.0}
    by_name = {profile["name"]: profile for profile in backend["profiles"]}
    assert {name: profile["result"] for name, profile in by_name.items()} == {
        "NetworkPolicy/core": "success",
        "NetworkPolicy/extended": "partial",
        f"{OPERATION}/core": "failure",
    }
    extended = by_name["NetworkPolicy/extended"]
    assert extended["supportedFeatures"] == ["port-ranges"]
    assert extended["unsupportedFeatures"] == ["sctp"]
    assert extended["skippedTests"] == [{"name": "ports/sctp", "tier": "netns", "reason": "never: no | SCTP <here>"}]
    assert by_name[f"{OPERATION}/core"]["failedTests"][0]["reason"] == "step 1: leaks"


@pytest.mark.parametrize(("status", "result"), [("passed", "success"), ("skipped", "partial"), ("failed", "failure")])
def test_a_core_with_something_left_out_is_partial(status: str, result: str, tmp_path: Path) -> None:
    other = Entry(tier="netns", backend="nftables", name="union/two", status=status, api="NetworkPolicy")  # type: ignore[arg-type]  # parametrized with plain strings
    (backend,) = read_reports(written(tmp_path, (ENTRIES[1], other)))[0]["implementations"]
    assert [profile["result"] for profile in backend["profiles"]] == [result]


def test_the_matrix_shows_reports_side_by_side(tmp_path: Path) -> None:
    (one,) = read_reports(written(tmp_path))
    two = {**one, "kernel": "Linux 99 <other>"}
    text = to_markdown([one, two])
    assert "| NetworkPolicy/extended |  | partly (1 of 2) |  | partly (1 of 2) |" in text
    assert "Linux 99" in text.partition("## Extended")[0]
    assert "| NetworkPolicy: sctp |  | no |  | no |" in text
    assert len(exceptions([one, two])) == 4
    page = to_html([one, two])
    assert "<td class=partly>partly (1 of 2)</td>" in page
    assert "&lt;other&gt;" in page
    assert "<here>" not in page


def test_junit_counts(tmp_path: Path) -> None:
    root = ET.fromstring(to_junit(read_reports(written(tmp_path))))  # noqa: S314 - our own text
    suites = {suite.get("name"): (suite.get("tests"), suite.get("failures"), suite.get("skipped")) for suite in root}
    assert suites == {"model.-": ("1", "0", "0"), "netns.nftables": ("5", "1", "2")}


def test_a_summary_is_as_good_as_the_reports_but_for_single_results(tmp_path: Path) -> None:
    (one,) = read_reports(written(tmp_path))
    reports = [one, {**one, "kernel": "Linux 99 <other>"}]
    (tmp_path / "summary.yaml").write_text(to_summary(reports), encoding="utf-8")
    again = read_reports(tmp_path / "summary.yaml")
    assert to_markdown(again) == to_markdown(reports)
    assert "| netns |  | 2.0 |" in to_markdown(again)
    assert to_markdown(again, level=2).startswith("## Conformance\n\n### Profiles\n")
    assert all("results" not in report for report in again)


def test_what_is_no_report_is_an_error(tmp_path: Path) -> None:
    for text in ("", "[1", "kind: Pod"):
        (tmp_path / "x.yaml").write_text(text, encoding="utf-8")
        with pytest.raises(NoReport, match=r"x\.yaml"):
            read_reports(tmp_path / "x.yaml")


def test_the_command_writes_each_format(tmp_path: Path, conformance: Callable[..., CompletedProcess[str]]) -> None:
    path = written(tmp_path)
    begins = {"md": "# Conformance", "html": "<!doctype html>", "junit": "<?xml", "summary": "---"}
    for form, first in begins.items():
        assert conformance("report", path, "--format", form).stdout.startswith(first)


def test_every_feature_is_known_and_each_is_needed_by_some_scenario() -> None:
    needed = {feature for scenario in (*load_scenarios(), *generate(0)) for feature in features_of(scenario)}
    assert needed == set(EXTENDED)
    assert {api_of(scenario) for scenario in load_scenarios()} >= {"NetworkPolicy", "ClusterNetworkPolicy"}
