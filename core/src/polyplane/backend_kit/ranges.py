"""Ranges of 16-bit numbers (ports, ICMP type and code) for dataplanes that match numbers by prefix or mask."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from polyplane.ir.program import IcmpType, PortRange

_BITS: Final = 16


def prefixes(first: int, last: int) -> Iterator[tuple[int, int]]:
    """Yield the fewest ``(number, length)`` prefixes of 16 bits that cover exactly first..last; at most 30."""
    while first <= last:
        size = first & -first or 1 << _BITS
        while first + size - 1 > last:
            size >>= 1
        yield first, _BITS - (size.bit_length() - 1)
        first += size


def icmp_numbers(types: Iterable[IcmpType]) -> tuple[PortRange, ...]:
    """Return ICMP types as ranges of one number, ``type << 8 | code``: all codes where none is given."""
    return tuple(
        PortRange(icmp.type << 8, icmp.type << 8 | 0xFF) if icmp.code is None else PortRange(*[icmp.type << 8 | icmp.code] * 2)
        for icmp in types
    )
