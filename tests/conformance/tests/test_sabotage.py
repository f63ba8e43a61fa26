"""The sabotage run itself takes minutes; here only that every fault still fits the code, and that the hunt finds one."""

from __future__ import annotations

from pathlib import Path

import pytest

from polyplane_conformance.faults import COMPILER, RENDERER, Fault
from polyplane_conformance.sabotage import hunt, plant


@pytest.mark.parametrize("fault", [*COMPILER, *RENDERER], ids=lambda fault: fault.name)
def test_fault_fits_the_code(fault: Fault, tmp_path: Path) -> None:
    plant(fault, tmp_path)
    assert (tmp_path / fault.file).read_text(encoding="utf-8").count(fault.old) in {0, fault.new.count(fault.old)}


def test_a_planted_fault_is_caught(tmp_path: Path) -> None:
    fault = COMPILER[0]
    plant(fault, tmp_path)
    assert hunt(tmp_path, "model", "memory", fault.first) == "test_scenario[peers/not-in-takes-the-unlabelled]"


def test_sound_code_is_not(tmp_path: Path) -> None:
    assert hunt(tmp_path, "model", "memory", "peers/not-in*") is None


def test_both_parts_are_broken_in_ten_ways_and_more() -> None:
    assert len(COMPILER) >= 10
    assert len(RENDERER) >= 10
