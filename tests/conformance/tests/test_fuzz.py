"""The fuzzer with packets: it agrees with a sound backend and finds a planted fault, shrunk to a scenario that shows it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from polyplane_conformance.faults import PARTS
from polyplane_conformance.sabotage import plant
from polyplane_conformance.scenario import read_scenarios

pytestmark = [pytest.mark.netns, pytest.mark.slow]

Conformance = Callable[..., CompletedProcess[str]]
FUZZ = ("fuzz", "--backend", "nftables", "--seed", 3, "--first", "--minutes")


def test_a_sound_backend_agrees(tmp_path: Path, conformance: Conformance) -> None:
    done = conformance(*FUZZ, 0.1)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "0 disagreements" in said
    assert list(tmp_path.glob("*.yaml")) == []


def test_a_fault_is_found_and_made_small(tmp_path: Path, conformance: Conformance) -> None:
    (fault,) = (one for one in PARTS["nftables"].faults if one.name == "source and destination of peers are swapped")
    broken, here = tmp_path / "broken", tmp_path / "here"
    broken.mkdir()
    here.mkdir()
    plant(fault, broken)
    done = conformance(*FUZZ, 2, where=here, PYTHONPATH=str(broken))
    said = done.stdout + done.stderr
    assert done.returncode == 1, said
    (file, *_) = here.glob("*.yaml")
    assert str(file.name) in said
    (scenario,) = read_scenarios(file.read_text(encoding="utf-8"), where=file.name)
    assert len(scenario.steps) == 1
    assert len(scenario.steps[0].actions) == 1
    for environment, expected in (({"PYTHONPATH": str(broken)}, 1), ({}, 0)):
        done = conformance("run", "--tier", "netns", "--file", file, "--backend", "nftables", "--scenario", "fuzz/*", **environment)
        assert done.returncode == expected, done.stdout + done.stderr
