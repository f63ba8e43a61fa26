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
_HINTS: Final = re.compile(r"^:KUBE-(?:IPTABLES-HINT|KUBELET-CANARY) ", re.MULTILINE)
_TABLES: Final = ("filter", "nat", "mangle")


def detect(kernel: Kernel, options: IptablesOptions) -> Variant:
    """Return the named variant, else the one that the node's other rules are in, else nft where it is installed.

    The same signs as the wrappers that kube-proxy's images use: kubelet's chains, then where there are more rules.
    """
    if options.variant is not None:
        return options.variant
    rules: Counter[Variant] = Counter()
    for variant in Variant:
        if not kernel.has(variant):
            continue
        text = "".join(_foreign(kernel, variant, family, table) for family in BITS for table in _TABLES)
        if _HINTS.search(text):
            return variant
        rules[variant] = sum(line.startswith("-A ") for line in text.splitlines())
    if rules[Variant.LEGACY] > rules[Variant.NFT] or not kernel.has(Variant.NFT):
        return Variant.LEGACY
    return Variant.NFT


def _foreign(kernel: Kernel, variant: Variant, family: int, table: str) -> str:
    """Return the rules and chains that are not ours; none where the table cannot be read."""
    try:
        text = kernel.save(variant, family, table=table)
    except ToolError:
        return ""
    return "".join(f"{line}\n" for line in text.splitlines() if PREFIX not in line)


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
        else:
            problems.append(f"this kernel does not do ipset or iptables (modprobe ip_set ip_set_hash_net xt_set): {error}")
    except OSError as error:
        problems.append(f"this kernel does not say which types of ipsets it has: {error}")
    return tuple(problems)
