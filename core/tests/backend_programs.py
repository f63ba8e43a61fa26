"""Programs for the tests of backends."""

from __future__ import annotations

from dataclasses import replace

from polyplane.ir.cidr import Cidr
from polyplane.ir.members import Members
from polyplane.ir.program import (
    Action,
    AddressSet,
    DenyAction,
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


def number(*parts: str) -> int:
    return int(digest(*parts)[:8], 16) | 1


def with_content_ids(program: Program) -> Program:
    """Give policies and rules the ids that the compiler would: derived from what they say."""
    renamed: dict[PolicyId, Policy] = {}
    for policy in program.policies.values():
        rules = tuple(replace(rule, id=number(str(rule.origin))) for rule in policy.rules)
        renamed[policy.id] = Policy(id=PolicyId(digest(repr(rules), policy.direction)), direction=policy.direction, rules=rules)

    def stack(old: Stack) -> Stack:
        return tuple(
            replace(
                tier,
                policies=tuple(dict.fromkeys(renamed[policy_id].id for policy_id in tier.policies)),
                isolation=tier.isolation and Isolation(id=number(str(tier.isolation)), origins=tier.isolation.origins),
            )
            for tier in old
        )

    def endpoint(old: Endpoint) -> Endpoint:
        return replace(old, ingress=stack(old.ingress), egress=stack(old.egress))

    return replace(
        program,
        policies={policy.id: policy for policy in renamed.values()},
        endpoints={key: endpoint(value) for key, value in program.endpoints.items()},
    )


def origin(name: str, direction: Direction, index: int | None = 0, *, kind: str = "NetworkPolicy") -> Origin:
    return Origin(kind=kind, namespace="shop", name=name, direction=direction, index=index)


def address_set(name: str, *members: str) -> AddressSet:
    return AddressSet(id=SetId(name), label=name, members=Members(map(Cidr.parse, members)))


def rule(name: str, direction: Direction, index: int, action: Action = Action.ALLOW, **match: object) -> Rule:
    where = origin(name, direction, index)
    sets = match.pop("sets", ())
    peer = (PeerTerm(tuple(sorted(SetId(each) for each in sets))),) if sets else ()  # type: ignore[attr-defined]
    return Rule(id=number(str(where)), action=action, match=Match(peer=peer, **match), origin=where)  # type: ignore[arg-type]


def policy(direction: Direction, *rules: Rule) -> Policy:
    return Policy(id=PolicyId(digest(direction, repr(rules))), direction=direction, rules=rules)


def isolated(direction: Direction, *policies: Policy, name: str = "isolates") -> Stack:
    """NetworkPolicy's tier: any allow rule allows, everything else is denied, traffic to oneself is exempt."""
    why = origin(name, direction, None)
    isolation = Isolation(id=number(str(why)), origins=(why,))
    ids = tuple(sorted(each.id for each in policies))
    return (Tier(name="networkpolicy", policies=ids, end=TierEnd.DENY, isolation=isolation, exempts_self=True),)


def admin(*policies: Policy) -> Stack:
    return (Tier(name="admin", policies=tuple(each.id for each in policies)),)


def endpoint(name: str, interface: str | None, *addresses: str, ingress: Stack = (), egress: Stack = ()) -> Endpoint:
    return Endpoint(
        id=EndpointId(f"shop/{name}"),
        interface=interface,
        addresses=tuple(map(Cidr.parse, addresses)),
        ingress=ingress,
        egress=egress,
    )


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


IN, OUT = Direction.INGRESS, Direction.EGRESS
FRONT = address_set("front", "10.0.0.2", "fd00::2")
BLOCK = address_set("block", "172.16.0.0/12", "172.17.0.0/16", "fd01::/64", "192.0.2.7")
EXCEPT = address_set("except", "172.17.3.0/24")


def web(*, members: AddressSet = FRONT, options: Options = Options()) -> Program:  # noqa: B008 (frozen)
    """One pod that the front end may reach on TCP 80 and 443, another that has no policy."""
    allow = policy(IN, rule("web", IN, 0, sets=("front",), protocol=6, ports=(PortRange(80, 80), PortRange(443, 443))))
    return program(
        endpoint("web", "veth-web", "10.0.0.1", "fd00::1", ingress=isolated(IN, allow)),
        endpoint("free", "veth-free", "10.0.0.9"),
        allow,
        members,
        options=options,
    )


def examples() -> dict[str, Program]:
    """Programs whose batches are golden files."""
    blocks = policy(
        OUT,
        rule("blocks", OUT, 0, sets=("block",), protocol=6, ports=(PortRange(8000, 8999),)),
        rule("blocks", OUT, 1, protocol=17, ports=(PortRange(53, 53),)),
    )
    tiers = policy(
        IN,
        rule("audit", IN, 0, Action.LOG, sets=("front",)),
        rule("audit", IN, 1, Action.PASS, sets=("front",), protocol=6),
        rule("audit", IN, 2, Action.DENY, protocol=6, source_ports=(PortRange(0, 1023), PortRange(1024, 1024))),
        rule("audit", IN, 3, Action.DENY, protocol=47),
    )
    ports = policy(IN, *(rule("ports", IN, at, sets=("front",), protocol=6, ports=(PortRange(at * 10, at * 10),)) for at in range(1, 9)))
    ping = policy(
        IN,
        rule("ping", IN, 0, protocol=1, icmp=(IcmpType(8), IcmpType(3, 4))),
        rule("ping", IN, 1, protocol=58, not_icmp=(IcmpType(129),)),
    )
    sctp = policy(OUT, rule("sctp", OUT, 0, sets=("front",), protocol=132, not_ports=(PortRange(0, 3867),)))
    hostile = policy(IN, Rule(id=7, action=Action.ALLOW, origin=replace(origin('x"; flush ruleset; #\n', IN), namespace="a b")))
    return {
        "empty": program(),
        "one-pod": web(),
        "keep-and-reject": web(options=Options(established=Established.KEEP, deny_action=DenyAction.REJECT)),
        "blocks": program(endpoint("a", "veth-a", "10.0.0.1", egress=isolated(OUT, blocks)), blocks, BLOCK, EXCEPT),
        "by-address": program(
            endpoint("a", None, "10.0.0.1", "fd00::1", egress=isolated(OUT, blocks)),
            endpoint("b", 'v"; drop', "10.0.0.3", ingress=isolated(IN, ports)),
            blocks,
            ports,
            BLOCK,
            FRONT,
        ),
        "tiers": program(
            endpoint("a", "veth-a", "10.0.0.2", ingress=(*admin(tiers), *isolated(IN, ports))),
            endpoint("b", "veth-b", "10.0.0.3", ingress=admin(tiers)),
            tiers,
            ports,
            FRONT,
        ),
        "icmp-and-sctp": program(
            endpoint("a", "veth-a", "10.0.0.1", "fd00::1", ingress=isolated(IN, ping), egress=isolated(OUT, sctp)), ping, sctp, FRONT
        ),
        "hostile-names": program(endpoint("a", "veth*", "10.0.0.1", ingress=isolated(IN, hostile, name="é\n}")), hostile),
    }
