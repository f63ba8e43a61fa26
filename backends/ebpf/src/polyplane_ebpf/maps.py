"""The maps: what each holds, how large its keys and values are, and the numbers the program knows them by.

The structures themselves are declared in ``program/10_types.h``, where the compiler compares the sizes.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

#: Version of the maps' meaning. Part of the path of everything pinned: maps of another layout are never used, only replaced.
LAYOUT: Final = 1


class MapType(IntEnum):
    """Kinds of maps, as the kernel numbers them (``enum bpf_map_type``)."""

    HASH = 1
    ARRAY = 2
    PERCPU_HASH = 5
    PERCPU_ARRAY = 6
    LRU_HASH = 9
    LPM_TRIE = 11
    RINGBUF = 27


#: ``BPF_F_NO_PREALLOC``: tries need it; for hashes it means that a reader's value is not recycled under its feet.
NO_PREALLOC: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class MapSpec:
    """One map. ``number`` is what the program's placeholder says; sizes in bytes; ``option``: the option that sets ``entries``."""

    name: str
    number: int
    type: MapType
    key: int
    value: int
    entries: int
    flags: int = 0
    option: str = ""

    @property
    def per_cpu(self) -> bool:
        """Whether a read gives one value for each possible processor."""
        return self.type in {MapType.PERCPU_HASH, MapType.PERCPU_ARRAY}


_SPECS: Final = (
    MapSpec(name="interfaces", number=1, type=MapType.HASH, key=4, value=48, entries=4096, flags=NO_PREALLOC, option="max_endpoints"),
    MapSpec(name="owners", number=2, type=MapType.HASH, key=20, value=48, entries=16384, flags=NO_PREALLOC, option="max_addresses"),
    MapSpec(name="hosts", number=3, type=MapType.HASH, key=20, value=8, entries=262144, flags=NO_PREALLOC, option="max_hosts"),
    MapSpec(name="prefixes", number=4, type=MapType.LPM_TRIE, key=24, value=8, entries=131072, flags=NO_PREALLOC, option="max_prefixes"),
    MapSpec(name="policy", number=5, type=MapType.LPM_TRIE, key=24, value=16, entries=524288, flags=NO_PREALLOC, option="max_rows"),
    MapSpec(name="paths", number=6, type=MapType.LPM_TRIE, key=16, value=32, entries=65536, flags=NO_PREALLOC, option="max_paths"),
    MapSpec(name="node", number=7, type=MapType.HASH, key=20, value=4, entries=1024, flags=NO_PREALLOC, option="max_node_addresses"),
    MapSpec(name="config", number=8, type=MapType.ARRAY, key=4, value=24, entries=1),
    MapSpec(name="connections", number=9, type=MapType.LRU_HASH, key=56, value=32, entries=131072, option="max_connections"),
    MapSpec(name="counters", number=10, type=MapType.PERCPU_HASH, key=4, value=16, entries=65536, flags=NO_PREALLOC, option="max_counters"),
    MapSpec(name="events", number=11, type=MapType.RINGBUF, key=0, value=0, entries=262144),
    MapSpec(name="allowance", number=12, type=MapType.PERCPU_ARRAY, key=4, value=16, entries=1),
    MapSpec(name="scratch", number=13, type=MapType.PERCPU_ARRAY, key=4, value=264, entries=1),
    MapSpec(name="notes", number=14, type=MapType.HASH, key=8, value=16, entries=16384),
    MapSpec(name="answering", number=15, type=MapType.HASH, key=4, value=4, entries=16384, flags=NO_PREALLOC),
    MapSpec(name="refusals", number=16, type=MapType.LRU_HASH, key=56, value=24, entries=4096),
)
SPECS: Final[Mapping[str, MapSpec]] = {spec.name: spec for spec in _SPECS}

#: What a program defines; these are compared with the kernel. The other maps are the kernel's own memory.
DEFINED: Final = ("paths", "policy", "hosts", "prefixes", "node", "owners", "interfaces")

#: A placeholder in the bytecode that stands for a map is this plus its number.
PLACEHOLDER_MAP: Final = 0x706C_0000_0000
#: One that stands for the offset of a field is this plus the position in `OFFSETS`.
PLACEHOLDER_OFFSET: Final = 0x706D_0000_0000
#: A helper number that stands for a function of the kernel is this plus the position in `KFUNCS`.
PLACEHOLDER_KFUNC: Final = 0x706E_0000

#: Fields of kernel structures whose place differs from kernel to kernel.
OFFSETS: Final = (
    ("nf_hook_state", "hook"),
    ("nf_hook_state", "pf"),
    ("nf_hook_state", "in"),
    ("nf_hook_state", "out"),
    ("net_device", "ifindex"),
    ("sk_buff", "len"),
    ("net_device", "mtu"),
    ("sk_buff", "cb"),
    ("inet_skb_parm", "frag_max_size"),
    ("inet6_skb_parm", "frag_max_size"),
    ("sk_buff", "_nfct"),
    ("nf_conn", "tuplehash"),
)
#: Those that are there only with conntrack: without it nothing is translated. Instead of a place the program gets `NOWHERE`.
OPTIONAL_OFFSETS: Final = frozenset({("sk_buff", "_nfct"), ("nf_conn", "tuplehash")})
NOWHERE: Final = 0x7FFF_FFFF
#: Functions of the kernel that the program calls.
KFUNCS: Final = ("bpf_dynptr_from_skb", "bpf_cast_to_kern_ctx")

#: Log records that one decision can cause.
LOGS: Final = 6

#: Nanoseconds after the last packet that a connection lives, by protocol.
LIFETIMES: Final[Mapping[int, int]] = {6: 432_000 * 10**9, 132: 432_000 * 10**9, 1: 30 * 10**9, 58: 30 * 10**9}
LIFETIME_OTHER: Final = 180 * 10**9
LIFETIME_CLOSING: Final = 60 * 10**9


class EventKind(IntEnum):
    """Why there is an event."""

    DENY = 1
    LOG = 2
    #: A packet to or from an isolated endpoint that cannot be read.
    UNREADABLE = 3


class Hook(IntEnum):
    """The hooks of netfilter we attach to (``enum nf_inet_hooks``)."""

    LOCAL_IN = 1
    FORWARD = 2
    POST_ROUTING = 4


def definitions() -> dict[str, int]:
    """Return the numbers that the program's source takes from here."""
    numbers = {f"MAP_{spec.name.upper()}": PLACEHOLDER_MAP + spec.number for spec in _SPECS}
    numbers |= {f"KEY_{spec.name.upper()}": spec.key for spec in _SPECS} | {f"VALUE_{spec.name.upper()}": spec.value for spec in _SPECS}
    numbers |= {
        f"OFFSET_{struct.upper()}_{field.strip('_').upper()}": PLACEHOLDER_OFFSET + at for at, (struct, field) in enumerate(OFFSETS)
    }
    numbers |= {f"KFUNC_{name.removeprefix('bpf_').upper()}": PLACEHOLDER_KFUNC + at for at, name in enumerate(KFUNCS)}
    numbers |= {f"EVENT_{kind.name}": kind.value for kind in EventKind}
    numbers |= {"LIFETIME_TCP": LIFETIMES[6], "LIFETIME_ICMP": LIFETIMES[1]}
    numbers |= {"LIFETIME_OTHER": LIFETIME_OTHER, "LIFETIME_CLOSING": LIFETIME_CLOSING, "NOWHERE": NOWHERE}
    numbers |= {f"HOOK_{hook.name}": hook.value for hook in Hook}
    return numbers | {"LOGS": LOGS, "V4_MAPPED": int.from_bytes(b"\0\0\xff\xff", sys.byteorder)}
