from __future__ import annotations

import sys
from pathlib import Path

import pytest

from polyplane.ir.program import Program
from polyplane_conformance.gaps import GapError, Gaps, behaviours, load_gaps
from polyplane_conformance.scenario import load_scenarios

NAMES = [scenario.name for scenario in load_scenarios()]


def written(folder: Path, text: str) -> Gaps:
    path = folder / "conformance.toml"
    path.write_text(text, encoding="utf-8")
    return load_gaps("memory", path)


def test_a_gap_covers_names_by_pattern_and_tier(tmp_path: Path) -> None:
    gaps = written(tmp_path, '[[gap]]\nscenario = "ports/*sctp*"\ntier = "netns"\nkind = "notyet"\nreason = "r"\n')
    gaps.check(NAMES)
    assert gaps.find("ports/number-sctp", "netns") is not None
    assert gaps.find("ports/number-sctp", "render") is None
    assert gaps.find("ports/number-tcp", "netns") is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('[[gap]]\nscenario = "ports/x"\nkind = "sometime"\nreason = "r"\n', "sometime"),
        ('[[gap]]\nscenario = "ports/x"\nkind = "never"\n', "reason"),
        ('[[gaps]]\nscenario = "ports/x"\n', "gaps"),
        ("[[gap]\n", "conformance.toml"),
    ],
)
def test_an_unusable_file_is_an_error(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(GapError, match=problem):
        written(tmp_path, text)


def test_a_gap_that_names_nothing_is_an_error(tmp_path: Path) -> None:
    gaps = written(tmp_path, '[[gap]]\nscenario = "ports/nobody"\nkind = "never"\nreason = "r"\n')
    with pytest.raises(GapError, match="names no scenario"):
        gaps.check(NAMES)


def test_a_gap_ends_with_the_kernel_it_waits_for(tmp_path: Path) -> None:
    gaps = written(tmp_path, '[[gap]]\nscenario = "ports/*"\nkind = "notyet"\nreason = "r"\nsince_kernel = "2.6"\n')
    with pytest.raises(GapError, match=r"ends with kernel 2\.6"):
        gaps.check(NAMES)


def test_behaviours_have_names_that_a_gap_can_state(tmp_path: Path) -> None:
    assert "behaviour/agent-restart-is-hitless" in behaviours()
    gaps = written(tmp_path, '[[gap]]\nscenario = "behaviour/traffic-reject-answers"\nkind = "notimpl"\nreason = "r"\n')
    gaps.check([*NAMES, *behaviours()])


def test_nftables_states_how_it_can_be_harmed() -> None:
    assert load_gaps("nftables").damage


def test_a_pod_may_cost_more_where_the_backend_says_why(tmp_path: Path) -> None:
    assert written(tmp_path, "").pod_operations == 8
    assert written(tmp_path, "pod_operations = 64\n").pod_operations == 64
    with pytest.raises(GapError, match="pod_operations"):
        written(tmp_path, "pod_operations = 0\n")


def test_commands_may_ask_for_this_interpreter(tmp_path: Path) -> None:
    gaps = written(tmp_path, 'forget = ["{python}", "-V"]\n[[damage]]\nname = "d"\ncommand = ["{python}", "{x}"]\n')
    assert gaps.forget == (sys.executable, "-V")
    assert gaps.damage[0].command == (sys.executable, "{x}")


def test_a_witness_is_asked_about_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "acme_witness.py").write_text(
        "def differences(program, netns):\n    return [f'{netns}: {len(program.endpoints)} endpoints']\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    gaps = written(tmp_path, 'witness = "acme_witness:differences"\n')
    assert gaps.differences(Program(), "/run/netns/n") == ["/run/netns/n: 0 endpoints"]
    assert written(tmp_path, "").differences(Program(), "/run/netns/n") == ()


@pytest.mark.parametrize("witness", ["no_such_module:differences", "json:differences", "json"])
def test_a_witness_that_is_no_function_is_an_error(tmp_path: Path, witness: str) -> None:
    with pytest.raises(GapError, match="witness"):
        written(tmp_path, f'witness = "{witness}"\n').differences(Program(), "/run/netns/n")
