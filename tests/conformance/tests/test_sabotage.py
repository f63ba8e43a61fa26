"""The sabotage run itself takes minutes; here that every fault still fits the code, and that the hunt finds one in each part."""

from __future__ import annotations

from pathlib import Path

import pytest

from polyplane.plugins import load_backend
from polyplane_conformance.faults import PARTS, Fault, Part
from polyplane_conformance.sabotage import Catch, hunt, judge, plant, sabotage

FAULTS = [pytest.param(fault, id=f"{part.name}: {fault.name}") for part in PARTS.values() for fault in part.faults]
DATAPLANES = [part for part in PARTS.values() if part.tier == "netns"]
#: Tools without which a backend cannot be tried.
TOOLS = {"nftables": "nft", "iptables": "iptables-restore", "ebpf": "ip", "ovs": "ovs-vswitchd"}


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_fits_the_code(fault: Fault, tmp_path: Path) -> None:
    plant(fault, tmp_path)
    assert (tmp_path / fault.file).read_text(encoding="utf-8").count(fault.old) in {0, fault.new.count(fault.old)}
    compile((tmp_path / fault.file).read_text(encoding="utf-8"), fault.file, "exec")


def test_a_planted_fault_is_caught(tmp_path: Path) -> None:
    fault = PARTS["compiler"].faults[0]
    plant(fault, tmp_path)
    caught = hunt(tmp_path, "model", "memory", fault.first)
    assert caught is not None
    assert caught.name == "peers/not-in-takes-the-unlabelled"
    assert "ingress of x/a: allowed by rule 0 of x/not-b" in caught.detail


def test_sound_code_is_not(tmp_path: Path) -> None:
    assert hunt(tmp_path, "model", "memory", "peers/not-in*") is None


def test_a_failure_that_names_another_rule_does_not_count() -> None:
    fault = Fault("name", "file", "old", "new", "first", "rule 0 of x/door")
    assert judge(fault, None) == "survived"
    assert judge(fault, Catch("ports/range", "ingress of x/a: allowed by rule 0 of x/door")) == ""
    assert "ports/range" in judge(fault, Catch("ports/range", "ingress of x/a: allowed by rule 1 of x/door"))


@pytest.mark.parametrize("part", DATAPLANES, ids=lambda part: part.name)
def test_every_dataplane_is_broken_in_five_ways_that_policies_show(part: Part) -> None:
    assert len([fault for fault in part.faults if fault.says]) >= 5


@pytest.mark.netns
@pytest.mark.slow
@pytest.mark.parametrize("part", [pytest.param(part, id=part.name, marks=pytest.mark.needs(TOOLS[part.name])) for part in DATAPLANES])
def test_a_dataplane_that_forgets_part_of_a_range_is_caught_and_the_rule_named(part: Part) -> None:
    load_backend(part.backend, {})
    (fault,) = (fault for fault in part.faults if "range" in fault.name)
    (trial,) = sabotage(part, [fault])
    assert not trial.problem
    assert fault.says
