from __future__ import annotations

import errno
import socket
import struct

from hypothesis import given
from hypothesis import strategies as st

from polyplane.backend_kit.nfnetlink import NLM_F_ACK, NLMSG_ERROR, attribute, attributes, connected, failure, messages, request, string


@given(st.lists(st.tuples(st.integers(1, 0x3FFF), st.binary(max_size=30), st.booleans()), max_size=4), st.integers(1, 100))
def test_what_is_written_is_read(wanted: list[tuple[int, bytes, bool]], number: int) -> None:
    parts = [attribute(kind, value, nested=nested) for kind, value, nested in wanted]
    made = request(4 << 8 | 1, NLM_F_ACK, socket.AF_INET6, *parts, resource=7, number=number)
    assert len(made) % 4 == 0
    first, second = messages(made + request(9, 0, socket.AF_UNSPEC, number=5))
    assert (first.kind, first.number, second.kind, second.number) == (4 << 8 | 1, number, 9, 5)
    assert first.body[:4] == struct.pack("!BBH", socket.AF_INET6, 0, 7)
    assert [(one.kind, one.value) for one in attributes(first.body)] == [(kind, value) for kind, value, _ in wanted]
    assert [one.whole for one in attributes(first.body)] == parts


def test_names_end_with_a_zero() -> None:
    assert string(1, "abc") == struct.pack("=HH", 8, 1) + b"abc\0"


def test_errors_are_positive() -> None:
    assert failure(struct.pack("=i", -errno.ENOENT)) == errno.ENOENT
    assert failure(bytes(4)) == 0


@given(st.binary(max_size=80))
def test_whatever_comes_ends(data: bytes) -> None:
    for message in messages(data):
        list(attributes(message.body))


def test_the_kernel_understands() -> None:
    """It knows no such subsystem, and says so."""
    with connected() as link:
        link.send(request(0xFE << 8, NLM_F_ACK, socket.AF_UNSPEC, number=3))
        (answer,) = messages(link.recv(4096))
    assert (answer.kind, answer.number) == (NLMSG_ERROR, 3)
    assert failure(answer.body) in {errno.EINVAL, errno.EPERM}
