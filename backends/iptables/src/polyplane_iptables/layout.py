"""`Layout`: a program as chains, jumps and sets.

```
FORWARD ─ polyplane-forward      replies leave; ICMP goes to polyplane-forward-icmp and comes out below
            polyplane-from       which endpoint sends? (-i, a prefix tree) → its chain → its stack's chain
            polyplane-to         which endpoint is it for? (-o)            → likewise
            polyplane-mid-stream TCP that begins in the middle
INPUT   ─ polyplane-input        the same for packets from pods to the node itself: only who sends
OUTPUT  ─ polyplane-output       only TCP that begins in the middle
```
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from polyplane.backend_kit.attachments import Attachment, Attachments
from polyplane.backend_kit.deltas import whole
from polyplane.backend_kit.labels import plain
from polyplane.ir.cidr import BITS, Cidr
from polyplane.ir.delta import Delta
from polyplane.ir.program import EMPTY, Direction, Endpoint, PortRange, Program, SetId, Stack
from polyplane_iptables.base import add_base
from polyplane_iptables.decisions import Decisions, Style
from polyplane_iptables.dispatch import address_tree, host_text, interface_tree
from polyplane_iptables.members import FamilyMembers
from polyplane_iptables.native import Chain, Filter, Native
from polyplane_iptables.owned import FROM, MID_FROM, MID_TO, TO, by_address, endpoint_chain


@dataclass(frozen=True, slots=True)
class _Question:
    """A tree's root, how it asks for endpoints, and the letter its branches are named with."""

    entry: str
    interface: str
    address: str
    letter: str


#: By direction: who is asked for its policy, and whom the guard against TCP that begins in the middle protects. The guard looks
#: at the packet's other end: an endpoint with ingress policy must not start in the middle, nobody may towards one with egress policy.
_POLICY: Final = {Direction.EGRESS: _Question(FROM, "-i", "-s", "f"), Direction.INGRESS: _Question(TO, "-o", "-d", "t")}
_GUARD: Final = {Direction.EGRESS: _Question(MID_TO, "-o", "-d", "h"), Direction.INGRESS: _Question(MID_FROM, "-i", "-s", "g")}


@dataclass(slots=True)
class _Work:
    """One family's table in the making.

    ``generations``: of sets that do not go by their first name. ``used`` and ``ports``: the sets that rules ask, by kernel name.
    """

    family: int
    generations: Mapping[str, int]
    used: dict[str, tuple[SetId, int]]
    ports: dict[str, tuple[PortRange, ...]]
    made: Filter = field(default_factory=Filter)


class Layout:
    """Follows programs; `native` says how the present one looks in the kernel."""

    def __init__(self, style: Style = Style()) -> None:  # noqa: B008 (frozen)
        self.program: Program = EMPTY
        self._attachments = Attachments()
        self._decisions = Decisions(style)
        self._members: Final[dict[SetId, FamilyMembers]] = {}

    @classmethod
    def of(cls, program: Program, style: Style = Style()) -> Layout:  # noqa: B008 (frozen)
        """Return the layout of a whole program."""
        layout = cls(style)
        layout.follow(whole(program))
        return layout

    def holds(self, program: Program) -> bool:
        """Whether this is the layout of a program."""
        return self.program is program or self.program.same_content(program)

    def follow(self, delta: Delta) -> None:
        """Go to a delta's target, cheaply if its base is what we hold."""
        if self.holds(delta.base):
            self._attachments.update(delta)
        else:
            self._attachments = Attachments()
            self._attachments.update(whole(delta.target))
        style = replace(self._decisions.style, deny_action=delta.target.options.deny_action)
        if self._decisions.style != style:
            self._decisions = Decisions(style)
        self.program = delta.target

    def native(self, generations: Mapping[str, int]) -> Native:
        """Return what should be in the kernel.

        :param generations: of those sets that do not go by their first name (`polyplane_iptables.owned.set_name`)
        """
        native, used, ports = Native(), dict[str, tuple[SetId, int]](), dict[str, tuple[PortRange, ...]]()
        for family in BITS:
            native.filters[family] = self._filter(_Work(family, generations, used, ports))
        ids = {set_id for set_id, _ in used.values()}
        for set_id in self._members.keys() - ids:
            del self._members[set_id]
        for set_id in ids:
            self._members.setdefault(set_id, FamilyMembers()).follow(self.program.sets[set_id].members)
        native.sets = {name: self._members[set_id].of(family) for name, (set_id, family) in used.items()}
        native.ports = {name: frozenset(one for first, last in ranges for one in range(first, last + 1)) for name, ranges in ports.items()}
        self._decisions.tidy()
        return native

    def _filter(self, work: _Work) -> Filter:
        chains = work.made.chains
        for direction in Direction:
            policy, guard = _POLICY[direction], _GUARD[direction]
            places: list[tuple[Attachment, str]] = []
            for endpoint in self.program.endpoints.values():
                attachment, stack = self._attachments.of(endpoint.id), endpoint.stack(direction)
                if stack and attachment is not None:
                    name = endpoint_chain(policy.letter, endpoint.id)
                    chains[name] = self._endpoint(endpoint, attachment, direction, work)
                    places.append((attachment, f"-g {name}"))
            _add_trees(policy, places, work)
            _add_trees(guard, [(attachment, "-j DROP") for attachment, _ in places], work)
        add_base(work.made, work.family, self.program.options)
        return work.made

    def _endpoint(self, endpoint: Endpoint, attachment: Attachment, direction: Direction, work: _Work) -> Chain:
        """Return an endpoint's own chain: traffic to itself apart, everything else as its stack decides."""

        def decide(tiers: Stack) -> str:
            decision = self._decisions.of(tiers, self.program.policies, direction, work.family, work.generations)
            work.made.chains.update(decision.chains)
            work.used.update(decision.sets)
            work.ports.update(decision.ports)
            return decision.entry

        rules, stack = [], endpoint.stack(direction)
        to_self = tuple(tier for tier in stack if not tier.exempts_self)
        own = [host_text(address) for address in attachment.own if address.family == work.family]
        if to_self != stack and own:
            target = decide(to_self)
            rules += [f"-s {source} -d {destination} {target}" for source in own for destination in own]
        rules.append(f'-m comment --comment "endpoint {plain(endpoint.id)}" {decide(stack)}')
        return Chain(rules)


def _add_trees(question: _Question, places: list[tuple[Attachment, str]], work: _Work) -> None:
    """Add the tree over interfaces, and behind it the one over the addresses of endpoints without a usable interface."""
    names = {attachment.interface: target for attachment, target in places if attachment.interface is not None}
    hosts: dict[Cidr, str] = {}
    for attachment, target in places:
        hosts.update((host, target) for host in attachment.addresses if host.family == work.family)
    if not names and not hosts:
        return
    chains, tail = work.made.chains, tuple[str, ...]()
    if hosts:
        tree = address_tree(question.address, question.letter, hosts)
        chains[by_address(question.entry)] = Chain(tree.rules)
        chains.update(tree.chains)
        tail = (f"-g {by_address(question.entry)}",)
    tree = interface_tree(question.interface, question.letter, names, tail)
    chains[question.entry] = Chain(tree.rules)
    chains.update(tree.chains)
