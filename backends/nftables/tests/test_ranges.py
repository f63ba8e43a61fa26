from __future__ import annotations

import ipaddress
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyplane.ir.cidr import Cidr
from polyplane.ir.tabulate import ClassId
from polyplane_nftables.ranges import Segments, Span, span_text

CLASSES = [ClassId("a"), ClassId("b"), None]


@st.composite
def prefixes(draw: st.DrawFn) -> Cidr:
    """A prefix among few addresses at both ends of the IPv4 space, so that prefixes nest, touch and repeat."""
    length = draw(st.sampled_from([0, 1, 8, 24, 27, 28, 29, 30, 31, 32]))
    address = draw(st.sampled_from([0, 255 << 24])) + draw(st.integers(0, 31)) + draw(st.sampled_from([0, (1 << 24) - 32]))
    return Cidr(4, address, 32).prefix(length)


changes = st.dictionaries(prefixes(), st.sampled_from(CLASSES), max_size=8)


def longest(classes: dict[Cidr, ClassId], address: int) -> ClassId | None:
    covering = [cidr for cidr in classes if cidr.covers(Cidr(4, address, 32))]
    return classes[max(covering, key=lambda cidr: cidr.length)] if covering else None


@given(st.lists(changes, max_size=5))
def test_segments_are_disjoint_and_say_what_the_longest_prefix_says(steps: list[dict[Cidr, ClassId | None]]) -> None:
    segments = Segments(4)
    classes: dict[Cidr, ClassId] = {}
    spans: dict[Span, ClassId] = {}
    for step in steps:
        for cidr, class_id in step.items():
            if class_id is None:
                classes.pop(cidr, None)
            else:
                classes[cidr] = class_id
        for span, class_id in segments.update(step).items():
            assert spans.get(span) != class_id, "not a change"
            if class_id is None:
                del spans[span]
            else:
                spans[span] = class_id
        ordered = sorted(spans)
        assert all(one[1] < other[0] for one, other in pairwise(ordered))
        edges = {edge for cidr in classes for edge in (cidr.first, cidr.last)}
        for address in {near for edge in edges for near in (edge - 1, edge, edge + 1) if 0 <= near < 1 << 32}:
            found = [class_id for span, class_id in spans.items() if span[0] <= address <= span[1]]
            assert found == ([] if longest(classes, address) is None else [longest(classes, address)])


def test_a_change_touches_only_its_neighbours() -> None:
    segments = Segments(4)
    segments.update({Cidr(4, number << 8, 24): ClassId("a") for number in range(10_000)})
    assert segments.update({Cidr(4, 5_000 << 8, 24): ClassId("b")}) == {(5_000 << 8, (5_001 << 8) - 1): "b"}
    inside = Cidr(4, (5_000 << 8) + 16, 28)
    changed = segments.update({inside: ClassId("c")})
    assert len(changed) == 4


@pytest.mark.parametrize(
    ("first", "last", "text"),
    [
        ("10.0.0.0", "10.0.0.255", "10.0.0.0/24"),
        ("10.0.0.1", "10.0.0.1", "10.0.0.1"),
        ("10.0.0.1", "10.0.0.2", "10.0.0.1-10.0.0.2"),
        ("0.0.0.0", "255.255.255.255", "0.0.0.0/0"),  # noqa: S104 (nobody listens)
        ("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "::/0"),
        ("::ffff:1.2.3.4", "::ffff:1.2.3.5", "::ffff:1.2.3.4/127"),
        ("fd00::", "fd00::2", "fd00::-fd00::2"),
    ],
)
def test_text_is_what_nft_lists(first: str, last: str, text: str) -> None:
    low, high = ipaddress.ip_address(first), ipaddress.ip_address(last)
    assert span_text(low.version, (int(low), int(high))) == text
