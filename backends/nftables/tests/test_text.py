"""Names, options, listings and batches: what stands in text."""

from __future__ import annotations

import pytest
from backend_programs import examples, program
from hypothesis import given
from hypothesis import strategies as st

from polyplane.backend_kit.labels import is_usable_interface, plain
from polyplane.errors import ConfigError
from polyplane_nftables.backend import NftablesBackend
from polyplane_nftables.batch import write_batch, write_whole
from polyplane_nftables.kernel import NftError
from polyplane_nftables.layout import Layout
from polyplane_nftables.listing import NotUnderstood, parse_counters, parse_listing
from polyplane_nftables.native import Chain, Changes, Kind, Native, Rule, difference
from polyplane_nftables.options import NftablesOptions
from polyplane_nftables.owned import rule_id_of


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tabel": "x"}, "tabel: there is no such option; did you mean table"),
        ({"zzz": 1}, "there are table, netns"),
        ({"table": "a b"}, "no usable name"),
        ({"table": 7}, "no usable name"),
        ({"netns": "x"}, "no absolute path"),
        ({"log_group": True}, "log_group"),
        ({"log_group": 70000}, "log_group"),
        ({"priority": "filter"}, "priority"),
    ],
)
def test_wrong_options_are_explained(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        NftablesBackend(options)


def test_right_options_are_taken() -> None:
    parsed = NftablesOptions.parse({"table": "mine", "netns": "/run/netns/x", "log_group": 5, "priority": -10})
    assert (parsed.table, parsed.netns, parsed.log_group, parsed.priority) == ("mine", "/run/netns/x", 5, -10)
    assert NftablesOptions.parse({}) == NftablesOptions()


@pytest.mark.parametrize("name", ["", "a" * 16, "eth*", 'a"b', "a b", "a\nb", ".", "..", "a;b", "a{", "é"])
def test_interface_names_that_text_could_misread_are_not_used(name: str) -> None:
    assert not is_usable_interface(name)


@pytest.mark.parametrize("name", ["eth0", "pp-x_a", "cali12345678@if", "a.100", "veth:1"])
def test_usual_interface_names_are_used(name: str) -> None:
    assert is_usable_interface(name)


@given(st.text())
def test_comments_hold_nothing_but_harmless_characters(text: str) -> None:
    assert len(plain(text)) <= 96
    assert set(plain(text)) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-/")


def test_only_our_counting_chains_have_rule_ids() -> None:
    assert [rule_id_of(name) for name in ("a_0000002a", "d_ffffffff", "a_x", "ingress", "t_0000002a", "a_2a")] == [42, 2**32 - 1] + [
        None
    ] * 4


@pytest.mark.parametrize(
    "line",
    [
        "\tflags dormant",
        '\tcomment "x"',
        "\tcounter mine {\n\t}",
        '\tchain x {\n\t\tcomment "y"\n\t}',
        "\tset x {\n\t\ttype mark\n\t\tsize 5\n\t}",
        "\tmap x {\n\t\ttype mark : mark\n\t}",
        '\tset x {\n\t\ttype ipv4_addr\n\t\telements = { 1.2.3.4 comment "x" }\n\t}',
        "\tset x {\n\t\ttype ipv4_addr\n\t\telements = { 1.2.3.4 timeout 5s }\n\t}",
        "\tmap x {\n\t\ttype ipv4_addr : verdict\n\t\telements = { 1.2.3.4 }\n\t}",
        "\tchain x {",
    ],
)
def test_what_we_never_write_is_not_understood(line: str) -> None:
    with pytest.raises(NotUnderstood):
        parse_listing(f"table inet t {{\n{line}\n}}\n")


def test_a_listing_is_read_back() -> None:
    native = parse_listing(
        "table inet t { # handle 1\n\tmap m {\n\t\ttype ifname : verdict\n"
        '\t\telements = { "a" : goto x,\n\t\t\t     "b" : goto x }\n\t}\n\n'
        "\tset s {\n\t\ttype ipv4_addr . nf_proto\n\t\tflags interval\n\t\telements = { 10.0.0.0/8 . 2, 11.0.0.1-11.0.0.2 . 2 }\n\t}\n\n"
        "\tchain x {\n\t\ttype filter hook forward priority 0; policy accept;\n"
        '\t\tmeta l4proto vmap { 6 : goto y, 17 : drop } comment "why not"\n\t\taccept\n\t}\n}\n'
    )
    assert native.kinds == {"m": Kind("ifname", is_map=True), "s": Kind("ipv4_addr . nf_proto", is_map=False, intervals=True)}
    assert native.elements == {"m": {'"a"': "goto x", '"b"': "goto x"}, "s": {"10.0.0.0/8 . 2": "", "11.0.0.1-11.0.0.2 . 2": ""}}
    rules = (Rule("meta l4proto vmap { 6 : goto y, 17 : drop }", "why not"), Rule("accept"))
    assert native.chains == {"x": Chain(rules, "type filter hook forward priority 0; policy accept;")}


def test_counters_belong_to_their_chains() -> None:
    text = "table inet t {\n\tchain a_00000001 {\n\t\tcounter packets 3 bytes 9 return\n\t}\n\tchain d_00000002 {\n\t\tdrop\n\t}\n}\n"
    assert parse_counters(text) == {"a_00000001": (3, 9)}


def test_hashed_sets_may_be_listed_in_any_order() -> None:
    found, wanted = Native(), Native()
    found.set_chain("x", Chain((Rule("meta l4proto vmap { 17 : drop, 6 : goto y }"),)))
    wanted.set_chain("x", Chain((Rule("meta l4proto vmap { 6 : goto y, 17 : drop }"),)))
    assert not difference(found, wanted)


def test_another_versions_wording_is_learned() -> None:
    found, wanted = Native(), Native()
    found.set_chain("x", Chain((Rule("limit rate 10/second burst 5 packets"),)))
    wanted.set_chain("x", Chain((Rule("limit rate 10/second"),)))
    assert difference(found, wanted)
    assert not difference(found, wanted, {"limit rate 10/second": "limit rate 10/second burst 5 packets"})


def test_references_exist_at_every_command() -> None:
    """Chains and maps before what points to them, and the reverse on the way out."""
    old, new = Chain((Rule("goto b"),)), Chain((Rule("ip saddr vmap @n"), Rule("goto c")))
    kind = Kind("ipv4_addr", is_map=True)
    changes = Changes(
        chains={"a": (old, new), "b": (Chain((Rule("drop"),)), None), "c": (None, Chain((Rule("accept"),)))},
        kinds={"m": (kind, None), "n": (None, kind)},
        elements={"m": {"1.1.1.1": ("goto b", None)}, "n": {"1.1.1.1": (None, "goto c")}, "o": {"2.2.2.2": ("goto b", "goto c")}},
    )
    batch = write_batch("t", changes)
    assert batch.text.splitlines() == [
        "add chain inet t c",
        "add map inet t n { type ipv4_addr : verdict; }",
        "flush chain inet t a",
        "flush chain inet t b",
        "flush map inet t m",
        "delete element inet t o { 2.2.2.2 : goto b }",
        "add element inet t n { 1.1.1.1 : goto c }",
        "add element inet t o { 2.2.2.2 : goto c }",
        "add rule inet t a ip saddr vmap @n",
        "add rule inet t a goto c",
        "add rule inet t c accept",
        "delete map inet t m",
        "delete chain inet t b",
    ]
    assert batch.operations == 13


def test_many_elements_are_counted_one_by_one() -> None:
    steps: dict[str, tuple[str | None, str | None]] = {f"10.0.{at >> 8}.{at & 255}": (None, "") for at in range(1000)}
    batch = write_batch("t", Changes(elements={"s": steps}))
    assert batch.operations == 1000
    assert len(batch.text.splitlines()) == 4


def test_a_whole_table_may_take_another_ones_place() -> None:
    native = Layout.of(program()).native
    assert write_whole("t", native, replace=True).text.startswith("delete table inet t\nadd table inet t\n")
    assert write_whole("t", native, replace=False).text.startswith("add table inet t\nadd chain")


def test_writing_there_and_back_changes_nothing() -> None:
    native = Layout.of(examples()["tiers"]).native
    name, chain = next(iter(native.chains.items()))
    collection, (key, value) = next((name, next(iter(elements.items()))) for name, elements in native.elements.items())
    native.set_chain(name, None)
    native.set_chain(name, chain)
    native.set_element(collection, key, None)
    native.set_element(collection, key, value)
    assert not native.take_changes()


def test_long_complaints_are_cut_and_transient_ones_known() -> None:
    error = NftError("/dev/stdin:1:1-9: Error: Could not process rule: Device or resource busy\n" + "x" * 10_000)
    assert error.transient and len(str(error)) < 500
    assert not NftError("syntax error").transient
