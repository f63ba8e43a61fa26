"""Faults in polyplane-ovs."""

from __future__ import annotations

from typing import Final

from polyplane_conformance.faults.fault import Fault

FAULTS: Final = (
    Fault(
        "source and destination of peers are swapped",
        "polyplane_ovs/side.py",
        "fields.DESTINATION if egress else fields.SOURCE",
        "fields.SOURCE if egress else fields.DESTINATION",
        "peers/pod-of-own-namespace",
        "ingress of x/a: allowed by rule 0 of x/from-b",
    ),
    Fault(
        "only the first port of a range counts",
        "polyplane_ovs/side.py",
        "ranges = [(row.first, row.last)] if",
        "ranges = [(row.first, row.first)] if",
        "ports/range",
        "ingress of x/a: allowed by rule 0 of x/range",
    ),
    Fault(
        "what no row speaks of is allowed",
        "polyplane_ovs/side.py",
        "rest, match, table.otherwise)",
        "rest, match, Outcome(Verdict.ALLOW, table.otherwise.rule_id))",
        "isolation/inbound-tcp",
        "ingress of x/b: isolated by x/closed, and no rule allows it",
    ),
    Fault(
        "ports of a peer come after everything else of it",
        "polyplane_ovs/side.py",
        "_CLASS_PORTS: Final = 40",
        "_CLASS_PORTS: Final = 25",
        "blocks/block-meets-ports",
        "egress of x/a: allowed by rule 0 of x/to-y",
    ),
    Fault(
        "addresses that leave a set stay in the switch",
        "polyplane_ovs/side.py",
        "        self._book.set(flow.key, None if class_id is None else flow.value)",
        "        if class_id is not None:\n            self._book.set(flow.key, flow.value)",
        "changes/finished-pod-leaves",
        "ingress of x/a: isolated by x/from-b, and no rule allows it",
    ),
    Fault(
        "the shortest prefix wins",
        "polyplane_ovs/side.py",
        "1 + cidr.length",
        "200 - cidr.length",
        "blocks/all-but-one",
        "egress of x/a: isolated by x/to-block, and no rule allows it",
    ),
    Fault(
        "only a part of IPv6 addresses counts",
        "polyplane_ovs/fields.py",
        "for word in range(cidr.bits // 32):",
        "for word in range(1):",
        "protocols/closed-over-ipv6",
        "over IPv6 from x/a to x/b passes and must not",
    ),
    Fault(
        "the decisions of the two directions are swapped",
        "polyplane_ovs/layout.py",
        "egress=_number(stacks[Direction.EGRESS]),\n            ingress=_number(stacks[Direction.INGRESS]),",
        "egress=_number(stacks[Direction.INGRESS]),\n            ingress=_number(stacks[Direction.EGRESS]),",
        "outbound/directions-are-independent",
        "egress of x/a: isolated by x/to-b, and no rule allows it",
    ),
)
