"""`shown`: what is ours in the kernel, for people: the tools' own words, nothing of anybody else's."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from polyplane.ir.cidr import BITS
from polyplane_iptables.kernel import Kernel
from polyplane_iptables.options import Variant
from polyplane_iptables.owned import PREFIX

_OURS: Final = re.compile(rf":{PREFIX}|-A {PREFIX}|-A .* -[jg] {PREFIX}|create {PREFIX}|add {PREFIX}")


def shown(kernel: Kernel, variant: Variant) -> str:
    """Return our part of both tables and our sets, with counters where rules have any."""
    return "".join(f"{line}\n" for line in _lines(kernel, variant))


def _lines(kernel: Kernel, variant: Variant) -> Iterator[str]:
    for family in BITS:
        yield f"# {'iptables' if family == 4 else 'ip6tables'}-{variant}-save -c -t filter"
        for line in kernel.save(variant, family, counters=True).splitlines():
            if _OURS.match(re.sub(r"^\[\d+:\d+\] ", "", line)):
                yield line
    yield "# ipset save"
    yield from (line for line in kernel.save_sets().splitlines() if _OURS.match(line))
