"""The canonical text: what it looks like, that it round-trips, and that its parser never raises anything but its own error."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ir_strategies import programs

from polyplane.errors import TextSyntaxError
from polyplane.ir.program import EMPTY, PeerTerm, PolicyId, Program, SetId
from polyplane.ir.text import parse_program, print_delta, print_program
from polyplane.reconcile.diff import diff

SHOP = """\
program version=1 revision=3 established=keep deny-action=reject
node 10.0.0.1
node fd00::1
set 5d1c "pods(app=web) in namespace=shop"
  10.1.0.4
  10.2.0.0/16
  fd00::4
set empty ""
policy 77aa ingress
  rule 12 allow protocol=tcp ports=80,8000-8080 peer=5d1c by NetworkPolicy shop/web ingress[0]
  rule 14 deny family=ipv6 protocol=icmpv6 icmp=128,1/4 peer=!5d1c,empty peer=none by ClusterPolicy baseline ingress[1]
policy 88bb egress
  rule 15 pass protocol=89 by "a b" "sh/op" "new\\nline" egress[0]
endpoint shop/web-1 interface=veth12
  address 10.1.0.4
  address fd00::4
  ingress tier=admin end=next
  ingress tier=networkpolicy end=deny isolation=13 self=exempt
    policy 77aa
    by NetworkPolicy shop/web ingress
  egress tier="two words" end=next
    policy 88bb
    policy 88bb
"""


def test_text_is_canonical_and_says_everything() -> None:
    assert print_program(parse_program(SHOP)) == SHOP


@settings(max_examples=60)
@given(programs())
def test_round_trip(program: Program) -> None:
    text = print_program(program)
    again = parse_program(text)
    assert again.same_content(program)
    assert again.revision == program.revision
    assert text.isascii()
    assert print_program(again) == text


def test_set_named_like_the_word_for_no_set_is_quoted() -> None:
    text = 'program version=1\nset "none" ""\npolicy p ingress\n  rule 1 allow peer={} by A b ingress\n'
    for peer, sets in (("none", ()), ('"none"', ("none",)), ('!"none"', ("none",))):
        program = parse_program(text.format(peer))
        (term,) = program.policies[PolicyId("p")].rules[0].match.peer
        assert term == PeerTerm(tuple(map(SetId, sets)), negated=peer.startswith("!"))
        assert f"peer={peer} " in print_program(program)


def test_comments_blank_lines_and_indentation_do_not_matter() -> None:
    relaxed = "\n# a shop\n\n" + "\n".join(line.strip() for line in SHOP.splitlines())
    assert parse_program(relaxed) == parse_program(SHOP)


@pytest.mark.parametrize(
    ("line", "bad", "expected"),
    [
        (1, "set x y", "must begin with a 'program' line"),
        (1, "program version=2", "IR version 2"),
        (1, "program version=1 established=sometimes", "one of recheck, keep"),
        (2, "node 10.0.0.0/8", "not a single address"),
        (2, "node 10.0.0.300", "not an IP address"),
        (5, "  10.1.0.400", "not an IP address"),
        (5, "  " + "1" * 100, "is no prefix"),
        (4, 'set 5d1c "label', "JSON quotes"),
        (4, 'set 5d1c "\\q"', "no JSON string"),
        (8, "set 5d1c again", "defined twice"),
        (10, "  rule 12 allow", "'by' and the rule's origin is missing"),
        (10, "  rule 12 permit by A b ingress", "one of allow, deny, pass, log"),
        (10, "  rule 0 allow by A b ingress", "not in 1..2**32-1"),
        (10, "  rule 12 allow colour=red by A b ingress", "no part of a match"),
        (10, "  rule 12 allow protocol=6 protocol=6 by A b ingress", "given twice"),
        (10, "  rule 12 allow protocol=udp ports=9-8 by A b ingress", "9-8"),
        (10, "  rule 12 allow ports=80 by A b ingress", "ports need one of the protocols"),
        (10, "  rule 12 allow protocol=tcp ports=99999 by A b ingress", "up to 65535"),
        (10, "  rule 12 allow peer=unknown by A b ingress", "'unknown' is not defined above"),
        (10, "  rule 12 allow peer=empty,5d1c by A b ingress", "sorted and distinct"),
        (10, "  rule 12 allow by A b ingress[", "the rule's index is missing"),
        (10, "  rule 12 allow by A b ingress and more", "unexpected 'and'"),
        (10, "  rule " + "9" * 5000 + " allow by A b ingress", "must be a number"),
        (14, "endpoint shop/web-1 colour=red", "not understood here"),
        (15, "  policy 77aa", "no tier above"),
        (17, "  ingress tier=x end=deny", "needs isolation="),
        (19, "    policy 88bb", "ingress policy '88bb' is not defined above"),
        (18, "  ingress tier=networkpolicy", "only a tier with end=deny says by what"),
        (3, "rule 12 allow by A b ingress", "not understood here"),
    ],
)
def test_errors_name_the_line(line: int, bad: str, expected: str) -> None:
    lines = SHOP.splitlines()
    lines[line - 1] = bad
    with pytest.raises(TextSyntaxError) as caught:
        parse_program("\n".join(lines))
    assert expected in str(caught.value)
    assert caught.value.line in (line, line + 1, line + 2)


def test_endpoint_without_address_is_reported_where_it_stands() -> None:
    with pytest.raises(TextSyntaxError, match="line 2: endpoint a: needs at least one address"):
        parse_program("program version=1\nendpoint a\n")


def test_empty_text_is_no_program() -> None:
    with pytest.raises(TextSyntaxError, match="line 1"):
        parse_program("")


def test_oversized_lines_are_refused() -> None:
    with pytest.raises(TextSyntaxError, match="longer than"):
        parse_program("program version=1\n" + "node " + "1" * (1 << 20))


@settings(max_examples=60)
@given(programs(), st.data())
def test_parser_never_raises_anything_else(program: Program, data: st.DataObject) -> None:
    text = print_program(program)
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 12)))
    broken = text[:start] + data.draw(st.text(max_size=6)) + text[end:]
    with contextlib.suppress(TextSyntaxError):
        parse_program(broken).check()


def test_delta_shows_operations_in_order() -> None:
    program = parse_program(SHOP)
    smaller = parse_program(SHOP.replace("  10.1.0.4\n  10.2.0.0/16\n", "  10.3.0.0/16\n", 1))
    assert print_delta(diff(smaller, program)) == "delta 3 -> 3: 1 operations\n~ set 5d1c\n  + 10.1.0.4\n  + 10.2.0.0/16\n  - 10.3.0.0/16\n"
    text = print_delta(diff(EMPTY, program))
    assert [line.split()[1] for line in text.splitlines() if line.startswith("+")] == ["node", "set", "set", "policy", "policy", "endpoint"]
    assert [line for line in print_delta(diff(program, EMPTY)).splitlines() if line.startswith("- ")] == [
        "- endpoint shop/web-1",
        "- policy 77aa",
        "- policy 88bb",
        "- set 5d1c",
        "- set empty",
    ]
