"""Faults in polyplane-iptables."""

from __future__ import annotations

from typing import Final

from polyplane_conformance.faults.fault import Fault

FAULTS: Final = (
    Fault(
        "source and destination of peers are swapped",
        "polyplane_iptables/matches.py",
        '"src" if ingress else "dst"',
        '"dst" if ingress else "src"',
        "peers/pod-of-own-namespace",
        "ingress of x/a: allowed by rule 0 of x/from-b",
    ),
    Fault(
        "a range ends one too early",
        "polyplane_iptables/matches.py",
        'else f"{ports.first}:{ports.last}"',
        'else f"{ports.first}:{ports.last - 1}"',
        "ports/range",
        "ingress of x/a: allowed by rule 0 of x/range",
    ),
    Fault(
        "source and destination ports are swapped",
        "polyplane_iptables/matches.py",
        'match.protocol, "dport", names)',
        'match.protocol, "sport", names)',
        "ports/the-destination-counts",
        "egress of x/a: allowed by rule 0 of x/to-eighty",
    ),
    Fault(
        "exceptions lose their negation",
        "polyplane_iptables/matches.py",
        "-m set ! --match-set",
        "-m set --match-set",
        "blocks/all-but-one",
        "egress of x/a: isolated by x/to-block, and no rule allows it",
    ),
    Fault(
        "IPv6 is left out",
        "polyplane_iptables/layout.py",
        "for family in BITS:\n            native.filters[family]",
        "for family in (4,):\n            native.filters[family]",
        "protocols/closed-over-ipv6",
        "over IPv6 from x/a to x/b passes and must not",
    ),
    Fault(
        "isolation does not end in deny",
        "polyplane_iptables/steps.py",
        "if tier.end is TierEnd.DENY and",
        "if tier.end is TierEnd.NEXT and",
        "isolation/inbound-tcp",
        "ingress of x/b: isolated by x/closed, and no rule allows it",
    ),
    Fault(
        "the last rule of a tier is asked first",
        "polyplane_iptables/steps.py",
        "for rule in policies[policy_id].rules:",
        "for rule in reversed(policies[policy_id].rules):",
        "tiers/first-rule-decides",
        "ingress of x/a: rule 0 of ClusterNetworkPolicy door says allow",
    ),
    Fault(
        "Pass is Accept",
        "polyplane_iptables/decisions.py",
        "Action.PASS: beyond",
        'Action.PASS: "-j RETURN"',
        "tiers/admin-pass-asks-network-policy",
        "ingress of x/b: isolated by x/from-z, and no rule allows it",
    ),
    Fault(
        "the second direction is not asked",
        "polyplane_iptables/base.py",
        "asks = _jumps((FROM, TO), made.chains)",
        "asks = _jumps((FROM,), made.chains)",
        "outbound/server-side-decides-too",
        "ingress of y/a: isolated by y/closed, and no rule allows it",
    ),
    Fault(
        "addresses that leave a set stay in the kernel",
        "polyplane_iptables/setplan.py",
        "added, removed = members.difference_from(old)",
        "added, removed = members.difference_from(old)[0], frozenset()",
        "changes/client-gains-label",
        "ingress of x/a: isolated by x/from-friends, and no rule allows it",
    ),
    Fault(
        "replies need a permission of their own",
        "polyplane_iptables/base.py",
        'yield f"{state} --ctdir REPLY -m comment --comment replies -j RETURN"',
        "yield from ()",
        "outbound/directions-are-independent",
        "x/a: isolated by ",
    ),
)
