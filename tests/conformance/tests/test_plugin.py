"""The plugin as an outsider uses it: in a run of its own, with backends that are wrong on purpose."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from polyplane_conformance.faults import PARTS
from polyplane_conformance.sabotage import plant

Conformance = Callable[..., subprocess.CompletedProcess[str]]


def run_suite(folder: Path, *arguments: str, **environment: str) -> tuple[int, dict[str, Any], str]:
    report = folder / "report.json"
    argv = [sys.executable, "-m", "pytest", "--pyargs", "polyplane_conformance.suite", "-c", os.devnull, "--rootdir", str(folder)]
    argv += ["-q", "-p", "no:cacheprovider", "--import-mode=importlib", "--polyplane-report", str(report), *arguments]
    done = subprocess.run(argv, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    data = json.loads(report.read_text(encoding="utf-8")) if report.exists() else {}
    return done.returncode, data, done.stdout + done.stderr


def test_one_scenario_by_name(tmp_path: Path) -> None:
    code, report, _ = run_suite(tmp_path, "--polyplane-tier", "model", "--polyplane-scenario", "union/open-to-all")
    assert code == 0
    names = {result["name"] for result in report["results"] if result["status"] == "passed"}
    assert names == {"union/open-to-all"}
    assert report["cells"] > 100


def test_golden_files_are_written_compared_and_missed(tmp_path: Path) -> None:
    golden = tmp_path / "golden"
    golden.mkdir()
    arguments = ("--polyplane-tier", "render", "--polyplane-backend", "memory", "--polyplane-golden", str(golden))
    arguments += ("--polyplane-scenario", "union/open-to-all")
    assert run_suite(tmp_path, *arguments)[0] == 1
    assert run_suite(tmp_path, *arguments, "--polyplane-update-golden")[0] == 0
    assert run_suite(tmp_path, *arguments)[0] == 0
    file = golden / "union" / "open-to-all.txt"
    file.write_text(file.read_text(encoding="utf-8").replace("allow", "deny"), encoding="utf-8")
    code, report, _ = run_suite(tmp_path, *arguments)
    assert code == 1
    assert "rendered now" in next(result["detail"] for result in report["results"] if result["status"] == "failed")


def test_a_gap_that_names_nothing_stops_the_run(tmp_path: Path) -> None:
    gaps = tmp_path / "conformance.toml"
    gaps.write_text('[[gap]]\nscenario = "nowhere/nothing"\nkind = "never"\nreason = "r"\n', encoding="utf-8")
    arguments = ("--polyplane-tier", "render", "--polyplane-backend", "memory", "--polyplane-gaps", str(gaps))
    code, _, said = run_suite(tmp_path, *arguments)
    assert code == 4
    assert "names no scenario" in said


def test_a_corpus_that_is_none_is_an_error(tmp_path: Path) -> None:
    code, _, said = run_suite(tmp_path, "--polyplane-tier", "model", "--polyplane-corpus", str(tmp_path))
    assert code != 0
    assert "holds no corpus" in said


@pytest.mark.parametrize(
    ("arguments", "code"), [(("--scenario", "union/open-to-all"), 0), (("--scenario", "nowhere/*"), 1), (("--backend", "nobody"), 2)]
)
def test_the_command_says_by_its_status_what_it_found(conformance: Conformance, arguments: tuple[str, ...], code: int) -> None:
    done = conformance("run", "--tier", "model", *arguments, PYTEST_ADDOPTS="-v")  # somebody's own habit
    assert done.returncode == code, done.stdout + done.stderr
    if code == 0:
        assert done.stdout.splitlines()[-1].startswith("2 passed, 0 failed")


def test_explain_shows_both_sides(conformance: Conformance) -> None:
    one = conformance("explain", "peers/either-selector", "--from", "z/a", "--to", "x/a").stdout
    oracle, _, program = one.partition("program: deny")
    assert "ingress of x/a: isolated by x/from-b-or-y, and no rule allows it" in oracle
    assert "NetworkPolicy x/from-b-or-y ingress[0]: does not match" in program
    assert "step 1" in conformance("explain", "peers/either-selector").stdout
    assert conformance("explain", "peers/either-selector", "--from", "z/a", "--to", "nobody").returncode == 2


@pytest.mark.netns
@pytest.mark.needs("tcpdump", "nft")
def test_packets_are_recorded_on_request(tmp_path: Path, conformance: Conformance) -> None:
    done = conformance("run", "--tier", "netns", "--backend", "nftables", "--scenario", "union/open-to-all", "--pcap", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "union-open-to-all-nftables.pcap").stat().st_size > 10_000


@pytest.mark.netns
@pytest.mark.needs("nft")
def test_a_failure_ends_with_the_command_that_plays_only_this(tmp_path: Path, conformance: Conformance) -> None:
    (fault,) = (fault for fault in PARTS["nftables"].faults if "range" in fault.name)
    plant(fault, tmp_path)
    arguments = ("--polyplane-tier", "netns", "--polyplane-backend", "nftables:table=other", "--polyplane-source", "kubernetes")
    _, report, _ = run_suite(tmp_path, *arguments, "--polyplane-scenario", "ports/range", PYTHONPATH=str(tmp_path))
    details = [result["detail"] for result in report["results"] if result["status"] == "failed"]
    *_, again = details[0].splitlines()
    assert again.endswith(" --backend nftables --option table=other --source kubernetes")
    told, command, *argv = shlex.split(again)
    assert (told, command) == ("again:", "polyplane-conformance")
    broken, sound = conformance(*argv, PYTHONPATH=str(tmp_path)), conformance(*argv)
    assert (broken.returncode, sound.returncode) == (1, 0), broken.stdout + sound.stdout
    assert again in broken.stdout.splitlines()
    assert sound.stdout.splitlines()[-1] == "1 passed, 0 failed, 0 skipped"


def test_several_processes_find_together_what_one_finds(tmp_path: Path, conformance: Conformance) -> None:
    found = []
    for jobs in (1, 3):
        report = tmp_path / f"{jobs}.json"
        done = conformance("run", "--tier", "model", "--scenario", "union/*", "--jobs", jobs, "--report", report)
        assert done.returncode == 0, done.stdout + done.stderr
        results = json.loads(report.read_text(encoding="utf-8"))["results"]
        found.append(sorted((entry["tier"], entry["name"], entry["status"], entry["cells"]) for entry in results))
    assert found[0] == found[1]
    assert found[0]
