"""What the backend would feed to the tools, for people to read in reviews."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from backend_programs import FRONT, examples, web

from polyplane.ir.cidr import Cidr
from polyplane.ir.members import Members
from polyplane.ir.program import EMPTY, DenyAction
from polyplane.reconcile.diff import diff
from polyplane_iptables.backend import IptablesBackend


@pytest.mark.parametrize("name", sorted(examples()))
def test_golden_whole_tables(name: str, golden: Callable[[str, str], None]) -> None:
    golden(f"{name}.txt", IptablesBackend().polyplane_render(diff(EMPTY, examples()[name])))


def test_golden_delta_of_one_member(golden: Callable[[str, str], None]) -> None:
    more = replace(FRONT, members=Members([*FRONT.members, Cidr.parse("10.0.0.3")]))
    golden("delta-one-member.txt", IptablesBackend().polyplane_render(diff(web(), web(members=more))))


def test_golden_delta_to_nothing(golden: Callable[[str, str], None]) -> None:
    golden("delta-to-nothing.txt", IptablesBackend().polyplane_render(diff(web(), EMPTY)))


@pytest.mark.parametrize(("name", "mask"), [("mark", 0xFF000000), ("mark-of-one-bit", 0x4)])
def test_golden_recheck_by_mark(name: str, mask: int, golden: Callable[[str, str], None]) -> None:
    """The first load, a member that goes, and the last option."""
    fewer = web(members=replace(FRONT, members=Members([Cidr.parse("fd00::2")])))
    other = replace(fewer, options=replace(fewer.options, deny_action=DenyAction.REJECT))
    backend = IptablesBackend({"recheck_mark": mask})
    texts = [backend.polyplane_render(diff(one, two)) for one, two in ((EMPTY, web()), (web(), fewer), (fewer, other), (web(), EMPTY))]
    golden(f"{name}.txt", "\n".join(texts))


def test_nothing_to_do_is_no_text() -> None:
    assert IptablesBackend().polyplane_render(diff(web(), web())) == ""
