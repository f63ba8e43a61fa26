"""Text from the cluster as it may stand in a kernel: comments that explain rule ids, interface names.

Names come from whoever may create objects in the cluster. What is written here needs no quoting in any native language.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from polyplane.ir.delta import Delta, PutEndpoint, PutPolicy
from polyplane.ir.program import Isolation, Origin, Rule

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


class Labels:
    """What comments say about rule ids, followed delta by delta at the price of what changes."""

    def __init__(self) -> None:
        self._deciders: Final[dict[int, Rule | Isolation]] = {}
        self._enough = 0

    def update(self, delta: Delta) -> None:
        """Learn what a delta brings. What is gone is forgotten when it is half of all that is known."""
        for operation in delta.operations:
            if isinstance(operation, PutPolicy):
                self._learn(operation.policy.rules)
            elif isinstance(operation, PutEndpoint):
                self._learn(operation.endpoint.isolations())
        if len(self._deciders) > self._enough:
            self._deciders.clear()
            self._learn(delta.target.deciders())
            self._enough = 2 * len(self._deciders)

    def of(self, rule_id: int) -> str:
        """Return what a comment says about a rule id: the API object and rule, or who isolates; id 0 is nobody's."""
        if rule_id == 0:
            return "no-rule"
        decider = self._deciders.get(rule_id)
        if decider is None:
            return ""
        return origin_label(decider.origin) if isinstance(decider, Rule) else isolation_label(decider.origins)

    def _learn(self, deciders: Iterable[Rule | Isolation]) -> None:
        self._deciders.update((one.id, one) for one in deciders)


def origin_label(origin: Origin) -> str:
    """Return what a comment says about a rule of an API object."""
    where = f"{origin.namespace}/{origin.name}" if origin.namespace else origin.name
    rule = "isolation" if origin.index is None else f"{origin.direction}/{origin.index}"
    return plain(f"{origin.kind}/{where}/{rule}")


def isolation_label(origins: tuple[Origin, ...]) -> str:
    """Return what a comment says about the objects that isolate an endpoint."""
    return plain(" ".join(origin_label(origin) for origin in origins))
