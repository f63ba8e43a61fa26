from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from polyplane_conformance.expectation import Service, print_table, read_lines, read_table
from polyplane_conformance.report import Entry, Report
from polyplane_conformance.results import Outcome

ACTORS = ("x/a", "x/b", "y/a", "outside")


def test_later_lines_win_and_the_rest_is_allowed() -> None:
    cells = read_lines("deny * -> x/*\nallow y/*, outside -> x/a  # both\n", ACTORS)
    assert cells["y/a", "x/a"]
    assert cells["outside", "x/a"]
    assert not cells["x/b", "x/a"]
    assert not cells["y/a", "x/b"]
    assert cells["x/a", "y/a"]
    assert ("x/a", "x/a") not in cells


def test_a_side_can_be_everybody_but() -> None:
    cells = read_lines("deny !x/*,outside -> x/a", ACTORS)
    assert not cells["y/a", "x/a"]
    assert cells["x/b", "x/a"]
    assert cells["outside", "x/a"]


def test_tables_are_read_as_they_are_printed() -> None:
    cells = read_lines("deny x/* -> y/a", ACTORS)
    assert read_table(print_table(cells)) == cells


def test_a_disagreement_says_which_way_it_is_wrong() -> None:
    outcome = Outcome()
    expected = {("x/a", "x/b"): False, ("x/b", "x/a"): True}
    outcome.compare(step=2, service=Service("TCP", 80), family=6, expected=expected, found={("x/a", "x/b"): True}, judge="written")
    leak, loss = sorted(outcome.disagreements, key=lambda one: not one.leak)
    assert outcome.cells == 2
    assert str(leak) == "step 2: TCP/80 over IPv6 from x/a to x/b passes and must not (written)"
    assert str(loss) == "step 2: TCP/80 over IPv6 from x/b to x/a is stopped and must pass (written)"


@pytest.mark.parametrize(("statuses", "code"), [((), 1), (("skipped",), 1), (("passed", "skipped", "gap"), 0), (("passed", "failed"), 1)])
def test_only_a_run_that_checked_something_and_found_nothing_is_good(statuses: tuple[str, ...], code: int, tmp_path: Path) -> None:
    report = Report([Entry(tier="model", backend="memory", name=f"t/{i}", status=status) for i, status in enumerate(statuses)])  # type: ignore[arg-type]  # parametrized with plain strings
    assert report.exit_code == code
    report.write(tmp_path / "report.yaml")
    assert yaml.safe_load((tmp_path / "report.yaml").read_text(encoding="utf-8"))["summary"] == report.summary
