"""`diff`: two programs to the delta between them.

Compared by identity first: programs share every value that did not change, so the cost is that of what changed plus one
pointer comparison per object.
"""

from __future__ import annotations

from polyplane.ir.delta import (
    ChangeMembers,
    Delta,
    Operation,
    PutEndpoint,
    PutNode,
    PutPolicy,
    PutSet,
    RemoveEndpoint,
    RemovePolicy,
    RemoveSet,
)
from polyplane.ir.program import Program
from polyplane.reconcile.order import ordered


def diff(base: Program, target: Program) -> Delta:
    """Return how to get from ``base`` to ``target``, in safe order; no operations when they enforce the same."""
    operations: list[Operation] = []
    if base.node_addresses != target.node_addresses or base.options != target.options:
        operations.append(PutNode(target.node_addresses, target.options))
    for set_id, new in target.sets.items():
        old = base.sets.get(set_id)
        if old is None:
            operations.append(PutSet(new))
        elif old is not new:
            added, removed = new.members.difference_from(old.members)
            if added or removed:
                operations.append(ChangeMembers(set_id, added, removed))
    operations += [PutPolicy(policy) for policy_id, policy in target.policies.items() if policy_id not in base.policies]
    for endpoint_id, endpoint in target.endpoints.items():
        existing = base.endpoints.get(endpoint_id)
        if existing is not endpoint and existing != endpoint:
            operations.append(PutEndpoint(endpoint))
    operations += [RemoveEndpoint(endpoint_id) for endpoint_id in base.endpoints.keys() - target.endpoints.keys()]
    operations += [RemovePolicy(policy_id) for policy_id in base.policies.keys() - target.policies.keys()]
    operations += [RemoveSet(set_id) for set_id in base.sets.keys() - target.sets.keys()]
    return Delta(base=base, target=target, operations=ordered(operations))
