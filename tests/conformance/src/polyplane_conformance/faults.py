"""The faults of the sabotage run: one wrong line each, in the compiler and in the nftables renderer.

A fault replaces a text that occurs exactly once in its file; when the file has changed so that it does not, the run says so.
``first`` is a pattern of scenarios or behaviours where it is likely to show: only a matter of speed, the whole suite follows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Fault:
    """One wrong line: what is wrong then, in which file (below the package's parent), the text and its replacement."""

    name: str
    file: str
    old: str
    new: str
    first: str


COMPILER: Final = (
    Fault(
        "NotIn asks for the key",
        "polyplane/cluster/model.py",
        "return value is None or value not in self.values",
        "return value is not None and value not in self.values",
        "peers/not-in*",
    ),
    Fault(
        "DoesNotExist is Exists",
        "polyplane/cluster/model.py",
        "return value is None\n",
        "return value is not None\n",
        "peers/not-in*",
    ),
    Fault(
        "policyTypes default to both directions",
        "polyplane/cluster/dialects/networkpolicy_spec.py",
        "({Direction.EGRESS} if rules[Direction.EGRESS] else set())",
        "{Direction.EGRESS}",
        "isolation/types-*",
    ),
    Fault(
        "rules of a direction that is not named take effect",
        "polyplane/cluster/dialects/networkpolicy.py",
        "if direction in spec.policy_types",
        "if direction",
        "isolation/rules-without*",
    ),
    Fault(
        "protocols default to UDP",
        "polyplane/cluster/dialects/networkpolicy_spec.py",
        "protocol = TCP\n",
        "protocol = UDP\n",
        "ports/protocol-*",
    ),
    Fault(
        "a bare pod selector reaches into all namespaces",
        "polyplane/cluster/dialects/networkpolicy.py",
        "return PodPeer(PodSelector(namespace=namespace, pods=pods))",
        "return PodPeer(PodSelector(pods=pods))",
        "peers/pod-of-own*",
    ),
    Fault(
        "a range ends one too early",
        "polyplane/cluster/dialects/networkpolicy.py",
        "last = port.port if port.end_port is None else port.end_port\n",
        "last = port.port if port.end_port is None else port.end_port - 1\n",
        "ports/range*",
    ),
    Fault(
        "finished pods keep their addresses",
        "polyplane/cluster/decode.py",
        "addresses=() if status.phase in _FINISHED else ",
        "addresses=",
        "changes/finished*",
    ),
    Fault(
        "host-network pods are like any",
        "polyplane/cluster/decode.py",
        "host_network=bool(spec.host_network)",
        "host_network=False",
        "nodes/host-network*",
    ),
    Fault(
        "exceptions are forgotten",
        "polyplane/compile/lower.py",
        "    if peer.excepts:\n        yield Cidrs(",
        "    if not peer.excepts:\n        yield Cidrs(",
        "blocks/all-but-one",
    ),
    Fault(
        "all of IPv4 is all of IPv6 too",
        "polyplane/compile/lower.py",
        "None if cidr.length else Family(cidr.family)",
        "None",
        "blocks/families*",
    ),
    Fault(
        "isolation does not end in deny",
        "polyplane/compile/stacks.py",
        "if spec.end is TierEnd.DENY else ()",
        "if spec.end is TierEnd.NEXT else ()",
        "isolation/inbound-tcp",
    ),
    Fault(
        "a named port matches whatever its protocol",
        "polyplane/compile/resolve.py",
        "if port.name == wanted.name and wanted.protocol in (None, port.protocol)",
        "if port.name == wanted.name",
        "ports/name-of-another*",
    ),
    Fault(
        "pods that leave stay in their sets",
        "polyplane/compile/resolve.py",
        "for pod, by in ((new, 1), (old, -1)):\n            if pod is None",
        "for pod, by in ((new, 1),):\n            if pod is None",
        "changes/address-passes*",
    ),
    Fault(
        "labels of namespaces are read once",
        "polyplane/compile/resolve.py",
        "self._contribute(wanted, pod, 1 if now else -1)",
        "pass",
        "changes/namespace-gains*",
    ),
    Fault(
        "an invalid update removes what was in force",
        "polyplane/cluster/store.py",
        "            self._report(key, [invalid_object(key, event.where, error, stale=self._current(key) is not None)])\n            return []",
        "            self._report(key, [invalid_object(key, event.where, error, stale=self._current(key) is not None)])\n            return self._replace(key, None)",
        "refusals/update*",
    ),
    Fault(
        "port numbers do not matter",
        "polyplane/ir/evaluate.py",
        "and (not match.ports or in_ranges(packet.port, match.ports))",
        "and True",
        "ports/number-tcp",
    ),
    Fault(
        "the baseline tier comes before NetworkPolicy",
        "polyplane/cluster/dialects/tiers.py",
        "position=10_000_000",
        "position=10_000",
        "tiers/network-policy-*",
    ),
    Fault(
        "Pass is Accept",
        "polyplane/cluster/dialects/clusternetworkpolicy.py",
        '"Pass": Action.PASS}',
        '"Pass": Action.ALLOW}',
        "tiers/admin-pass*",
    ),
    Fault(
        "priorities do not count",
        "polyplane/compile/stacks.py",
        "key=lambda policy: (policy.order, ",
        "key=lambda policy: (",
        "tiers/lower-priority*",
    ),
    Fault(
        "what is not understood is left out",
        "polyplane/cluster/dialects/tiers.py",
        "if any(part is None for part",
        "if all(part is None for part",
        "cluster-refusals/unknown*",
    ),
    Fault(
        "an Accept that is not understood accepts",
        "polyplane/cluster/dialects/tiers.py",
        "PolicyRule(action=Action.ALLOW, peers=())",
        "PolicyRule(action=Action.ALLOW)",
        "cluster-refusals/unknown*",
    ),
    Fault(
        "the admin tier spares a pod's way to itself",
        "polyplane/cluster/dialects/tiers.py",
        'TierSpec(name="admin", position=1_000)',
        'TierSpec(name="admin", position=1_000, exempts_self=True)',
        "tiers/admin-*",
    ),
    Fault(
        "labels of nodes are read once",
        "polyplane/compile/resolve.py",
        "for node, by in ((new, 1), (old, -1)):",
        "for node, by in ((new, 1),):",
        "cluster-rules/labels-of-nodes*",
    ),
)

RENDERER: Final = (
    Fault(
        "interfaces of the two directions are swapped",
        "polyplane_nftables/side.py",
        'return "oifname" if self._ingress else "iifname"',
        'return "iifname" if self._ingress else "oifname"',
        "isolation/inbound-tcp",
    ),
    Fault(
        "source and destination of peers are swapped",
        "polyplane_nftables/side.py",
        "{'saddr' if self._ingress else 'daddr'}\"\n        lookups",
        "{'daddr' if self._ingress else 'saddr'}\"\n        lookups",
        "peers/pod-of-own*",
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
    ),
    Fault(
        "packets to the node itself are not asked",
        "polyplane_nftables/layout.py",
        "(*_passing(options), jumps[0]), self._hook",
        "(*_passing(options),), self._hook",
        "nodes/own-node-is-not*",
    ),
    Fault(
        "blocks are not looked up",
        "polyplane_nftables/side.py",
        '            (f"{peer} . meta nfproto", names.networks(family)),\n',
        "",
        "blocks/*",
    ),
    Fault(
        "single addresses are not looked up",
        "polyplane_nftables/side.py",
        "            (peer, names.hosts(family)),\n",
        "",
        "peers/pod-of-own*",
    ),
    Fault(
        "addresses that leave a set stay in the kernel",
        "polyplane_nftables/side.py",
        "            self._native.set_element(self.names.hosts(cidr.family), key, self._to_class(class_id))\n",
        "            if class_id is not None:\n                self._native.set_element(self.names.hosts(cidr.family), key, self._to_class(class_id))\n",
        "changes/client-gains*",
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
    ),
    Fault(
        "only the first port of a range counts",
        "polyplane_nftables/decisions.py",
        "dport {PortRange(row.first, row.last)} goto",
        "dport {PortRange(row.first, row.first)} goto",
        "ports/range",
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
