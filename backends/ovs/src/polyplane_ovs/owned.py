"""What is ours: flows whose cookie begins with our mark, and a range of consecutive tables that nobody else writes to.

A cookie is ``0x5050`` (16 bits, "PP"), the generation of the pipeline (16 bits), and the id of the rule that the flow decides
for (32 bits, 0 for none). Flows of another generation are ours, too: they are replaced, and removed by a teardown.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

#: Version of the pipeline that `pipeline` describes.
GENERATION: Final = 1

_MARK: Final = 0x5050 << 48
#: The bits of a cookie that say whose flow it is.
MARK_MASK: Final = 0xFFFF << 48
_RULE_MASK: Final = 0xFFFF_FFFF
_MARK_AND_GENERATION: Final = _MARK | GENERATION << 32


class Stage(IntEnum):
    """Our tables in the order in which a packet passes them; the number is added to the option ``first_table``."""

    #: Which port the packet came from, and whether it may say what it says.
    PORTS = 0
    #: Packets of workloads that are no endpoints: they must not use an endpoint's address.
    STRANGERS = 1
    #: What passes without a decision (ARP, neighbour discovery), what never passes, and what is tracked.
    KIND = 2
    #: The original tuple of the connection goes into registers.
    TUPLE = 3
    #: Ways back of what conntrack cannot follow, and of fragments; written by the switch itself and forgotten by it.
    LEARNED = 4
    #: The same as `TUPLE` for what conntrack cannot follow.
    UNTRACKED = 5
    #: The endpoint on the side that the packet comes from.
    NEAR = 6
    #: The endpoint on the side that the packet goes to.
    FAR = 7
    #: Traffic from an endpoint to itself.
    SELF = 8
    #: Class of the destination's address.
    EGRESS_CLASS = 9
    #: Decisions of the source's egress.
    EGRESS = 10
    #: The source port goes into a register, for decisions that ask for it.
    EGRESS_SOURCE = 11
    #: Conditions on source ports and ICMP types.
    EGRESS_BRANCH = 12
    INGRESS_CLASS = 13
    INGRESS = 14
    INGRESS_SOURCE = 15
    INGRESS_BRANCH = 16
    #: The connection is allowed: remember it.
    COMMIT = 17
    #: The first fragment of a packet is allowed: let the others follow.
    FRAGMENTS = 18
    #: On to NORMAL or to the bridge's own pipeline.
    OUTPUT = 19


#: How many tables we need.
TABLES: Final = len(Stage)
#: The last table an OpenFlow switch lets flows be written to.
LAST_TABLE: Final = 253


def cookie(rule_id: int = 0) -> int:
    """Return the cookie of a flow that decides for a rule."""
    return _MARK_AND_GENERATION | rule_id


def is_ours(value: int) -> bool:
    """Whether a flow with this cookie is ours, of whatever generation."""
    return value & MARK_MASK == _MARK


def rule_id_of(value: int) -> int:
    """Return the rule id in a cookie of ours, 0 for none."""
    return value & _RULE_MASK


#: Selects all our flows in an ``ovs-ofctl`` command.
OURS: Final = f"cookie={_MARK:#x}/{MARK_MASK:#x}"
