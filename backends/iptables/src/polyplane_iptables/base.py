"""`add_base`: the chains that the built-in ones jump to, and the jumps. They depend on the operator's options alone.

Everything here says ``RETURN`` where nftables would say accept: what others' rules forbid stays forbidden.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Final

from polyplane.ir.cidr import Family
from polyplane.ir.program import ICMP, ICMPV6, NEIGHBOUR_DISCOVERY, DenyAction, Established, Options
from polyplane_iptables.epochs import Marking
from polyplane_iptables.matches import PROTOCOL_NAMES
from polyplane_iptables.native import Chain, Filter
from polyplane_iptables.owned import (
    ASKED,
    FORWARD,
    FORWARD_ICMP,
    FROM,
    INPUT,
    INPUT_ICMP,
    JUMP_COMMENT,
    MID_FROM,
    MID_STREAM,
    MID_TO,
    OUTPUT,
    REJECT,
    TO,
)

#: TCP packets that open no connection although connection tracking sees the connection for the first time.
_BEGINS_IN_THE_MIDDLE: Final = "-p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN -m conntrack --ctstate NEW"
_ADMIN_PROHIBITED: Final = {4: "icmp-admin-prohibited", 6: "icmp6-adm-prohibited"}
_ICMP: Final = {4: PROTOCOL_NAMES[ICMP], 6: PROTOCOL_NAMES[ICMPV6]}


def add_base(made: Filter, family: int, options: Options) -> None:
    """Add what leads to the chains of endpoints that are already there.

    The guard against TCP that begins in the middle stands behind the policy, whose counters and refusals come first. It drops
    silently: a reset would end connections that only lost their entry and whose own originator can still bring them back.
    """
    add_forward(made, family, options)
    _add_hook(made, family, options, (INPUT, INPUT_ICMP), _jumps((FROM,), made.chains))
    jumps = {"FORWARD": FORWARD, "INPUT": INPUT}
    if guards := _jumps((MID_FROM, MID_TO), made.chains):
        made.chains[MID_STREAM] = Chain(guards)
    if MID_TO in made.chains:
        made.chains[OUTPUT] = Chain([f"{_BEGINS_IN_THE_MIDDLE} -g {MID_TO}"])
        jumps["OUTPUT"] = OUTPUT
    if options.deny_action is DenyAction.REJECT:
        refuse = "-p tcp -j REJECT --reject-with tcp-reset", f"-j REJECT --reject-with {_ADMIN_PROHIBITED[family]}"
        made.chains[REJECT] = Chain(refuse)
    made.jumps = {built_in: ((1, jump_rule(chain)),) for built_in, chain in jumps.items()}


def add_forward(made: Filter, family: int, options: Options, marking: Marking | None = None) -> None:
    """Add what FORWARD leads to, or write it anew with another marking.

    Only here are connections marked: what passes INPUT was asked about for one end, and could be forwarded to another later.
    """
    asks = _jumps((FROM, TO), made.chains)
    guards = _jumps((MID_FROM, MID_TO), made.chains)
    middle = [f"{_BEGINS_IN_THE_MIDDLE} -g {MID_STREAM}"] if guards else []
    _add_hook(made, family, options, (FORWARD, FORWARD_ICMP), asks, middle, marking)


def jump_rule(chain: str) -> str:
    """Return the rule by which a built-in chain comes to us."""
    return f'-m comment --comment "{JUMP_COMMENT}" -j {chain}'


def _jumps(names: Collection[str], present: Collection[str]) -> list[str]:
    return [f"-j {name}" for name in names if name in present]


def _add_hook(  # noqa: PLR0917 (a hook's chain in the order of its rules)
    made: Filter,
    family: int,
    options: Options,
    names: tuple[str, str],
    asks: list[str],
    middle: Collection[str] = (),
    marking: Marking | None = None,
) -> None:
    """Add a hook's chain and the one for its ICMP, which has more reasons to pass and keeps them out of other packets' way."""
    name, icmp = names
    believed, asked = (marking.believed, [f"-g {ASKED}"]) if marking is not None else ((), [])
    icmp_first = [f"-p {_ICMP[family]} -g {icmp}"] if asks else []
    made.chains[name] = Chain([*_continuing(options), *believed, *icmp_first, *asks, *middle, *asked])
    if asks:
        made.chains[icmp] = Chain([*_icmp(family), *asks, *asked])
    if marking is not None:
        made.chains[ASKED] = Chain(marking.remembered)


def _continuing(options: Options) -> Iterator[str]:
    """What continues a connection and passes whatever the policy."""
    state = "-m conntrack --ctstate RELATED,ESTABLISHED"
    if options.established is Established.KEEP:
        yield f'{state} -m comment --comment "open connections" -j RETURN'
    else:
        yield f"{state} --ctdir REPLY -m comment --comment replies -j RETURN"


def _icmp(family: int) -> Iterator[str]:
    """ICMP that passes whatever the policy: neighbour discovery, and errors about open connections."""
    if family == Family.IPV6:
        for number in sorted(NEIGHBOUR_DISCOVERY):
            yield f'-p ipv6-icmp -m icmp6 --icmpv6-type {number} -m comment --comment "neighbour discovery" -j RETURN'
    yield f"-p {_ICMP[family]} -m conntrack --ctstate RELATED -m comment --comment errors -j RETURN"
