"""Programs for packets: so many policies, endpoints and addresses, and one rule, the last, that lets the traffic through."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from polyplane.ir.cidr import Cidr
from polyplane.ir.members import Members
from polyplane.ir.program import (
    TCP,
    UDP,
    Action,
    AddressSet,
    Direction,
    Endpoint,
    EndpointId,
    Isolation,
    Match,
    Origin,
    PeerTerm,
    Policy,
    PolicyId,
    PortRange,
    Program,
    Rule,
    SetId,
    Tier,
    TierEnd,
    digest,
)
from polyplane_bench.traffic import PORT

#: Different groups of peers, at most.
GROUPS: Final = 1000
_ISOLATION: Final = (1 << 32) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What a node has to enforce: ``spread`` the policies over all endpoints, or all of them select the server."""

    policies: int = 0
    endpoints: int = 10
    addresses: int = 0
    spread: bool = True

    @property
    def label(self) -> str:
        """What to call it."""
        where = "spread over" if self.spread and self.policies > 1 else "on one of"
        parts = [f"{self.policies} {'policies' if self.policies != 1 else 'policy'} {where} {self.endpoints} pods"]
        return ", ".join(parts + ([f"{self.addresses} addresses"] if self.addresses else []))


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """An end of the traffic as the node sees it."""

    id: str
    interface: str
    address: str


def peer_address(number: int) -> str:
    """Return an address that is nobody's, of those that policies admit."""
    return f"100.{64 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"


def others(load: Load) -> list[Pod]:
    """Return the pods besides client and server: of these there is nothing but their rules."""
    names = range(max(0, load.endpoints - 2))
    return [Pod(id=f"bench/other-{at}", interface=f"ppother{at}", address=f"10.77.{at >> 8}.{at & 255}") for at in names]


def per_policy(load: Load) -> int:
    """Return how many addresses each policy admits."""
    return max(1, load.addresses // max(1, load.policies))


def placed(load: Load, server: Pod) -> Iterator[tuple[int, Pod]]:
    """Yield the number of each policy and the pod it selects; the last is the server's."""
    everybody = [*others(load), server] if load.spread else [server]
    for number in range(load.policies):
        yield number, everybody[(number - load.policies) % len(everybody)]


def group_of(number: int, load: Load) -> int:
    """Return whose peers a policy admits: from a thousand policies on they share peers, as policies of a cluster do."""
    return number if number == load.policies - 1 else number % GROUPS


def port_of(number: int, load: Load) -> int:
    """Return the port that a policy is about; the last policy's is the traffic's."""
    return PORT if number == load.policies - 1 else 10_000 + number % 50_000


def members(number: int, load: Load, client: Pod) -> list[str]:
    """Return whom a policy admits; the last policy admits the client as well."""
    share, group = per_policy(load), group_of(number, load)
    return [peer_address(group * share + at) for at in range(share)] + ([client.address] if number == load.policies - 1 else [])


def program(load: Load, client: Pod, server: Pod) -> Program:
    """Return the program of a node with this load, ingress only."""
    sets: dict[SetId, AddressSet] = {}
    policies: dict[PolicyId, Policy] = {}
    selecting: dict[str, list[PolicyId]] = {}
    for number, pod in placed(load, server):
        group = group_of(number, load)
        set_id = SetId(digest("group", str(group)))  # as the compiler names them: by content
        sets[set_id] = AddressSet(id=set_id, label=f"group {group}", members=Members(map(Cidr.parse, members(number, load, client))))
        policy = _policy(number, set_id, port_of(number, load))
        policies[policy.id] = policy
        selecting.setdefault(pod.id, []).append(policy.id)
    endpoints = [
        Endpoint(
            id=EndpointId(pod.id),
            interface=pod.interface,
            addresses=(Cidr.parse(pod.address),),
            ingress=(_tier(selecting[pod.id]),) if pod.id in selecting else (),
        )
        for pod in (client, server, *others(load))
    ]
    made = Program(endpoints={endpoint.id: endpoint for endpoint in endpoints}, policies=policies, sets=sets)
    made.check()
    return made


def _policy(number: int, set_id: SetId, port: int) -> Policy:
    origin = Origin(kind="NetworkPolicy", namespace="bench", name=f"policy-{number}", direction=Direction.INGRESS, index=0)
    rules = tuple(
        Rule(
            id=number + 1,
            action=Action.ALLOW,
            match=Match(peer=(PeerTerm((set_id,)),), protocol=protocol, ports=(PortRange(port, port),)),
            origin=origin,
        )
        for protocol in (TCP, UDP)
    )
    return Policy(id=PolicyId(f"p{number:06}"), direction=Direction.INGRESS, rules=rules)


def _tier(policies: list[PolicyId]) -> Tier:
    origin = Origin(kind="NetworkPolicy", namespace="bench", name="isolates", direction=Direction.INGRESS)
    return Tier(
        name="networkpolicy",
        policies=tuple(sorted(policies)),
        end=TierEnd.DENY,
        isolation=Isolation(id=_ISOLATION, origins=(origin,)),
        exempts_self=True,
    )


def grown(base: Program) -> Program:
    """Return a program with one address more in its first set."""
    first = base.sets[min(base.sets)]
    members = first.members.changed(added=[Cidr.parse(peer_address(1 << 17))])
    return replace(base, sets={**base.sets, first.id: replace(first, members=members)})


def shortened(base: Program) -> Program:
    """Return a program without the last policy of the first endpoint that has several."""
    endpoint = next(one for one in base.endpoints.values() if one.ingress and len(one.ingress[0].policies) > 1)
    *kept, last = endpoint.ingress[0].policies
    without = replace(endpoint, ingress=(replace(endpoint.ingress[0], policies=tuple(kept)),))
    policies = {key: policy for key, policy in base.policies.items() if key != last}
    return replace(base, endpoints={**base.endpoints, endpoint.id: without}, policies=policies)
