"""`differences`: what other tools than the backend's own see in the kernel; for polyplane-conformance, never for the agent.

Legacy tables are read by python-iptables, of which a warning says that it is missing, tables of iptables-nft by ``nft`` where it is
installed, sets by netlink (pyroute2). None of them shares code with what the backend reads back by. nft does not understand all
that iptables-nft writes: it is asked for chains, interfaces, how many sets each rule asks, and where it leads.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from shutil import which
from typing import Any, Final

from pyroute2.ipset import IPSet

from polyplane.backend_kit.namespaces import in_namespace
from polyplane.ir.cidr import Cidr
from polyplane.ir.members import Members
from polyplane.ir.program import Program
from polyplane_iptables.decoder import Decoder
from polyplane_iptables.drift import drifts_of
from polyplane_iptables.layout import Layout
from polyplane_iptables.listing import reworded
from polyplane_iptables.native import Filter, Native
from polyplane_iptables.options import IptablesOptions
from polyplane_iptables.owned import EPOCH_SETS, PORT_SETS, is_ours
from polyplane_iptables.turn import marked

_TABLES: Final = {4: ("ip_tables_names", "ip"), 6: ("ip6_tables_names", "ip6")}
_VERDICTS: Final = {"RETURN": "return", "DROP": "drop", "REJECT": "reject", "LOG": "log", "NFLOG": "log", "CONNMARK": "mark"}

#: What can be said of a rule whoever reads it: interface, sets asked, where it leads.
_Gist = tuple[str, int, str]


def differences(program: Program, netns: str) -> tuple[str, ...]:
    """Say what differs in a namespace from what the program asks for.

    :warns UserWarning: nobody but the backend can read its legacy tables here
    """
    sets = in_namespace(netns, _sets)
    wanted = Layout.of(program).native({name[:-2]: 1 for name in sets.sets if name.endswith("-1")})
    for name, epochs in sets.epochs.items():
        number, _, mask = name.removeprefix(EPOCH_SETS).partition("-")
        one = marked(wanted, program.options, int(mask, 16), {int(number): max(epochs, default=0)})
        wanted = replace(one, epochs=wanted.epochs | one.epochs)
    only_sets = Native(sets=wanted.sets, ports=wanted.ports, epochs=wanted.epochs)
    said = [f"{drift.subject}: {drift.found}, not {drift.expected}" for drift in drifts_of(sets, only_sets)]
    legacy = [family for family in _TABLES if "filter" in in_namespace(netns, partial(_legacy, family))]
    decoder = Decoder(IptablesOptions(netns=netns))
    if legacy and not decoder.usable:
        warnings.warn("legacy tables have no second reader: pip install polyplane-iptables[second-look]", stacklevel=2)
        return tuple(said)
    decoded = decoder.read(legacy) if legacy else {}
    if decoded is None:
        return (*said, "python-iptables cannot read the legacy tables")
    if any(table.chains for table in decoded.values()):
        filters = {family: reworded(table, wanted.filters[family], {}) for family, table in decoded.items()}
        found = Native({**wanted.filters, **filters})
        said += [f"{drift.subject}: {drift.found}, not {drift.expected}" for drift in drifts_of(found, Native(wanted.filters))]
    elif which("nft") is not None:
        for family in _TABLES:
            said += _nft_differences(wanted.filters[family], in_namespace(netns, partial(_nft, family)), family)
    return tuple(said)


def _legacy(family: int) -> list[str]:
    path = Path("/proc/thread-self/net", _TABLES[family][0])
    return path.read_text(encoding="ascii").split() if path.exists() else []


def _sets() -> Native:
    """Return our sets as netlink tells them."""
    native = Native()
    with IPSet() as kernel:
        for message in kernel.list():
            name = message.get_attr("IPSET_ATTR_SETNAME")
            if not is_ours(name):
                continue
            data = message.get_attr("IPSET_ATTR_ADT")
            elements = data.get_attrs("IPSET_ATTR_DATA") if data else []
            if name.startswith(EPOCH_SETS):
                native.epochs[name] = frozenset(_member(element).address for element in elements)
            elif name.startswith(PORT_SETS):
                native.ports[name] = frozenset(element.get_attr("IPSET_ATTR_PORT_FROM") for element in elements)
            else:
                native.sets[name] = Members(map(_member, elements))
    return native


def _member(element: Any) -> Cidr:
    address = element.get_attr("IPSET_ATTR_IP_FROM")
    text = address.get_attr("IPSET_ATTR_IPADDR_IPV4") or address.get_attr("IPSET_ATTR_IPADDR_IPV6")
    return Cidr.parse(f"{text}/{element.get_attr('IPSET_ATTR_CIDR')}")


def _nft(family: int) -> dict[str, list[_Gist]]:
    """Return the gist of each chain's rules in the filter table, as nft tells it; of foreign chains the first rule only."""
    done = subprocess.run(["nft", "-j", "list", "table", _TABLES[family][1], "filter"], capture_output=True, text=True, check=False)
    if done.returncode and "No such file" in done.stderr:
        return {}  # the family has no filter table
    done.check_returncode()
    chains: dict[str, list[_Gist]] = {}
    for entry in json.loads(done.stdout)["nftables"]:
        if "chain" in entry:
            chains[entry["chain"]["name"]] = []
        elif "rule" in entry:
            chains[entry["rule"]["chain"]].append(_nft_gist(entry["rule"]["expr"]))
    return chains


def _nft_gist(expressions: list[Mapping[str, Any]]) -> _Gist:
    interface, asked, verdict = "", 0, ""
    for expression in expressions:
        match expression:
            case {"match": {"left": {"meta": {"key": "iifname" | "oifname" as key}}, "right": name}}:
                interface = f"{key} {name}"
            case {"xt": {"type": "match", "name": "set"}}:
                asked += 1
            case {"jump": {"target": target}} | {"goto": {"target": target}}:
                verdict = f"{'jump' if 'jump' in expression else 'goto'} {target}"
            case {"xt": {"type": "target", "name": name}}:
                verdict = _VERDICTS[name]
            case _:
                verdict = next((word for word in _VERDICTS.values() if word in expression), verdict)
    return interface, asked, verdict


def _gist(rule: str) -> _Gist:
    words = shlex.split(rule)
    options = {word: words[at + 1] for at, word in enumerate(words[:-1]) if word in ("-i", "-o", "-j", "-g")}
    name = options.get("-i", options.get("-o", ""))
    interface = f"{'iifname' if '-i' in options else 'oifname'} {re.sub('[+]$', '*', name)}" if name else ""
    target = options.get("-j", options.get("-g", ""))
    return interface, words.count("--match-set"), _VERDICTS.get(target, f"{'goto' if '-g' in options else 'jump'} {target}")


def _nft_differences(wanted: Filter, found: dict[str, list[_Gist]], family: int) -> Iterator[str]:
    expected = {name: [_gist(rule) for rule in chain.rules] for name, chain in wanted.chains.items()}
    for name in sorted({name for name in found if is_ours(name)} | expected.keys()):
        if found.get(name) != expected.get(name):
            yield f"IPv{family} chain {name}: nft sees {found.get(name)}, not {expected.get(name)}"
    for built_in, jumps in wanted.jumps.items():
        for place, rule in jumps:
            if found.get(built_in, [])[place - 1 : place] != [_gist(rule)]:
                yield f"IPv{family} {built_in}: nft sees {found.get(built_in)}, not {_gist(rule)} as rule {place}"
