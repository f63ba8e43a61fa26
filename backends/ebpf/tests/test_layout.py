"""Following deltas leads to the same maps as starting anew, and no stage leaves an endpoint with tables that are not its own."""

from __future__ import annotations

from itertools import permutations

import pytest
from backend_programs import IN, endpoint, isolated, with_content_ids
from backend_programs import program as made
from hypothesis import given, settings
from hypothesis import strategies as st
from ir_programs import programs

from polyplane.backend_kit.deltas import whole
from polyplane.ir.cidr import Cidr
from polyplane.ir.program import EMPTY, Program
from polyplane.reconcile.diff import diff
from polyplane_ebpf.encode import EndpointValue, owner_key
from polyplane_ebpf.layout import Layout


@settings(max_examples=50, deadline=None)
@given(st.lists(programs(), min_size=2, max_size=5))
def test_following_equals_starting_anew(sequence: list[Program]) -> None:
    layout = Layout(events=100)
    held: dict[str, dict[bytes, bytes]] = {}
    base = layout.program
    for program in map(with_content_ids, sequence):
        for stage in layout.follow(diff(base, program)):
            for name, puts, deletes in stage.steps():
                entries = held.setdefault(name, {})
                assert all(entries.get(key) != value for key, value in puts.items())
                assert all(key in entries for key in deletes)
                entries.update(puts)
                for key in deletes:
                    del entries[key]
        base = program
        fresh = Layout.of(whole(program), events=100)
        assert layout.content == fresh.content
        assert {name: entries for name, entries in held.items() if entries} == {
            name: entries for name, entries in fresh.content.items() if entries
        }


@pytest.mark.parametrize("names", list(permutations("abc")))
def test_an_interface_of_several_is_nobodys_and_an_address_is_the_first_ones(names: tuple[str, ...]) -> None:
    claims = [endpoint(name, "veth", f"10.0.0.{ord(name)}", "10.0.0.9", ingress=isolated(IN)) for name in names]
    layout, base = Layout(events=100), EMPTY
    for count in (1, 2, 3, 2, 1):
        target = made(*claims[:count])
        layout.follow(diff(base, target))
        base = target
        ids = {one.id: layout.value_of(one).id for one in claims[:count]}
        owners = {key: EndpointValue.unpack(value).id for key, value in layout.content["owners"].items()}
        assert owners[owner_key(Cidr.parse("10.0.0.9"))] == ids[min(ids)]
        assert [owners[owner_key(one.addresses[0])] for one in claims[:count]] == list(ids.values())
        assert len(layout.content["interfaces"]) == (count == 1)
