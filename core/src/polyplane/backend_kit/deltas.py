"""`whole`: the delta from nothing to a program."""

from __future__ import annotations

from polyplane.ir.delta import Delta, PutEndpoint, PutNode, PutPolicy, PutSet
from polyplane.ir.program import EMPTY, Program


def whole(program: Program) -> Delta:
    """Return the delta from nothing to a program, for what follows deltas and must begin somewhere."""
    return Delta(
        base=EMPTY,
        target=program,
        operations=(
            PutNode(program.node_addresses, program.options),
            *map(PutSet, program.sets.values()),
            *map(PutPolicy, program.policies.values()),
            *map(PutEndpoint, program.endpoints.values()),
        ),
    )
