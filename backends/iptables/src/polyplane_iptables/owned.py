"""What is ours: chains and sets whose name begins with ``polyplane-``, and rules elsewhere that lead to such a chain.

Chain names may have 28 characters, set names 31. Names that come from data are digests or checked interface names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from polyplane.ir.cidr import Cidr
from polyplane.ir.program import EndpointId, PortRange, SetId, digest

PREFIX: Final = "polyplane-"

FORWARD: Final = f"{PREFIX}forward"
FORWARD_ICMP: Final = f"{PREFIX}forward-icmp"
#: What has been asked about and is allowed, where connections are marked.
ASKED: Final = f"{PREFIX}asked"
INPUT: Final = f"{PREFIX}input"
INPUT_ICMP: Final = f"{PREFIX}input-icmp"
OUTPUT: Final = f"{PREFIX}output"
REJECT: Final = f"{PREFIX}reject"
MID_STREAM: Final = f"{PREFIX}mid-stream"
#: Roots of the trees that find out whose packet it is.
FROM: Final = f"{PREFIX}from"
TO: Final = f"{PREFIX}to"
MID_FROM: Final = f"{PREFIX}mid-from"
MID_TO: Final = f"{PREFIX}mid-to"
#: How names of port sets begin; those of address sets go on with the family's number.
PORT_SETS: Final = f"{PREFIX}p-"
#: Likewise those of the sets that hold epochs (`epochs`).
EPOCH_SETS: Final = f"{PREFIX}e"
#: What comments of a rule that jumps to us say.
JUMP_COMMENT: Final = "polyplane network policy"

_HEX: Final = re.compile(r"[0-9a-f]{1,16}")
#: Characters that may stand in a chain name and do not disturb ``nft list``, which shows the chains of iptables-nft too.
_PLAIN: Final = re.compile(r"[A-Za-z0-9_.-]{1,15}")


def is_ours(name: str) -> bool:
    """Whether a chain or set of this name is ours."""
    return name.startswith(PREFIX)


def by_address(root: str) -> str:
    """Root of the tree over addresses that follows a tree over interfaces."""
    return f"{root}-ip"


def interface_chain(tree: str, prefix: str) -> str:
    """Chain of one branch of a tree over interface names; ``tree`` is one letter."""
    if _PLAIN.fullmatch(prefix):
        return f"{PREFIX}{tree}-{prefix}"
    return f"{PREFIX}{tree}x{digest(prefix)}"


def address_chain(tree: str, prefix: Cidr) -> str:
    """Chain of one branch of a tree over addresses."""
    return f"{PREFIX}{tree}a{digest(str(prefix))}"


def endpoint_chain(tree: str, endpoint_id: EndpointId) -> str:
    """Chain of one endpoint in one direction."""
    return f"{PREFIX}{tree}e{digest(endpoint_id)}"


def stack_chain(rules: tuple[str, ...]) -> str:
    """Chain that decides; named by what it says, so that equal decisions share it."""
    return f"{PREFIX}s{digest(*rules)}"


def log_chain(rules: tuple[str, ...]) -> str:
    """Chain that logs for a rule with several alternatives."""
    return f"{PREFIX}l{digest(*rules)}"


#: How targets that only log begin.
LOG_TARGETS: Final = (f"-j {PREFIX}l", f"-g {PREFIX}l", "-j LOG", "-j NFLOG")


def set_name(set_id: SetId, family: int, generation: int = 0) -> str:
    """Kernel set of an address set's members of one family.

    ``generation`` 1 is the name to which a set moves when its members must change in the same instant as rules do.
    """
    base = set_id if _HEX.fullmatch(set_id) else digest(set_id)
    return f"{PREFIX}{family}-{base}" + (f"-{generation}" if generation else "")


def spare_set_name(name: str) -> str:
    """Name under which a set is filled before it is swapped for the one in use; nobody ever asks it."""
    return f"{PREFIX}x-{digest(name)}"


def port_set_name(ports: Iterable[PortRange]) -> str:
    """Kernel set of ports; its content never changes."""
    return f"{PORT_SETS}{digest(*map(str, ports))}"


def epoch_set_name(family: int, mask: int) -> str:
    """Kernel set that holds the epoch of one family; other bits, other set."""
    return f"{EPOCH_SETS}{family}-{mask:08x}"


def base_of(name: str) -> tuple[str, int]:
    """Return a set's name without its generation, and the generation."""
    return (name[:-2], 1) if name.endswith("-1") else (name, 0)
