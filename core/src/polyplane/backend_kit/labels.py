"""Text from the cluster as it may stand in a kernel: comments that explain rule ids, interface names.

Names come from whoever may create objects in the cluster. What is written here needs no quoting in any native language.
"""

from __future__ import annotations

import re
from typing import Final

from polyplane.ir.program import Origin, Program, Rule

#: What Linux takes as an interface name and no native text needs escapes for; ``*`` and ``+`` would be wildcards.
_INTERFACE: Final = re.compile(r"[A-Za-z0-9_.:@-]{1,15}")
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9_.\-/]+")
#: nftables stores 128 bytes with the end mark, iptables 256; the rule id comes on top of this.
LABEL_LENGTH: Final = 96


def is_usable_interface(name: str) -> bool:
    """Whether an interface name can be written into native text as it is."""
    return _INTERFACE.fullmatch(name) is not None and name not in {".", ".."}


def plain(text: str) -> str:
    """Reduce text that comes from the cluster to what can stand in a comment without harm."""
    return _UNSAFE.sub("_", text)[:LABEL_LENGTH]


def labels_of(program: Program) -> dict[int, str]:
    """Return what a comment says about each rule id: the API object and rule, or who isolates; id 0 is nobody's."""
    deciders = {one.id: one for one in program.deciders()}
    labels = {id_: origin_label(one.origin) if isinstance(one, Rule) else isolation_label(one.origins) for id_, one in deciders.items()}
    return {0: "no-rule", **labels}


def origin_label(origin: Origin) -> str:
    """Return what a comment says about a rule of an API object."""
    where = f"{origin.namespace}/{origin.name}" if origin.namespace else origin.name
    rule = "isolation" if origin.index is None else f"{origin.direction}/{origin.index}"
    return plain(f"{origin.kind}/{where}/{rule}")


def isolation_label(origins: tuple[Origin, ...]) -> str:
    """Return what a comment says about the objects that isolate an endpoint."""
    return plain(" ".join(origin_label(origin) for origin in origins))
