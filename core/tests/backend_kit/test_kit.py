from __future__ import annotations

import gc
import os
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyplane.backend_kit.garbage import uncollected
from polyplane.backend_kit.labels import is_usable_interface, isolation_label, origin_label, plain
from polyplane.backend_kit.messages import shorten
from polyplane.backend_kit.namespaces import in_namespace
from polyplane.backend_kit.options import is_int, log_group_option, netns_option, refuse_unknown
from polyplane.backend_kit.ranges import icmp_numbers, prefixes
from polyplane.errors import ConfigError
from polyplane.ir.program import Direction, IcmpType, Origin, PortRange


def test_labels_hold_nothing_that_needs_quoting() -> None:
    hostile = Origin(kind="NetworkPolicy", namespace="a b", name='x"; drop\n', direction=Direction.INGRESS, index=0)
    assert origin_label(hostile) == "NetworkPolicy/a_b/x_drop_/ingress/0"
    assert isolation_label((hostile, hostile)).count("_drop_") == 2
    assert len(plain("x" * 1000)) == 96


@pytest.mark.parametrize(
    ("name", "usable"),
    [
        ("veth0", True),
        ("eth0.5@if3", True),
        ("a" * 16, False),
        ("veth*", False),
        ("veth+", False),
        ("", False),
        ("..", False),
        ("a b", False),
    ],
)
def test_interfaces(name: str, *, usable: bool) -> None:
    assert is_usable_interface(name) is usable


def test_complaints_are_short() -> None:
    assert shorten("one\n  two\n", "nft") == "one | two"
    assert len(shorten("x" * 10_000, "nft")) == 300
    assert shorten(" ", "nft") == "nft failed without a message"


def test_options_name_the_remedy() -> None:
    with pytest.raises(ConfigError, match=r"\[backend.x\] tabel: .*did you mean table"):
        refuse_unknown("[backend.x]", ["tabel"], ["table", "netns"])
    with pytest.raises(ConfigError, match="there are table, netns"):
        refuse_unknown("[backend.x]", ["zzz"], ["table", "netns"])
    with pytest.raises(ConfigError, match="no absolute path"):
        netns_option("[backend.x]", "here")
    with pytest.raises(ConfigError, match="0 to 65535"):
        log_group_option("[backend.x]", 70000)
    assert is_int(1)
    assert not is_int(True)  # noqa: FBT003 (the point of the test)
    assert not is_int("1")


def test_a_call_without_namespace_stays_in_its_thread_and_failures_come_back() -> None:
    assert in_namespace(None, os.getpid) == os.getpid()
    with pytest.raises(FileNotFoundError, match="there-is-none"):
        in_namespace("/run/netns/there-is-none", os.getpid)


def test_the_collector_is_off_meanwhile_and_as_it_was_afterwards() -> None:
    assert gc.isenabled()
    with uncollected():
        with uncollected():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()

    def failing() -> None:
        with uncollected():
            raise KeyError

    with pytest.raises(KeyError):
        failing()
    assert gc.isenabled()
    gc.disable()
    try:
        with uncollected():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


@given(st.integers(0, 65535), st.integers(0, 65535))
def test_prefixes_cover_a_range_and_nothing_else(one: int, other: int) -> None:
    first, last = sorted((one, other))
    covered = [(number, number + (1 << 16 - length) - 1) for number, length in prefixes(first, last)]
    assert len(covered) <= 30
    assert (covered[0][0], covered[-1][1]) == (first, last)
    assert all(before + 1 == after for (_, before), (after, _) in pairwise(covered))
    assert all(begin % (end - begin + 1) == 0 for begin, end in covered)


def test_icmp_types_are_numbers() -> None:
    assert icmp_numbers([IcmpType(8), IcmpType(3, 4)]) == (PortRange(0x800, 0x8FF), PortRange(0x304, 0x304))
