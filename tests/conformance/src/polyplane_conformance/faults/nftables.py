"""Faults in polyplane-nftables."""

from __future__ import annotations

from typing import Final

from polyplane_conformance.faults.fault import Fault

FAULTS: Final = (
    Fault(
        "interfaces of the two directions are swapped",
        "polyplane_nftables/side.py",
        'return "oifname" if self._ingress else "iifname"',
        'return "iifname" if self._ingress else "oifname"',
        "isolation/inbound-tcp",
        "egress of x/a: no NetworkPolicy isolates it",
    ),
    Fault(
        "source and destination of peers are swapped",
        "polyplane_nftables/side.py",
        "{'saddr' if self._ingress else 'daddr'}\"\n        lookups",
        "{'daddr' if self._ingress else 'saddr'}\"\n        lookups",
        "peers/pod-of-own-namespace",
        "ingress of x/a: allowed by rule 0 of x/from-b",
    ),
    Fault(
        "neighbour discovery is subject to policy",
        "polyplane_nftables/layout.py",
        '    yield Rule("icmpv6 type 133-137 accept", "neighbour discovery")\n',
        "",
        "*neighbours*",
    ),
    Fault(
        "errors about allowed traffic are dropped",
        "polyplane_nftables/layout.py",
        '    yield Rule("meta l4proto { 1, 58 } ct state related accept", "errors", "meta l4proto { 1, 58 } ct state 0x4 accept")\n',
        "",
        "*errors-about-replies*",
    ),
    Fault(
        "open connections are always kept",
        "polyplane_nftables/layout.py",
        "if options.established is Established.KEEP:",
        "if options.established is not None:",
        "*recheck-cuts*",
    ),
    Fault(
        "open connections are never kept",
        "polyplane_nftables/layout.py",
        "if options.established is Established.KEEP:",
        "if options.established is None:",
        "*keep-leaves*",
    ),
    Fault(
        "forwarded packets are not asked on their way in",
        "polyplane_nftables/layout.py",
        "(*_passing(options), *jumps, *guards)",
        "(*_passing(options), jumps[0], *guards)",
        "isolation/inbound-tcp",
        "ingress of x/b: isolated by x/closed, and no rule allows it",
    ),
    Fault(
        "packets to the node itself are not asked",
        "polyplane_nftables/layout.py",
        "(*_passing(options), jumps[0]), self._hook",
        "(*_passing(options),), self._hook",
        "nodes/own-node-is-not-exempt-as-a-target",
        "isolated by ",
    ),
    Fault(
        "blocks are not looked up",
        "polyplane_nftables/side.py",
        '            (f"{peer} . meta nfproto", names.networks(family)),\n',
        "",
        "blocks/all-but-one",
        "egress of x/a: allowed by rule 0 of x/to-block",
    ),
    Fault(
        "single addresses are not looked up",
        "polyplane_nftables/side.py",
        "            (peer, names.hosts(family)),\n",
        "",
        "peers/pod-of-own-namespace",
        "ingress of x/a: allowed by rule 0 of x/from-b",
    ),
    Fault(
        "addresses that leave a set stay in the kernel",
        "polyplane_nftables/side.py",
        "            self._native.set_element(self.names.hosts(cidr.family), key, self._to_class(class_id))\n",
        "            if class_id is not None:\n                self._native.set_element(self.names.hosts(cidr.family), key, self._to_class(class_id))\n",
        "changes/finished-pod-leaves",
        "ingress of x/a: isolated by x/from-b, and no rule allows it",
    ),
    Fault(
        "a pod's way to itself is policed",
        "polyplane_nftables/side.py",
        'value = "return"\n',
        "continue\n",
        "*reaches-itself*",
    ),
    Fault(
        "whole protocols lose their number",
        "polyplane_nftables/decisions.py",
        'return [Rule(f"meta l4proto {row.protocol} goto',
        'return [Rule(f"goto',
        "ports/any-of-a-protocol",
        "x/",
    ),
    Fault(
        "only the first port of a range counts",
        "polyplane_nftables/decisions.py",
        "dport {PortRange(row.first, row.last)} goto",
        "dport {PortRange(row.first, row.first)} goto",
        "ports/range",
        "ingress of x/a: allowed by rule 0 of x/range",
    ),
    Fault(
        "reject is drop",
        "polyplane_nftables/decisions.py",
        "if style.deny_action is DenyAction.REJECT:",
        "if style.deny_action is None:",
        "*reject-answers*",
    ),
    Fault(
        "the audit sees nothing",
        "polyplane_nftables/backend.py",
        "return drifts_of(difference(found, wanted, self._bodies))",
        "return ()",
        "*drift-is-found*",
    ),
    Fault(
        "teardown leaves the table",
        "polyplane_nftables/backend.py",
        'batch = Batch(f"delete table inet {self._options.table}\\n", {"tables": 1})',
        'batch = Batch(f"flush table inet {self._options.table}\\n", {"tables": 1})',
        "*teardown*",
    ),
)
