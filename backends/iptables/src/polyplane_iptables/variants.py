"""Which variant the node's other rules use, and what keeps either from working here."""

from __future__ import annotations

import re
from collections import Counter
from typing import Final

from polyplane.ir.cidr import BITS
from polyplane_iptables.kernel import ADDRESSES, Kernel, ToolError, ToolMissing
from polyplane_iptables.options import IptablesOptions, Variant
from polyplane_iptables.owned import PREFIX

#: Chains that kubelet keeps in the variant that it was built or told to use, for others to see.
_HINTS: Final = re.compile(r":KUBE-(?:IPTABLES-HINT|KUBELET-CANARY) ")
_TABLES: Final = ("filter", "nat", "mangle")


def detect(kernel: Kernel, options: IptablesOptions) -> Variant:
    """Return the named variant, else the one that the node's other rules are in, else ours, else nft where it is installed.

    The same signs as the wrappers that kube-proxy's images use: kubelet's chains, then where there are more rules.
    """
    if options.variant is not None:
        return options.variant
    rules: Counter[Variant] = Counter()
    ours: set[Variant] = set()
    for variant in Variant:
        if not kernel.has(variant):
            continue
        lines = [line for family in BITS for table in _TABLES for line in _lines(kernel, variant, family, table)]
        foreign = [line for line in lines if PREFIX not in line]
        if any(map(_HINTS.match, foreign)):
            return variant
        rules[variant] = sum(line.startswith("-A ") for line in foreign)
        if len(foreign) < len(lines):
            ours.add(variant)
    if not rules.total() and ours:
        return min(ours, key=list(Variant).index)
    if rules[Variant.LEGACY] > rules[Variant.NFT] or not kernel.has(Variant.NFT):
        return Variant.LEGACY
    return Variant.NFT


def _lines(kernel: Kernel, variant: Variant, family: int, table: str) -> list[str]:
    """Return what a table says, nothing where it cannot be read."""
    try:
        return kernel.save(variant, family, table=table).splitlines()
    except ToolError:
        return []


def missing(kernel: Kernel, options: IptablesOptions) -> tuple[str, ...]:
    """Say what keeps us from working here, each with the remedy; changes nothing."""
    wanted = [options.variant] if options.variant else list(Variant)
    problems = []
    usable = [variant for variant in wanted if kernel.has(variant)]
    if not usable:
        names = " or ".join(f"iptables-{variant}-restore" for variant in wanted)
        problems.append(f"{names} is not here (nor ip6tables's): apt install iptables")
    try:
        kernel.save_sets()
        if ADDRESSES not in kernel.set_types():
            problems.append(f"this kernel has no ipsets of type {ADDRESSES}: modprobe ip_set_hash_net")
        for variant in usable:
            for family in BITS:
                kernel.save(variant, family)
    except ToolMissing as error:
        problems.append(str(error))
    except FileNotFoundError as error:
        problems.append(f"{error.filename} does not exist: create the network namespace or correct the option netns")
    except PermissionError:
        problems.append("entering the network namespace takes CAP_SYS_ADMIN: run as root or leave out the option netns")
    except ToolError as error:
        if re.search(r"[Pp]ermission|not permitted", str(error)):
            problems.append("reading and writing iptables and ipset takes CAP_NET_ADMIN: grant it, or run as root")
        elif "'nft' tool" in str(error):
            problems.append(str(error))
        else:
            problems.append(f"this kernel does not do ipset or iptables (modprobe ip_set ip_set_hash_net xt_set): {error}")
    except OSError as error:
        problems.append(f"this kernel does not say which types of ipsets it has: {error}")
    return tuple(problems)
