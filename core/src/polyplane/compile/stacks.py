"""`plan` and `build_stack`: the policies that select a pod become the ordered tiers of one direction."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from polyplane.cluster.model import ClusterPolicy, TierSpec
from polyplane.compile.lower import origin_of
from polyplane.compile.rule_ids import RuleIds
from polyplane.ir.program import Direction, Isolation, PolicyId, Stack, Tier, TierEnd


@dataclass(frozen=True, slots=True)
class TierPlan:
    """A tier of one direction: its policies in order, and those of them that end it in deny."""

    spec: TierSpec
    direction: Direction
    policies: tuple[ClusterPolicy, ...]
    isolating: tuple[ClusterPolicy, ...]

    @property
    def isolation_name(self) -> str:
        """What the denial at the end of the tier is called in the registry of rule ids."""
        names = ", ".join(f"{policy.key.kind} {policy.key.namespace}/{policy.key.name}" for policy in self.isolating)
        return f"{self.direction} isolation by {names}"


def plan(selecting: Iterable[ClusterPolicy], direction: Direction) -> list[TierPlan]:
    """Group the policies that select a pod by tier, and order tiers and policies.

    A policy that says nothing about the direction is left out. Inside a tier: by ``order``, then namespace and name.
    """
    by_tier: dict[TierSpec, list[ClusterPolicy]] = {}
    for policy in selecting:
        if direction in policy.rules or direction in policy.isolates:
            by_tier.setdefault(policy.tier, []).append(policy)
    plans = []
    for spec in sorted(by_tier, key=lambda spec: (spec.position, spec.name)):
        policies = sorted(by_tier[spec], key=lambda policy: (policy.order, policy.key.namespace, policy.key.name, policy.key))
        isolating = tuple(policy for policy in policies if direction in policy.isolates) if spec.end is TierEnd.DENY else ()
        plans.append(TierPlan(spec, direction, tuple(policies), isolating))
    return plans


def build_stack(plans: Sequence[TierPlan], lowered: Callable[[ClusterPolicy], PolicyId | None], ids: RuleIds) -> Stack:
    """Return the tiers; ``lowered`` gives a policy's id in the IR, None if it has no rules in this direction.

    :param ids: holds the `TierPlan.isolation_name` of every plan that isolates
    """
    tiers = []
    for tier in plans:
        policies = tuple(policy_id for policy in tier.policies if (policy_id := lowered(policy)) is not None)
        isolation = None
        if tier.isolating:
            origins = tuple(origin_of(policy, tier.direction, None) for policy in tier.isolating)
            isolation = Isolation(id=ids[tier.isolation_name], origins=origins)
        if policies or isolation is not None:
            end = TierEnd.NEXT if isolation is None else TierEnd.DENY
            tiers.append(Tier(name=tier.spec.name, policies=policies, end=end, isolation=isolation, exempts_self=tier.spec.exempts_self))
    return tuple(tiers)
