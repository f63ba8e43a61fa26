from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyplane.errors import ConfigError
from polyplane.ir.cidr import Cidr
from polyplane_ovs import fields
from polyplane_ovs.flows import Book, Flow, Key, Value, match_text, write_bundle
from polyplane_ovs.listing import NotUnderstood, parse_flows
from polyplane_ovs.options import OvsOptions
from polyplane_ovs.owned import cookie, is_ours, rule_id_of
from polyplane_ovs.ports import link_local, usable_mac


@given(st.tuples(st.integers(0, 65535), st.integers(0, 65535)).map(sorted), st.integers(0, 65535))
def test_masks_cover_exactly_the_range(ends: list[int], port: int) -> None:
    first, last = ends
    assert sum(port & mask == value for value, mask in fields.masks(first, last)) == (first <= port <= last)
    assert len(list(fields.masks(first, last))) <= 30


def test_addresses_in_registers() -> None:
    assert fields.address(0, Cidr.parse("10.1.0.0/20")) == ["ip", "reg0=0xa010000/0xfffff000"]
    assert fields.address(4, Cidr.parse("0.0.0.0/0")) == ["ip"]
    assert fields.address(4, Cidr.parse("fd00::1")) == ["ipv6", "reg4=0xfd000000", "reg5=0", "reg6=0", "reg7=0x1"]
    assert fields.address(0, Cidr.parse("fd00::/33")) == ["ipv6", "reg0=0xfd000000", "reg1=0/0x80000000"]


def test_cookies() -> None:
    assert is_ours(cookie(7)) and rule_id_of(cookie(7)) == 7
    assert not is_ours(0x5051 << 48)
    assert is_ours(0x5050_FFFF_0000_0000)  # of another generation


def test_a_listing_is_read_back() -> None:
    text = (
        "OFPST_FLOW reply (OF1.5) (xid=0x2):\n"
        " cookie=0x505000010000001f, duration=1.5s, table=14, n_packets=3, n_bytes=180, idle_age=0, priority=40,reg10=0x1,ip actions=drop\n"
        " send_flow_rem reset_counts priority=0 actions=NORMAL\n"
        " actions=learn(table=1,load:0x1->NXM_NX_REG0[]),resubmit(,2)\n"
    )
    first, second, third = parse_flows(text)
    assert first.key == Key(14, 40, "ip,reg10=0x1") and (first.packets, first.bytes) == (3, 180)
    assert second == type(second)(Key(0, 0, ""), Value("NORMAL", 0))
    assert third.key.priority == 32768 and third.value.actions.endswith("resubmit(,2)")
    with pytest.raises(NotUnderstood, match="cannot read the flow"):
        list(parse_flows("ovs-ofctl: hello\n"))


def test_a_match_has_one_spelling() -> None:
    assert match_text(["reg0=1", "ip", "ct_state=+trk"]) == match_text(["ct_state=+trk", "reg0=1", "ip"]) == "ip,ct_state=+trk,reg0=1"


def test_rivals_for_a_flow() -> None:
    book, key = Book(), Key(1, 1, "ip")
    mine, theirs = Value("drop", 1), Value("NORMAL", 2)
    book.put("b", [Flow(key, theirs)])
    book.put("a", [Flow(key, mine)])
    assert book.flows == {key: mine}
    book.put("a", [])
    assert book.flows == {key: theirs}
    book.put("b", [])
    assert book.flows == {} and book.take_changes() == {}


def test_a_bundle_removes_only_what_it_means() -> None:
    key = Key(3, 9, "ip")
    assert write_bundle({key: (Value("drop", cookie(5)), None)}) == (
        "delete_strict table=3,priority=9,cookie=0x5050000000000000/0xffff000000000000,ip\n"
    )
    assert write_bundle({key: (None, Value("drop", 0))}) == "add table=3,priority=9,cookie=0x0,ip,actions=drop\n"


def test_mac_addresses() -> None:
    assert usable_mac("0A:00:00:00:00:01") == "0a:00:00:00:00:01"
    assert [usable_mac(text) for text in (None, "", "01:00:5e:00:00:01", "00:00:00:00:00:00", "a,actions=NORMAL")] == [None] * 5
    assert link_local("0a:00:00:00:01:02") == "fe80::800:ff:fe00:102"


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"brigde": "br0"}, "did you mean bridge"),
        ({"bridge": "br/../x"}, "not the name of a bridge"),
        ({"first_table": 240}, "not a number from 0 to"),
        ({"next_table": 3}, "one of our own tables"),
        ({"zone": 0}, "not a number from 1"),
        ({"service_cidrs": ["10.96.0.0/99"]}, "not an IP address"),
        ({"endpoint_format": "{name}"}, "with {namespace} and {name}"),
        ({"watch": "yes"}, "neither true nor false"),
        ({"run_dir": "here"}, "not an absolute path"),
        ({"uplinks": 3}, "no list of ports"),
    ],
)
def test_options_are_checked(options: dict[str, object], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        OvsOptions.parse(options)


def test_options_from_a_command_line() -> None:
    options = OvsOptions.parse({"service_cidrs": "10.96.0.0/12, fd96::/64", "endpoint_format": "{namespace}_{name}"})
    assert [str(cidr) for cidr in options.service_cidrs] == ["10.96.0.0/12", "fd96::/64"]
    assert options.name_of("shop/web") == "shop_web"
