"""Rules of others that write connections' marks, as ``iptables-save`` and ``nft`` print them. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from polyplane_iptables.epochs import ALL_BITS
from polyplane_iptables.owned import PREFIX

_NUMBER: Final = "(0x[0-9a-f]+|[0-9]+)"
#: What nft prints of rules that keep other bits: ``ct mark | 0x80``, ``ct mark & 0xffffff00 | 0x1``, in words with older versions.
_KEEPS: Final = re.compile(rf"ct mark set ct mark(?: (?:&|and) {_NUMBER})?(?: (?:\||or|\^|xor) {_NUMBER})?(?= [a-z]|$)")


def writers(text: str, mask: int, *, ours: bool) -> list[str]:
    """Return the rules in what ``iptables-save`` prints that may write bits of the mask into connections' marks.

    :param ours: pass over what is in chains of ours
    """
    own = f"-A {PREFIX}" if ours else "\n"
    return [line for line in text.splitlines() if "-j CONNMARK" in line and not line.startswith(own) and _bits(line) & mask]


def nft_writers(text: str, mask: int) -> Iterator[str]:
    """Yield the rules in what ``nft list table`` prints that may write bits of the mask into connections' marks."""
    for line in text.splitlines():
        if "ct mark set" in line and _nft_bits(line) & mask:
            yield line.strip()


def _bits(rule: str) -> int:
    """Return the bits that a CONNMARK rule may change (connmark_tg in net/netfilter/xt_connmark.c); all where it says what we do not know."""
    match rule.partition("-j CONNMARK ")[2].split():
        case ["--restore-mark", *_]:
            return 0
        case ["--set-xmark", value] if "/" in value:
            return int(value.partition("/")[0], 16) | int(value.partition("/")[2], 16)
        case ["--save-mark", "--nfmask", packet, "--ctmask", connection]:
            return int(packet, 16) | int(connection, 16)
        case _:
            return ALL_BITS


def _nft_bits(rule: str) -> int:
    """Return the bits that a rule of nftables may change; all where it does not say that it keeps some."""
    found = _KEEPS.search(rule.replace("(", "").replace(")", ""))
    if found is None or not any(found.groups()) or rule.count("ct mark set") > 1:
        return ALL_BITS
    kept, more = (int(number, 0) if number else default for number, default in zip(found.groups(), (ALL_BITS, 0), strict=True))
    return ALL_BITS & ~kept | more
