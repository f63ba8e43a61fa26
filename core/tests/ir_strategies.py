"""Random, consistent programs with names and numbers as a hostile cluster would choose them; in `ir_programs` rules meet."""

from __future__ import annotations

from hypothesis import strategies as st

from polyplane.ir.cidr import BITS, Cidr, Family
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
    Tier,
    TierEnd,
)

#: Names as a hostile cluster would choose them: quotes, newlines, comment signs, lone surrogates, our own keywords.
hostile = st.text(max_size=8) | st.sampled_from(
    ["", "none", '"', "a/b", "x\ny", "#", "by", "\ud800", "🐙", "a b", "[0]", "\\", "\x7f", "\u2028"]
)
plain = st.from_regex(r"[a-z][a-z0-9-]{0,8}", fullmatch=True)
names = plain | hostile
rule_ids = st.integers(1, (1 << 32) - 1)


@st.composite
def cidrs(draw: st.DrawFn, *, host: bool = False) -> Cidr:
    """Prefixes, clustered so that they overlap often."""
    family = draw(st.sampled_from([4, 6]))
    bits = BITS[family]
    length = bits if host else draw(st.sampled_from([0, 8, bits - 8, bits - 1, bits]) | st.integers(0, bits))
    base = 0x0A000000 if family == 4 else 0xFD << 120
    address = draw(st.integers(0, 15).map(lambda low: base + low) | st.integers(0, (1 << bits) - 1))
    return Cidr(family, address, bits).prefix(length)


hosts = cidrs(host=True)
origins = st.builds(
    Origin,
    kind=names,
    namespace=names,
    name=names,
    direction=st.sampled_from(Direction),
    index=st.none() | st.integers(0, 9),
)


def port_ranges() -> st.SearchStrategy[tuple[PortRange, ...]]:
    """None to three ranges, anywhere."""
    ends = st.tuples(st.integers(0, 65535), st.integers(0, 65535)).map(sorted)
    return st.lists(ends.map(lambda pair: PortRange(*pair)), max_size=3).map(tuple)


def icmp_types() -> st.SearchStrategy[tuple[IcmpType, ...]]:
    """None to two types, with or without a code."""
    return st.lists(st.builds(IcmpType, st.integers(0, 255), st.none() | st.integers(0, 255)), max_size=2).map(tuple)


@st.composite
def matches(draw: st.DrawFn, set_ids: list[SetId]) -> Match:
    """Matches that name only the given sets."""
    protocol = draw(st.none() | st.sampled_from([1, 6, 17, 58, 132]) | st.integers(0, 255))
    peer = []
    for _ in range(draw(st.integers(0, 2))):
        chosen = draw(st.sets(st.sampled_from(set_ids), max_size=3)) if set_ids else set()
        peer.append(PeerTerm(tuple(sorted(chosen)), draw(st.booleans())))
    parts: dict[str, object] = {}
    if protocol in (6, 17, 132):
        parts = {key: draw(port_ranges()) for key in ("ports", "not_ports", "source_ports", "not_source_ports")}
    elif protocol in (1, 58):
        parts = {key: draw(icmp_types()) for key in ("icmp", "not_icmp")}
    return Match(
        family=draw(st.none() | st.sampled_from(Family)),
        protocol=protocol,
        not_protocol=draw(st.none() | st.integers(0, 255)),
        peer=tuple(peer),
        **parts,  # type: ignore[arg-type]
    )


@st.composite
def programs(draw: st.DrawFn, *, max_endpoints: int = 3) -> Program:
    """Consistent programs with shared sets and policies, every kind of match and every kind of tier."""
    set_ids = [SetId(name) for name in draw(st.lists(names, unique=True, max_size=4))]
    sets = {set_id: AddressSet(id=set_id, label=draw(names), members=Members(draw(st.lists(cidrs(), max_size=4)))) for set_id in set_ids}
    policies = {}
    for name in draw(st.lists(names, unique=True, max_size=4)):
        rules = st.builds(Rule, id=rule_ids, action=st.sampled_from(Action), match=matches(set_ids), origin=origins)
        policies[PolicyId(name)] = Policy(
            id=PolicyId(name), direction=draw(st.sampled_from(Direction)), rules=tuple(draw(st.lists(rules, max_size=3)))
        )
    endpoints = {}
    for name in draw(st.lists(names, unique=True, max_size=max_endpoints)):
        endpoints[EndpointId(name)] = Endpoint(
            id=EndpointId(name),
            interface=draw(st.none() | names),
            addresses=tuple(sorted(set(draw(st.lists(hosts, min_size=1, max_size=2))))),
            ingress=draw(stacks(policies, Direction.INGRESS)),
            egress=draw(stacks(policies, Direction.EGRESS)),
        )
    return Program(
        revision=draw(st.integers(0, 9)),
        endpoints=endpoints,
        policies=policies,
        sets=sets,
        node_addresses=frozenset(draw(st.lists(hosts, max_size=2))),
        options=Options(established=draw(st.sampled_from(Established)), deny_action=draw(st.sampled_from(DenyAction))),
    )


@st.composite
def stacks(draw: st.DrawFn, policies: dict[PolicyId, Policy], direction: Direction) -> tuple[Tier, ...]:
    """Up to two tiers over policies of the direction."""
    usable = [policy_id for policy_id, policy in policies.items() if policy.direction is direction]
    tiers = []
    for _ in range(draw(st.integers(0, 2))):
        isolation = draw(st.none() | st.builds(Isolation, id=rule_ids, origins=st.lists(origins, max_size=2).map(tuple)))
        tiers.append(
            Tier(
                name=draw(names),
                policies=tuple(draw(st.lists(st.sampled_from(usable), max_size=3))) if usable else (),
                end=TierEnd.NEXT if isolation is None else TierEnd.DENY,
                isolation=isolation,
                exempts_self=draw(st.booleans()),
            )
        )
    return tuple(tiers)
