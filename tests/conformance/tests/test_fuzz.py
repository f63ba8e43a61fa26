"""The fuzzer with packets: it agrees with a sound backend and finds a planted fault, shrunk to a scenario that shows it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from polyplane_conformance.faults import PARTS
from polyplane_conformance.sabotage import plant
from polyplane_conformance.scenario import read_scenarios

pytestmark = [pytest.mark.netns, pytest.mark.slow]

COMMAND = [sys.executable, "-c", "from polyplane_conformance.cli import main; main()"]


def fuzz(folder: Path, minutes: float, **environment: str) -> tuple[int, str]:
    argv = [*COMMAND, "fuzz", "--backend", "nftables", "--minutes", str(minutes), "--seed", "3", "--first"]
    done = subprocess.run(argv, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, check=False, timeout=500)
    return done.returncode, done.stdout + done.stderr


def test_a_sound_backend_agrees(tmp_path: Path) -> None:
    code, said = fuzz(tmp_path, 0.1)
    assert code == 0, said
    assert "0 disagreements" in said
    assert list(tmp_path.glob("*.yaml")) == []


def test_a_fault_is_found_and_made_small(tmp_path: Path) -> None:
    (fault,) = (one for one in PARTS["nftables"].faults if one.name == "source and destination of peers are swapped")
    broken, here = tmp_path / "broken", tmp_path / "here"
    broken.mkdir()
    here.mkdir()
    plant(fault, broken)
    code, said = fuzz(here, 2, PYTHONPATH=str(broken))
    assert code == 1, said
    (file, *_) = here.glob("*.yaml")
    assert str(file.name) in said
    (scenario,) = read_scenarios(file.read_text(encoding="utf-8"), where=file.name)
    assert len(scenario.steps) == 1
    assert len(scenario.steps[0].actions) == 1
    again = [*COMMAND, "run", "--tier", "netns", "--file", str(file), "--backend", "nftables", "--scenario", "fuzz/*"]
    for environment, expected in (({"PYTHONPATH": str(broken)}, 1), ({}, 0)):
        done = subprocess.run(again, cwd=here, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
        assert done.returncode == expected, done.stdout + done.stderr
