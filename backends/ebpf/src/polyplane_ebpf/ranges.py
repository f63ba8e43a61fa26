"""Ranges of 16-bit numbers as prefixes, which is what a trie can hold."""

from __future__ import annotations

from collections.abc import Iterator

_BITS = 16


def prefixes(first: int, last: int) -> Iterator[tuple[int, int]]:
    """Yield the fewest ``(number, length)`` prefixes of 16 bits that cover exactly first..last; at most 30."""
    while first <= last:
        size = first & -first or 1 << _BITS
        while first + size - 1 > last:
            size >>= 1
        yield first, _BITS - (size.bit_length() - 1)
        first += size
