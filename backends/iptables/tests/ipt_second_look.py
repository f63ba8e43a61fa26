"""Legacy tables as python-iptables sees them: another decoder than iptables-save and ours. Run as a child, for it may crash.

Prints one JSON object: chain to its rules, each with protocol, interfaces, target, comment, and the names of its matches.
"""

from __future__ import annotations

import json
import sys
import warnings

PREFIX = "polyplane-"


def main(family: str) -> None:
    warnings.simplefilter("ignore")
    import iptc

    table = (iptc.Table6 if family == "6" else iptc.Table)("filter")
    seen = {}
    for chain in table.chains:
        if not chain.name.startswith(PREFIX) and chain.name not in ("FORWARD", "INPUT", "OUTPUT"):
            continue
        rules = []
        for rule in chain.rules:
            comments = [match.comment for match in rule.matches if match.name == "comment"]
            rules.append(
                {
                    "protocol": rule.protocol,
                    "in": rule.in_interface,
                    "out": rule.out_interface,
                    "target": rule.target.name if rule.target else "",
                    "comment": comments[0] if comments else "",
                    "matches": sorted(match.name for match in rule.matches),
                }
            )
        seen[chain.name] = rules
    sys.stdout.write(json.dumps(seen))


if __name__ == "__main__":
    main(sys.argv[1])
