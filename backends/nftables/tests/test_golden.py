"""What the backend would send to nft, for people to read in reviews."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from backend_programs import FRONT, examples, web

from polyplane.ir.cidr import Cidr
from polyplane.ir.members import Members
from polyplane.ir.program import EMPTY
from polyplane.reconcile.diff import diff
from polyplane_nftables.backend import NftablesBackend


@pytest.mark.parametrize("name", sorted(examples()))
def test_golden_whole_tables(name: str, golden: Callable[[str, str], None]) -> None:
    golden(f"{name}.nft", NftablesBackend().polyplane_render(diff(EMPTY, examples()[name])))


def test_golden_delta_of_one_member(golden: Callable[[str, str], None]) -> None:
    more = replace(FRONT, members=Members([*FRONT.members, Cidr.parse("10.0.0.3")]))
    golden("delta-one-member.nft", NftablesBackend().polyplane_render(diff(web(), web(members=more))))


def test_golden_delta_to_nothing(golden: Callable[[str, str], None]) -> None:
    golden("delta-to-nothing.nft", NftablesBackend().polyplane_render(diff(web(), EMPTY)))


def test_nothing_to_do_is_no_text() -> None:
    assert NftablesBackend().polyplane_render(diff(web(), web())) == ""
