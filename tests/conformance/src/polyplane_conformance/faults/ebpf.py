"""Faults in polyplane-ebpf."""

from __future__ import annotations

from typing import Final

from polyplane_conformance.faults.fault import Fault

FAULTS: Final = (
    Fault(
        "a range ends one too early",
        "polyplane_ebpf/rows.py",
        "in prefixes(row.first, row.last)",
        "in prefixes(row.first, max(row.first, row.last - 1))",
        "ports/range",
        "ingress of x/a: allowed by rule 0 of x/range",
    ),
    Fault(
        "ports have their bytes swapped",
        "polyplane_ebpf/encode.py",
        'protocol, 0) + port.to_bytes(2, "big")',
        'protocol, 0) + port.to_bytes(2, "little")',
        "ports/number-tcp",
        "ingress of x/a: allowed by rule 0 of x/from-y-81",
    ),
    Fault(
        "what no row speaks of is allowed",
        "polyplane_ebpf/rows.py",
        "allow=outcome.verdict is Verdict.ALLOW, rule=outcome.rule_id",
        "allow=outcome.verdict is Verdict.ALLOW or protocol is None, rule=outcome.rule_id",
        "isolation/inbound-tcp",
        "ingress of x/b: isolated by x/closed, and no rule allows it",
    ),
    Fault(
        "IPv6 peers are looked up among those of IPv4",
        "polyplane_ebpf/encode.py",
        "| family << 8 |",
        "| 4 << 8 |",
        "protocols/both-versions-by-label",
        "egress of x/a: allowed by rule 0 of x/from-y",
    ),
    Fault(
        "the decisions of the two directions are swapped",
        "polyplane_ebpf/layout.py",
        "egress=numbers[Direction.EGRESS][0],\n            ingress=numbers[Direction.INGRESS][0],",
        "egress=numbers[Direction.INGRESS][0],\n            ingress=numbers[Direction.EGRESS][0],",
        "outbound/directions-are-independent",
        "egress of x/a: isolated by x/to-b, and no rule allows it",
    ),
    Fault(
        "addresses that leave a set stay in the maps",
        "polyplane_ebpf/layout.py",
        "for cidr, new_class in tabulated.hosts.items():\n",
        "for cidr, new_class in ((cidr, gone) for cidr, gone in tabulated.hosts.items() if gone is not None):\n",
        "changes/finished-pod-leaves",
        "ingress of x/a: isolated by x/from-b, and no rule allows it",
    ),
    Fault(
        "the longest prefix does not win",
        "polyplane_ebpf/encode.py",
        "length = cidr.length + (96",
        "length = min(cidr.length, 8) + (96",
        "blocks/all-but-one",
        "egress of x/a: isolated by x/to-block, and no rule allows it",
    ),
    Fault(
        "protocols of a row are forgotten",
        "polyplane_ebpf/encode.py",
        "_POLICY_BITS + port_bits, stack, class_id, protocol, 0)",
        "_POLICY_BITS + port_bits, stack, class_id, 6, 0)",
        "ports/udp-is-not-tcp",
        "ingress of x/a: isolated by x/udp, and no rule allows it",
    ),
)
