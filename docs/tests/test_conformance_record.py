"""The record of what the suite found: whole runs on our backends, in which nothing failed."""

from __future__ import annotations

from pathlib import Path

from polyplane_conformance.matrix import read_reports

ROOT = Path(__file__).parents[2]


def test_whole_runs_are_on_record_and_none_failed() -> None:
    reports = read_reports(ROOT / "docs" / "reference" / "conformance.yaml")
    found = {one["name"]: one for report in reports for one in report["implementations"] if one["distribution"] != "polyplane"}
    assert found.keys() >= {"ebpf", "iptables", "nftables"}
    for one in found.values():
        assert one["secondsByTier"].keys() >= {"netns", "render"}
        profiles = {profile["name"]: profile["result"] for profile in one["profiles"]}
        assert profiles.keys() >= {f"{api}/core" for api in ("AdminNetworkPolicy", "ClusterNetworkPolicy", "NetworkPolicy", "Operation")}
        assert "failure" not in profiles.values()
