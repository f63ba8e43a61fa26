"""What the backend would send to the switch, for people to read in reviews."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from backend_programs import FRONT, address_set, examples, web

from polyplane.ir.program import EMPTY
from polyplane.reconcile.diff import diff
from polyplane_ovs.backend import OvsBackend


@pytest.mark.parametrize("name", sorted(examples()))
def test_golden_whole_programs(name: str, golden: Callable[[str, str], None]) -> None:
    golden(f"{name}.flows", OvsBackend().polyplane_render(diff(EMPTY, examples()[name])))


def test_golden_one_member_more(golden: Callable[[str, str], None]) -> None:
    more = address_set("front", *map(str, FRONT.members), "10.0.0.3")
    golden("delta-one-member.flows", OvsBackend().polyplane_render(diff(web(), web(members=more))))


def test_golden_everything_goes(golden: Callable[[str, str], None]) -> None:
    golden("delta-to-nothing.flows", OvsBackend().polyplane_render(diff(web(), EMPTY)))


def test_nothing_to_do_is_no_text() -> None:
    assert OvsBackend().polyplane_render(diff(web(), web())) == ""
