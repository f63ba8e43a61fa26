"""Our part of a legacy table as python-iptables decodes it. Run as a child process, for it may crash.

``python -m polyplane_iptables.second_look FAMILY...`` prints a JSON object for each family (4, 6): ``chains``, each with its rules, and
``jumps``, our rules in chains of others with their place. A rule is the list of its options (``["!", "-p", "tcp"]``) in iptables-save's
order.

python-iptables reads the table through libiptc, and what a match says through the match's own library: it shares neither the way
nor the parser with iptables-save and `polyplane_iptables.listing`. It needs nothing else of polyplane and never writes.
"""

from __future__ import annotations

import ipaddress
import json
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from polyplane_iptables.owned import is_ours

#: How python-iptables writes "anything".
_ANY: Final = ("0.0.0.0/0.0.0.0", "::/0", "0.0.0.0/0", "::/0.0.0.0")

Option = list[str]


def main(families: Sequence[str]) -> None:
    """Print what is ours in the families' filter tables."""
    warnings.simplefilter("ignore")
    sys.stdout.write(json.dumps({family: _look(family) for family in families}))


def _look(family: str) -> dict[str, Any]:
    import iptc  # noqa: PLC0415 (it costs a while, and only this process may load it)

    table = (iptc.Table6 if family == "6" else iptc.Table)("filter")
    chains: dict[str, list[list[Option]]] = {}
    jumps: dict[str, list[tuple[int, list[Option]]]] = {}
    for chain in table.chains:
        if is_ours(chain.name):
            chains[chain.name] = [list(_options(rule)) for rule in chain.rules]
            continue
        for place, rule in enumerate(chain.rules, 1):
            if rule.target is not None and is_ours(rule.target.name or ""):
                jumps.setdefault(chain.name, []).append((place, list(_options(rule))))
    return {"chains": chains, "jumps": jumps}


def _options(rule: Any) -> Iterator[Option]:
    for option, address in (("-s", rule.src), ("-d", rule.dst)):
        if address.lstrip("!") not in _ANY:
            yield _negated(option, address, _prefix)
    for option, name in (("-i", rule.in_interface), ("-o", rule.out_interface), ("-p", rule.protocol)):
        if name and name not in ("ip", "all", "0"):
            yield _negated(option, name, str)
    for match in rule.matches:
        yield ["-m", match.name]
        yield from _parameters(match.get_all_parameters())
    target = rule.target
    if target is not None and target.name:
        yield ["-g" if target.goto else "-j", target.name]
        yield from _parameters(target.get_all_parameters())


def _parameters(parameters: Mapping[str, Sequence[str]]) -> Iterator[Option]:
    for name, values in parameters.items():
        negated = list(values[:1]) == ["!"]
        yield [*(["!"] if negated else []), f"--{name}", *(values[1:] if negated else values)]


def _negated(option: str, value: str, say: Any) -> Option:
    return ["!", option, say(value[1:])] if value.startswith("!") else [option, say(value)]


def _prefix(address: str) -> str:
    return str(ipaddress.ip_network(address, strict=False))


if __name__ == "__main__":
    main(sys.argv[1:])
