"""bpf(2) through ctypes: maps, programs, links, pins, test runs. Nothing but the calls; errors are `OSError`.

Neither bcc 0.26 nor pyroute2 offers links, information about objects or batches on tries, and libbpf is on few nodes.
"""

from polyplane_ebpf.syscall.map_calls import (
    batches_of,
    create_map,
    delete,
    delete_batch,
    entries_of,
    keys_of,
    lookup,
    update,
    update_batch,
)
from polyplane_ebpf.syscall.object_calls import (
    LinkInfo,
    MapInfo,
    ProgramInfo,
    link_info,
    map_info,
    open_pinned,
    pin,
    possible_processors,
    program_info,
)
from polyplane_ebpf.syscall.program_calls import (
    AttachType,
    ProgramType,
    Refused,
    Run,
    detach_link,
    link_netfilter,
    link_tcx,
    load_program,
    try_program,
)

__all__ = [
    "AttachType",
    "LinkInfo",
    "MapInfo",
    "ProgramInfo",
    "ProgramType",
    "Refused",
    "Run",
    "batches_of",
    "create_map",
    "delete",
    "delete_batch",
    "detach_link",
    "entries_of",
    "keys_of",
    "link_info",
    "link_netfilter",
    "link_tcx",
    "load_program",
    "lookup",
    "map_info",
    "open_pinned",
    "pin",
    "possible_processors",
    "program_info",
    "try_program",
    "update",
    "update_batch",
]
