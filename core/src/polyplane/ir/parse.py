"""`parse_program`: the canonical text of a program back into a program, line by line, in bounded time and space."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from polyplane.errors import InvalidProgram, TextSyntaxError
from polyplane.ir.cidr import Cidr, Family
from polyplane.ir.line import Line, Token
from polyplane.ir.members import Members
from polyplane.ir.program import (
    IR_VERSION,
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

#: The bare word for "in no set at all"; a set of that name is written in quotes.
NONE: Final = "none"
#: Names of protocol numbers in the text; other protocols are written as numbers.
PROTOCOL_NAMES: Final[Mapping[int, str]] = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmpv6", 132: "sctp"}
_PROTOCOL_NUMBERS: Final = {name: number for number, name in PROTOCOL_NAMES.items()}

#: Longest text that is read, in characters.
MAX_TEXT: Final = 1 << 28

_ORIGIN_WORD: Final = "by"


def parse_program(text: str) -> Program:
    """Read the canonical text of a program.

    :raises polyplane.errors.TextSyntaxError: naming the line, for anything that is not such a text, dangling names included
    """
    if len(text) > MAX_TEXT:
        raise TextSyntaxError(1, f"text is longer than {MAX_TEXT} characters")
    parser = _Parser()
    number = 0
    for number, line in enumerate(text.split("\n"), start=1):
        content = line.strip()
        if content and not content.startswith("#"):
            try:
                parser.line(content, number)
            except InvalidProgram as error:
                raise TextSyntaxError(number, str(error)) from error
    return parser.finish(max(number, 1))


@dataclass(slots=True)
class _Parser:
    """What has been read so far; the last set, policy, endpoint and tier are open for the lines that belong to them."""

    header: Program | None = None
    node: set[Cidr] = field(default_factory=set)
    sets: dict[SetId, AddressSet] = field(default_factory=dict)
    members: dict[SetId, set[Cidr]] = field(default_factory=dict)
    policies: dict[PolicyId, tuple[Direction, list[Rule]]] = field(default_factory=dict)
    endpoints: dict[EndpointId, _OpenEndpoint] = field(default_factory=dict)
    #: The kind and id of the open block.
    block: str = ""
    id: str = ""

    def line(self, content: str, number: int) -> None:
        """Read one line."""
        if self.block == "set" and len(content.split(maxsplit=1)) == 1:
            # Members are most of a big text: they skip the tokens. Every other line has at least two words.
            self._member(content, number)
            return
        line = Line(content, number)
        word = line.word("a keyword")
        reader = _READERS.get((self.block, word)) or _READERS.get(("", word))
        if self.header is None and word != "program":
            raise line.error("the text must begin with a 'program' line")
        if reader is None:
            raise line.error(f"{word[:40]!r} is not understood here")
        reader(self, line)
        line.end()

    def finish(self, last_line: int) -> Program:
        """Return the program."""
        if self.header is None:
            raise TextSyntaxError(last_line, "the text must begin with a 'program' line")
        return replace(
            self.header,
            node_addresses=frozenset(self.node),
            sets={set_id: replace(value, members=Members(self.members[set_id])) for set_id, value in self.sets.items()},
            policies={name: Policy(id=name, direction=way, rules=tuple(rules)) for name, (way, rules) in self.policies.items()},
            endpoints={name: endpoint.build(last_line) for name, endpoint in self.endpoints.items()},
        )

    def _open(self, block: str, name: str, table: Mapping[Any, Any], line: Line) -> None:
        if name in table:
            raise line.error(f"{block} {name[:80]!r} is defined twice")
        self.block, self.id = block, name

    def read_program(self, line: Line) -> None:
        if self.header is not None:
            raise line.error("only one 'program' line is allowed")
        keys = _keys(line, "version", "revision", "established", "deny-action")
        version = line.number_of(keys.get("version", "missing"), "version")
        if version != IR_VERSION:
            raise line.error(f"the text is of IR version {version}, this is {IR_VERSION}")
        options = Options(
            established=line.enum(Established, keys.get("established", Options().established), "established"),
            deny_action=line.enum(DenyAction, keys.get("deny-action", Options().deny_action), "deny-action"),
        )
        self.header = Program(revision=line.number_of(keys.get("revision", "0"), "revision"), options=options)

    def read_node(self, line: Line) -> None:
        self.node.add(_address(line))

    def read_set(self, line: Line) -> None:
        name = SetId(line.word("a set id"))
        self._open("set", name, self.sets, line)
        self.sets[name] = AddressSet(id=name, label=line.word("the set's label"), members=Members())
        self.members[name] = set()

    def _member(self, content: str, number: int) -> None:
        if len(content) > 64:
            raise TextSyntaxError(number, f"{content[:40]!r}… is no prefix")
        self.members[SetId(self.id)].add(Cidr.parse(content))

    def read_policy(self, line: Line) -> None:
        name = PolicyId(line.word("a policy id"))
        self._open("policy", name, self.policies, line)
        self.policies[name] = (line.enum(Direction, line.word("the direction"), "direction"), [])

    def read_rule(self, line: Line) -> None:
        rule_id = line.number_of(line.word("a rule id"), "rule id")
        action = line.enum(Action, line.word("an action"), "action")
        match: dict[str, Any] = {}
        while (key := line.word("'by' and the rule's origin")) != _ORIGIN_WORD:
            line.expect("=")
            reader = _MATCH_READERS.get(key)
            if reader is None:
                raise line.error(f"{key[:40]!r} is no part of a match; there are {', '.join(_MATCH_READERS)}")
            attribute = key.replace("-", "_")
            if key == "peer":
                match[attribute] = (*match.get(attribute, ()), reader(line))
            elif attribute in match:
                raise line.error(f"{key!r} is given twice")
            else:
                match[attribute] = reader(line)
        built = Match(**match)
        for set_id in (set_id for term in built.peer for set_id in term.sets):
            if set_id not in self.sets:
                raise line.error(f"set {set_id[:80]!r} is not defined above")
        self.policies[PolicyId(self.id)][1].append(Rule(id=rule_id, action=action, match=built, origin=_origin(line)))

    def read_endpoint(self, line: Line) -> None:
        name = EndpointId(line.word("an endpoint id"))
        self._open("endpoint", name, self.endpoints, line)
        self.endpoints[name] = _OpenEndpoint(id=name, line=line.number, interface=_keys(line, "interface").get("interface"))

    def read_address(self, line: Line) -> None:
        self.endpoints[EndpointId(self.id)].addresses.append(_address(line))

    def read_tier(self, line: Line) -> None:
        line.position -= 1
        direction = Direction(line.word("a direction"))
        keys = _keys(line, "tier", "end", "isolation", "self")
        if "tier" not in keys:
            raise line.error("'tier=' and its name are missing")
        if keys.get("self", "exempt") != "exempt":
            raise line.error(f"self must be exempt, not {keys['self'][:40]!r}")
        isolation = line.number_of(keys["isolation"], "isolation") if "isolation" in keys else None
        end = line.enum(TierEnd, keys.get("end", TierEnd.NEXT), "end")
        if (isolation is None) != (end is TierEnd.NEXT):
            raise line.error("end=deny needs isolation= and its rule id, and only end=deny has it")
        self.endpoints[EndpointId(self.id)].tiers.append(
            _OpenTier(direction=direction, name=keys["tier"], end=end, isolation=isolation, exempts_self="self" in keys)
        )

    def _tier(self, line: Line) -> _OpenTier:
        tiers = self.endpoints[EndpointId(self.id)].tiers
        if not tiers:
            raise line.error("there is no tier above that this line could belong to")
        return tiers[-1]

    def read_tier_policy(self, line: Line) -> None:
        name = PolicyId(line.word("a policy id"))
        tier = self._tier(line)
        direction, _ = self.policies.get(name, (None, None))
        if direction is not tier.direction:
            raise line.error(f"{tier.direction} policy {name[:80]!r} is not defined above")
        tier.policies.append(name)

    def read_isolating(self, line: Line) -> None:
        tier = self._tier(line)
        if tier.isolation is None:
            raise line.error("only a tier with end=deny says by what")
        tier.origins.append(_origin(line))


@dataclass(slots=True, kw_only=True)
class _OpenTier:
    direction: Direction
    name: str
    end: TierEnd
    isolation: int | None
    exempts_self: bool
    policies: list[PolicyId] = field(default_factory=list)
    origins: list[Origin] = field(default_factory=list)

    def build(self) -> Tier:
        isolation = None if self.isolation is None else Isolation(id=self.isolation, origins=tuple(self.origins))
        return Tier(name=self.name, policies=tuple(self.policies), end=self.end, isolation=isolation, exempts_self=self.exempts_self)


@dataclass(slots=True, kw_only=True)
class _OpenEndpoint:
    id: EndpointId
    line: int
    interface: str | None
    addresses: list[Cidr] = field(default_factory=list)
    tiers: list[_OpenTier] = field(default_factory=list)

    def build(self, last_line: int) -> Endpoint:
        stacks = {way: tuple(tier.build() for tier in self.tiers if tier.direction is way) for way in Direction}
        try:
            return Endpoint(
                id=self.id,
                interface=self.interface,
                addresses=tuple(self.addresses),
                ingress=stacks[Direction.INGRESS],
                egress=stacks[Direction.EGRESS],
            )
        except InvalidProgram as error:
            raise TextSyntaxError(min(self.line, last_line), str(error)) from error


def _keys(line: Line, *known: str) -> dict[str, str]:
    """Take ``key=word`` pairs to the end of the line."""
    found: dict[str, str] = {}
    while line.more:
        key = line.word("a key")
        if key not in known or key in found:
            raise line.error(f"{key[:40]!r} is not understood here or given twice; there are {', '.join(known)}")
        line.expect("=")
        found[key] = line.word(f"the value of {key}")
    return found


def _address(line: Line) -> Cidr:
    address = Cidr.parse(line.word("an address")[:64])
    if not address.is_host:
        raise line.error(f"{address} is not a single address")
    return address


def _origin(line: Line) -> Origin:
    kind = line.word("the origin's kind")
    where = line.next("the origin's name")
    if where.kind == "string":
        namespace, name = where.text, line.word("the origin's name")
    else:
        namespace, _, name = where.text.rpartition("/")
    direction = line.enum(Direction, line.word("the origin's direction"), "direction")
    index = None
    if line.take("["):
        index = line.number_of(line.word("the rule's index"), "index")
        line.expect("]")
    return Origin(kind=kind, namespace=namespace, name=name, direction=direction, index=index)


def _family(line: Line) -> Family:
    text = line.word("the family")
    if text not in ("ipv4", "ipv6"):
        raise line.error(f"family must be ipv4 or ipv6, not {text[:40]!r}")
    return Family(int(text[3]))


def _protocol(line: Line) -> int:
    text = line.word("the protocol")
    return _PROTOCOL_NUMBERS[text] if text in _PROTOCOL_NUMBERS else line.number_of(text, "protocol", 255)


def _peer(line: Line) -> PeerTerm:
    negated = line.take("!")
    items = line.items("a set id")
    if items == [Token(NONE, "bare")]:
        return PeerTerm((), negated)
    return PeerTerm(tuple(SetId(item.text) for item in items), negated)


def _ports(line: Line) -> tuple[PortRange, ...]:
    ranges = []
    for item in line.items("a port"):
        first, dash, last = item.text.partition("-")
        low = line.number_of(first, "port", 65535)
        ranges.append(PortRange(low, line.number_of(last, "port", 65535) if dash else low))
    return tuple(ranges)


def _icmp(line: Line) -> tuple[IcmpType, ...]:
    types = []
    for item in line.items("an ICMP type"):
        number, slash, code = item.text.partition("/")
        types.append(IcmpType(line.number_of(number, "ICMP type", 255), line.number_of(code, "ICMP code", 255) if slash else None))
    return tuple(types)


_READERS: Final[Mapping[tuple[str, str], Callable[[_Parser, Line], None]]] = {
    ("", "program"): _Parser.read_program,
    ("", "node"): _Parser.read_node,
    ("", "set"): _Parser.read_set,
    ("", "policy"): _Parser.read_policy,
    ("policy", "rule"): _Parser.read_rule,
    ("", "endpoint"): _Parser.read_endpoint,
    ("endpoint", "address"): _Parser.read_address,
    ("endpoint", "ingress"): _Parser.read_tier,
    ("endpoint", "egress"): _Parser.read_tier,
    ("endpoint", "policy"): _Parser.read_tier_policy,
    ("endpoint", "by"): _Parser.read_isolating,
}

_MATCH_READERS: Final[Mapping[str, Callable[[Line], Any]]] = {
    "family": _family,
    "protocol": _protocol,
    "not-protocol": _protocol,
    "peer": _peer,
    "ports": _ports,
    "not-ports": _ports,
    "source-ports": _ports,
    "not-source-ports": _ports,
    "icmp": _icmp,
    "not-icmp": _icmp,
}
