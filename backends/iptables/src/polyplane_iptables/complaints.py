"""`explained`: what a tool complains about, with the object and the rule id that its line number stands for."""

from __future__ import annotations

import re
from typing import Final

_LINE: Final = re.compile(r"[Ll]ine:? (\d+)")
_COMMENT: Final = re.compile(r'--comment "?(?:pass )?([0-9a-f]{8}) ([^" ]+)')
#: What complaints mean that name no remedy themselves.
_REMEDIES: Final = (
    ("missing kernel module", "load the kernel module of that name (modprobe xt_…)"),
    ("Couldn't load match", "this iptables lacks an extension: install the distribution's whole iptables package"),
    ("Couldn't load target", "this iptables lacks an extension: install the distribution's whole iptables package"),
    ("Hash is full", "an ipset takes a million elements: let policies select fewer addresses"),
    ("Too many links", "another program's rules lead to chains of ours, and nf_tables follows 15 chains in a row: remove them"),
    (
        "use 'nft' tool",
        "nft or a newer iptables has written into this table what this iptables cannot read: use the nftables backend, or upgrade iptables",
    ),
    ("Can't open lock file", "mount the node's /run/xtables.lock into the container, or set lock_file"),
)


def explained(message: str, text: str) -> str:
    """Return a tool's complaint with what its line is about in front, and the remedy behind where there is one.

    :param text: the input that the tool was given
    """
    message = message.strip()
    remedy = next((f"; {remedy}" for sign, remedy in _REMEDIES if sign in message), "")
    lines = text.splitlines()
    numbers = [int(number) for number in _LINE.findall(message)]
    line = next((lines[number - 1] for number in numbers if 0 < number <= len(lines)), "")
    if not line or line == "COMMIT":
        return f"{message}{remedy}"
    return f"{_subject(line)}: {message} ({line}){remedy}"


def _subject(line: str) -> str:
    """Return what a line of input is about, for people."""
    words = line.split()
    name = words[1] if len(words) > 1 else words[0].lstrip(":")
    if words[0] in ("create", "add", "del", "destroy", "swap"):
        return f"set {name}"
    rule = _COMMENT.search(line)
    return f"rule {rule[1]} ({rule[2]}) in chain {name}" if rule else f"chain {name}"
