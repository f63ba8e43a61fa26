"""`Pipeline`: the flows that do not depend on any endpoint or policy, and the frame that all others fit into."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from polyplane.ir.cidr import Cidr
from polyplane.ir.program import ICMP, ICMPV6, NEIGHBOUR_DISCOVERY, SCTP, TCP, UDP, DenyAction, Direction, Established
from polyplane_ovs import fields
from polyplane_ovs.flows import Flow, Key, Value, match_text
from polyplane_ovs.openflow import CONTROLLER_ID
from polyplane_ovs.options import OvsOptions
from polyplane_ovs.owned import Stage, cookie

DROP: Final = "drop"
#: What ``vlan_tci`` shows of a packet without VLAN tag.
UNTAGGED: Final = "vlan_tci=0x0000/0x1fff"

#: Protocol words by family and number, for what every conntrack follows by port or ICMP type.
_TRACKED: Final = {
    4: {TCP: "tcp", UDP: "udp", ICMP: "icmp"},
    6: {TCP: "tcp6", UDP: "udp6", ICMPV6: "icmp6"},
}
_SCTP: Final = {4: "sctp", 6: "sctp6"}
_ETHERTYPE: Final = {4: "0x800", 6: "0x86dd"}
_MULTICAST: Final = "dl_dst=01:00:00:00:00:00/01:00:00:00:00:00"
_PROTOCOL_INTO_KEY: Final = f"move:NXM_OF_IP_PROTO[]->NXM_NX_REG{fields.KEY}[16..23]"
#: Source and destination address: of the connection as conntrack has it, and of the packet.
_ORIGINAL: Final = {4: ("NXM_NX_CT_NW_SRC[]", "NXM_NX_CT_NW_DST[]"), 6: ("NXM_NX_CT_IPV6_SRC[]", "NXM_NX_CT_IPV6_DST[]")}
_HEADER: Final = {4: ("NXM_OF_IP_SRC[]", "NXM_OF_IP_DST[]"), 6: ("NXM_NX_IPV6_SRC[]", "NXM_NX_IPV6_DST[]")}
_ADDRESSES: Final = {
    4: (f"NXM_NX_REG{fields.SOURCE}[]", f"NXM_NX_REG{fields.DESTINATION}[]"),
    6: (f"NXM_NX_XXREG{fields.SOURCE // 4}[]", f"NXM_NX_XXREG{fields.DESTINATION // 4}[]"),
}
_SCTP_PORTS: Final = ("OXM_OF_SCTP_SRC", "OXM_OF_SCTP_DST")
#: Seconds that the way back stays open after the last packet either way, and how many ways there may be at once.
_LEARNED_FOR: Final = 120
LEARNED_MOST: Final = 20000
#: Seconds after an allowed first fragment in which others may follow, and which fragments those are.
_FRAGMENTS_FOR: Final = 5
_LATER: Final = "nw_frag=later"
_FRAGMENT_HEADER: Final = 44
#: How many bytes of a packet we are told: its headers, and what an answer quotes.
_TOLD: Final = 192
#: Where DHCP sends from and to: broadcast by workloads that have no address yet.
_DHCP: Final = (("udp", 67), ("udp", 68), ("udp6", 546), ("udp6", 547))

#: The tables of a direction: class, decisions, source port, branches; and where an allowance leads.
STAGES: Final = {
    Direction.EGRESS: (Stage.EGRESS_CLASS, Stage.EGRESS, Stage.EGRESS_SOURCE, Stage.EGRESS_BRANCH, Stage.INGRESS_CLASS),
    Direction.INGRESS: (Stage.INGRESS_CLASS, Stage.INGRESS, Stage.INGRESS_SOURCE, Stage.INGRESS_BRANCH, Stage.COMMIT),
}
#: Priorities in a class table, above those of prefixes (1 + length).
NOT_SUBJECT: Final = 1000
EXEMPT: Final = 900


class Pipeline:
    """Makes flows at the tables that the options say."""

    def __init__(self, options: OvsOptions, deny_action: DenyAction) -> None:
        self._options: Final = options
        #: Whether we are told of packets that are logged, and the action that tells us of one.
        self.tells_logs: Final = options.watch
        self.tell: Final = f"controller(max_len={_TOLD},id={CONTROLLER_ID},meter_id={options.meter})"
        refused = deny_action is DenyAction.REJECT and options.watch
        told = fields.REFUSED if refused else fields.DENIED if options.tell_denied and options.watch else 0
        #: What becomes of packets that a rule denies. Telling us is the end of them as well.
        self.deny: Final = f"{fields.set_flags(told)},{self.tell}" if told else DROP

    def table(self, stage: Stage) -> int:
        """Return the number of a table."""
        return self._options.first_table + stage

    def goto(self, stage: Stage) -> str:
        """Return the action that goes on to a table further down."""
        return f"goto_table:{self.table(stage)}"

    def again(self, stage: Stage) -> str:
        """Return the action that enters a table from itself."""
        return f"resubmit(,{self.table(stage)})"

    def flow(self, stage: Stage, priority: int, match: Iterable[str], actions: str | Iterable[str], rule_id: int = 0) -> Flow:
        """Return a flow of ours."""
        text = actions if isinstance(actions, str) else ",".join(actions)
        return Flow(Key(self.table(stage), priority, match_text(match)), Value(text, cookie(rule_id)))

    def frame(self, established: Established) -> Iterator[Flow]:
        """Yield the flows that are always there."""
        # Priority 1, not 0: a flow that somebody else has at priority 0 of the first table, such as the NORMAL of a bridge
        # without policy, is not touched and never reached.
        yield self.flow(Stage.PORTS, 1, (), DROP)
        yield self.flow(Stage.STRANGERS, 0, (), self.goto(Stage.KIND))
        yield from self._kind()
        yield from self._tuple()
        yield from self._untracked()
        keep = established is Established.KEEP
        yield from self._learn(keep=keep)
        if keep:
            yield from self._keep()
        for stage, following in ((Stage.NEAR, Stage.FAR), (Stage.FAR, Stage.SELF), (Stage.SELF, Stage.EGRESS_CLASS)):
            yield self.flow(stage, 0, (), self.goto(following))
        for direction in Direction:
            yield from self._direction(direction)
        yield from self._commit()
        yield from self._output()

    def node(self, addresses: Iterable[Cidr]) -> Iterator[Flow]:
        """Yield what the node's own addresses need: its traffic to its pods is exempt, and no workload may pretend to be it."""
        for cidr in addresses:
            yield self.flow(Stage.INGRESS_CLASS, EXEMPT, fields.address(fields.SOURCE, cidr), self.goto(Stage.COMMIT))
            yield from self.reserved(cidr)

    def reserved(self, cidr: Cidr) -> Iterator[Flow]:
        """Yield what keeps strangers from using an address."""
        yield self.flow(Stage.STRANGERS, 10, fields.source_match(cidr), DROP)
        if cidr.family == 4:
            yield self.flow(Stage.STRANGERS, 10, ("arp", f"arp_spa={cidr}"), DROP)
        else:
            yield self.flow(Stage.STRANGERS, 10, ("icmp6", "icmp_type=136", f"nd_target={cidr}"), DROP)

    def _kind(self) -> Iterator[Flow]:
        stage, output = Stage.KIND, self.goto(Stage.OUTPUT)
        yield self.flow(stage, 100, ("arp",), output)
        for number in sorted(NEIGHBOUR_DISCOVERY):
            yield self.flow(stage, 100, ("icmp6", f"icmp_type={number}"), output)
        for word, port in _DHCP:
            yield self.flow(stage, 90, (word, _MULTICAST, f"tp_dst={port}"), output)
        # one packet to many destinations: no decision can be taken for each of them
        yield self.flow(stage, 80, (_MULTICAST,), DROP)
        for words in _TRACKED.values():
            for word in words.values():
                yield self.flow(stage, 20, (word,), f"ct(table={self.table(Stage.TUPLE)},zone={self._options.zone})")
        # they do not say what they are a part of, but the number of the fragment header (RFC 8200, section 4.5)
        yield self.flow(stage, 20, ("ipv6", _LATER), f"ct(table={self.table(Stage.TUPLE)},zone={self._options.zone})")
        for word in fields.FAMILY_WORD.values():
            yield self.flow(stage, 10, (word,), (self.again(Stage.LEARNED), self.goto(Stage.UNTRACKED)))
        yield self.flow(stage, 0, (), DROP)

    def _tuple(self) -> Iterator[Flow]:
        """Bring the connection's original tuple into registers, whichever way the packet goes."""
        stage, near = Stage.TUPLE, self.goto(Stage.NEAR)
        for family, words in _TRACKED.items():
            # errors that belong to a connection; conntrack knows it only if it was allowed
            icmp = words[ICMP if family == 4 else ICMPV6]
            yield self.flow(stage, 190, ("ct_state=+rel-inv+trk", icmp), self.goto(Stage.OUTPUT))
            for protocol, word in words.items():
                yield self.flow(stage, 200, ("ct_state=+inv+trk", word), DROP)
                load = f"set_field:{fields.number(protocol << 16)}->reg{fields.KEY}"
                for reply in (False, True):
                    state = "ct_state=+rpl-inv+trk" if reply else "ct_state=-rpl-inv+trk"
                    mark = (fields.set_flags(fields.REPLY),) if reply else ()
                    actions = (*_CLEAR, *_moves(family, _ORIGINAL), *mark, load, *_key_of(protocol), near)
                    yield self.flow(stage, 100, (state, word), actions)
        for word in fields.FAMILY_WORD.values():
            # With the userspace datapath they have the state of their connection, but not its ports. Whether committing or
            # not, conntrack holds fragments until it has all: where the first one goes, the others have to go as well.
            actions = (self.again(Stage.LEARNED), self.goto(Stage.UNTRACKED))
            yield self.flow(stage, 150, ("ct_state=-inv+trk", word, _LATER), actions)
        yield self.flow(stage, 0, (), DROP)

    def _untracked(self) -> Iterator[Flow]:
        """Do the same for what conntrack does not follow everywhere: SCTP and other protocols.

        Userspace conntrack takes all ports of SCTP for one connection, so that one allowed from A to B would let B open any to A,
        and of other protocols it knows nothing. So the way back is learned by ourselves when a packet is let through.
        """
        stage, near = Stage.UNTRACKED, self.goto(Stage.NEAR)
        for family, word in fields.FAMILY_WORD.items():
            yield self.flow(stage, 40, ("ct_state=+trk", word, _LATER, fields.flags(fields.FOLLOWS)), self.goto(Stage.COMMIT))
            yield self.flow(stage, 30, ("ct_state=+trk", word, _LATER), DROP)
            for reply in (False, True):
                match = fields.flags(fields.REPLY if reply else 0, fields.REPLY)
                start = (fields.set_flags(fields.UNTRACKED), *_CLEAR, *_moves(family, _HEADER, exchanged=reply))
                load = f"set_field:{fields.number(SCTP << 16)}->reg{fields.KEY}"
                port = fields.into_key(_SCTP_PORTS[0 if reply else 1])
                yield self.flow(stage, 20, (_SCTP[family], match), (*start, load, port, near))
                rest = f"set_field:0->reg{fields.KEY}"
                yield self.flow(stage, 10, (word, match), (*start, rest, _PROTOCOL_INTO_KEY, near))
        yield self.flow(stage, 0, (), DROP)

    def _learn(self, *, keep: bool) -> Iterator[Flow]:
        """Learn ways back: the same addresses and ports, exchanged. With ``keep`` the way there as well."""
        opening = fields.flags(fields.UNTRACKED, fields.UNTRACKED | fields.REPLY)
        for family, word in fields.FAMILY_WORD.items():
            source, destination = _HEADER[family]
            head = f"table={self.table(Stage.LEARNED)},idle_timeout={_LEARNED_FOR},priority={{}},cookie={cookie():#x},limit={LEARNED_MOST}"
            addresses = f"{source}={destination},{destination}={source}"
            ports = "{0}[]={1}[],{1}[]={0}[]".format(*_SCTP_PORTS)
            mark = f"load:0x1->{fields.bit(fields.REPLY)}"
            ethertype = f"eth_type={_ETHERTYPE[family]}"
            sctp = ",".join((head.format(20), ethertype, f"nw_proto={SCTP}", addresses, ports, mark))
            other = ",".join((head.format(10), ethertype, "NXM_OF_IP_PROTO[]", addresses, mark))
            kept = f"{source},{destination},load:0x1->{fields.bit(fields.KEPT)}"
            ports = ",".join(f"{port}[]" for port in _SCTP_PORTS)
            sctp_there = ",".join((head.format(20), ethertype, f"nw_proto={SCTP}", ports, kept))
            other_there = ",".join((head.format(10), ethertype, "NXM_OF_IP_PROTO[]", kept))
            for priority, name, back, there in ((70, _SCTP[family], sctp, sctp_there), (60, word, other, other_there)):
                learned = [f"learn({way})" for way in ((back, there) if keep else (back,))]
                yield self.flow(Stage.COMMIT, priority, (name, opening), (*learned, self.goto(Stage.OUTPUT)))
            yield self.flow(Stage.COMMIT, 60, (word, fields.flags(fields.UNTRACKED | fields.REPLY)), self.goto(Stage.OUTPUT))
            same = f"{source},{destination},load:0x1->{fields.bit(fields.FOLLOWS)}"
            head = f"table={self.table(Stage.LEARNED)},idle_timeout={_FRAGMENTS_FOR},priority=5,cookie={cookie():#x},limit={LEARNED_MOST}"
            protocol = "NXM_OF_IP_PROTO[]" if family == 4 else f"nw_proto={_FRAGMENT_HEADER}"
            follow = f"learn({head},{ethertype},{protocol},{same})"
            yield self.flow(Stage.FRAGMENTS, 10, (word, "nw_frag=first"), (follow, self.goto(Stage.OUTPUT)))
        yield self.flow(Stage.FRAGMENTS, 0, (), self.goto(Stage.OUTPUT))

    def _keep(self) -> Iterator[Flow]:
        """Let open connections stay open: only an allowed packet has ever been committed."""
        output = self.goto(Stage.OUTPUT)
        for words in _TRACKED.values():
            for word in words.values():
                yield self.flow(Stage.TUPLE, 180, ("ct_state=+est-inv+trk", word), output)
        for flag in (fields.KEPT, fields.REPLY):
            yield self.flow(Stage.UNTRACKED, 50, ("ct_state=-trk", fields.flags(flag)), output)

    def _direction(self, direction: Direction) -> Iterator[Flow]:
        classes, decisions, sources, branches, following = STAGES[direction]
        stack = fields.EGRESS_STACK if direction is Direction.EGRESS else fields.INGRESS_STACK
        yield self.flow(classes, NOT_SUBJECT, fields.wide(stack, 0), self.goto(following))
        if direction is Direction.EGRESS:
            for cidr in self._options.service_cidrs:
                yield self.flow(classes, EXEMPT, fields.address(fields.DESTINATION, cidr), self.goto(following))
        yield self.flow(classes, 0, (), (f"set_field:0->xreg{fields.CLASS // 2}", self.goto(decisions)))
        for stage in (decisions, branches, sources):
            yield self.flow(stage, 0, (), DROP)
        for family, words in _TRACKED.items():
            for protocol, word in words.items():
                if protocol in (TCP, UDP):
                    moves = (fields.into_source("NXM_NX_CT_TP_SRC"), self.goto(branches))
                    yield self.flow(sources, 10, ("ct_state=-inv+trk", word), moves)
            for reply in (False, True):
                match = (_SCTP[family], fields.flags(fields.REPLY if reply else 0, fields.REPLY))
                yield self.flow(sources, 10, match, (fields.into_source(_SCTP_PORTS[1 if reply else 0]), self.goto(branches)))

    def _commit(self) -> Iterator[Flow]:
        stage, on = Stage.COMMIT, self.goto(Stage.FRAGMENTS)
        for word in ("tcp", "tcp6"):
            # A connection that conntrack has forgotten must not come back with client and server exchanged: then the
            # client's packets would be replies. So an endpoint with ingress policy cannot start in the middle, and nobody can
            # towards an endpoint with egress policy; the other side's next packet brings the connection back.
            for flag in (fields.NEAR_INGRESS, fields.FAR_EGRESS):
                for tcp_flags in ("-syn", "+syn+ack"):
                    yield self.flow(stage, 100, (word, "ct_state=+new+trk", fields.flags(flag), f"tcp_flags={tcp_flags}"), DROP)
        zone = f"zone={self._options.zone}"
        remember = "exec(set_field:0x1/0x1->ct_mark,move:NXM_OF_ETH_SRC[]->NXM_NX_CT_LABEL[0..47])"
        for word in fields.FAMILY_WORD.values():
            returned = ("ct_state=+new+trk", word, fields.flags(fields.RETURNED))
            yield self.flow(stage, 50, returned, (f"ct(commit,{zone},{remember})", on))
            yield self.flow(stage, 40, ("ct_state=+new+trk", word), (f"ct(commit,{zone})", on))
        yield self.flow(stage, 0, (), on)

    def _output(self) -> Iterator[Flow]:
        """Forward. Replies to what the node has translated go back to the node, even where the client is a neighbour."""
        forward = "NORMAL" if self._options.next_table is None else f"resubmit(,{self._options.next_table})"
        for word in fields.FAMILY_WORD.values():
            reply = ("ct_state=+rpl+trk", "ct_mark=0x1/0x1", word, fields.flags(0, fields.TRUSTED | fields.UNTRACKED))
            yield self.flow(Stage.OUTPUT, 10, reply, ("move:NXM_NX_CT_LABEL[0..47]->NXM_OF_ETH_DST[]", forward))
        yield self.flow(Stage.OUTPUT, 0, (), forward)


#: Nobody is subject to policy until it turns out.
_CLEAR: Final = (f"set_field:0->xreg{fields.EGRESS_STACK // 2}", f"set_field:0->xreg{fields.INGRESS_STACK // 2}")


def _moves(family: int, origins: Mapping[int, tuple[str, str]], *, exchanged: bool = False) -> tuple[str, str]:
    """Return the actions that copy the addresses into their registers; ``exchanged``: the packet is a reply."""
    first, second = _ADDRESSES[family]
    source, destination = origins[family]
    if exchanged:
        source, destination = destination, source
    return f"move:{source}->{first}", f"move:{destination}->{second}"


def _key_of(protocol: int) -> tuple[str, ...]:
    """Return the actions that put the connection's destination port, or ICMP type and code, into the key."""
    if protocol in (ICMP, ICMPV6):
        register = f"NXM_NX_REG{fields.KEY}"
        return f"move:NXM_NX_CT_TP_SRC[0..7]->{register}[8..15]", f"move:NXM_NX_CT_TP_DST[0..7]->{register}[0..7]"
    return (fields.into_key("NXM_NX_CT_TP_DST"),)
