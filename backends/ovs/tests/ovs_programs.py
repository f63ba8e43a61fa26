"""Programs for the tests of this backend."""

from __future__ import annotations

from dataclasses import replace

from polyplane.ir.cidr import Cidr
from polyplane.ir.members import Members
from polyplane.ir.program import (
    Action,
    AddressSet,
    Direction,
    Endpoint,
    EndpointId,
    Established,
    IcmpType,
    Isolation,
    Match,
    Options,
    Origin,
    PeerTerm,
    Policy,
    PolicyId,
    PortRange,
    Program,
    Rule,
    SetId,
    Stack,
    Tier,
    TierEnd,
    digest,
)

IN, OUT = Direction.INGRESS, Direction.EGRESS


def number(*parts: str) -> int:
    return int(digest(*parts)[:8], 16) | 1


def with_content_ids(program: Program) -> Program:
    """Name policies by what they say, as the compiler does: tables are told apart by the stacks that name them."""
    names = {policy_id: PolicyId(digest(repr(policy))) for policy_id, policy in program.policies.items()}

    def stack(tiers: Stack) -> Stack:
        return tuple(replace(tier, policies=tuple(names[each] for each in tier.policies)) for tier in tiers)

    return replace(
        program,
        policies={names[policy_id]: replace(policy, id=names[policy_id]) for policy_id, policy in program.policies.items()},
        endpoints={
            key: replace(endpoint, ingress=stack(endpoint.ingress), egress=stack(endpoint.egress))
            for key, endpoint in program.endpoints.items()
        },
    )


def rule(
    name: str, direction: Direction, index: int, action: Action = Action.ALLOW, *, sets: tuple[str, ...] = (), **match: object
) -> Rule:
    origin = Origin(kind="NetworkPolicy", namespace="shop", name=name, direction=direction, index=index)
    peer = (PeerTerm(tuple(sorted(map(SetId, sets)))),) if sets else ()
    return Rule(id=number(str(origin)), action=action, match=Match(peer=peer, **match), origin=origin)  # type: ignore[arg-type]


def policy(direction: Direction, *rules: Rule) -> Policy:
    return Policy(id=PolicyId(digest(direction, repr(rules))), direction=direction, rules=rules)


def isolated(direction: Direction, *policies: Policy) -> Stack:
    why = Origin(kind="NetworkPolicy", namespace="shop", name="isolates", direction=direction)
    isolation = Isolation(id=number(str(why), direction), origins=(why,))
    ids = tuple(sorted(each.id for each in policies))
    return (Tier(name="networkpolicy", policies=ids, end=TierEnd.DENY, isolation=isolation, exempts_self=True),)


def endpoint(name: str, *addresses: str, interface: str | None = None, ingress: Stack = (), egress: Stack = ()) -> Endpoint:
    cidrs = tuple(map(Cidr.parse, addresses))
    return Endpoint(id=EndpointId(f"shop/{name}"), interface=interface, addresses=cidrs, ingress=ingress, egress=egress)


def address_set(name: str, *members: str) -> AddressSet:
    return AddressSet(id=SetId(name), label=name, members=Members(map(Cidr.parse, members)))


def program(*parts: Endpoint | Policy | AddressSet, options: Options = Options(), nodes: tuple[str, ...] = ()) -> Program:  # noqa: B008 (frozen)
    made = Program(
        endpoints={part.id: part for part in parts if isinstance(part, Endpoint)},
        policies={part.id: part for part in parts if isinstance(part, Policy)},
        sets={part.id: part for part in parts if isinstance(part, AddressSet)},
        options=options,
        node_addresses=frozenset(map(Cidr.parse, nodes)),
    )
    made.check()
    return made


def web(*friends: str, options: Options = Options()) -> Program:  # noqa: B008 (frozen)
    """One pod that its friends may reach on TCP 80 and 8000 to 8999, and one without policy."""
    allow = policy(IN, rule("web", IN, 0, sets=("friends",), protocol=6, ports=(PortRange(80, 80), PortRange(8000, 8999))))
    return program(
        endpoint("web", "10.0.0.1", "fd00::1", interface="veth-web", ingress=isolated(IN, allow)),
        endpoint("free", "10.0.0.9"),
        allow,
        address_set("friends", *(friends or ("10.0.0.2", "fd00::2"))),
        options=options,
        nodes=("192.0.2.1",),
    )


def examples() -> dict[str, Program]:
    """Programs whose flows are golden files."""
    blocks = policy(
        OUT,
        rule("blocks", OUT, 0, sets=("block",), protocol=6, ports=(PortRange(1000, 2000),)),
        rule("blocks", OUT, 1, protocol=17, ports=(PortRange(53, 53),)),
    )
    block = address_set("block", "172.16.0.0/12", "172.17.0.0/16", "fd01::/63", "192.0.2.7", "0.0.0.0/0")
    audit = policy(
        IN,
        rule("audit", IN, 0, Action.LOG, sets=("friends",)),
        rule("audit", IN, 1, Action.PASS, sets=("friends",), protocol=6),
        rule("audit", IN, 2, Action.DENY, protocol=6, source_ports=(PortRange(0, 1024),)),
        rule("audit", IN, 3, Action.DENY, protocol=132, not_source_ports=(PortRange(9, 9),)),
        rule("audit", IN, 4, Action.DENY, protocol=47),
    )
    ping = policy(
        IN,
        rule("ping", IN, 0, protocol=1, icmp=(IcmpType(8), IcmpType(3, 4))),
        rule("ping", IN, 1, protocol=58, not_icmp=(IcmpType(129),)),
    )
    friends = address_set("friends", "10.0.0.2", "fd00::2")
    return {
        "empty": program(),
        "web": web(),
        "keep": web(options=Options(established=Established.KEEP)),
        "blocks": program(endpoint("a", "10.0.0.1", egress=isolated(OUT, blocks)), blocks, block),
        "tiers": program(
            endpoint("a", "10.0.0.2", ingress=(Tier(name="admin", policies=(audit.id,)), *isolated(IN, ping))), audit, ping, friends
        ),
        "hostile": program(endpoint('a",actions=NORMAL #\n', "10.0.0.1", interface='v"\n,', ingress=isolated(IN))),
    }
