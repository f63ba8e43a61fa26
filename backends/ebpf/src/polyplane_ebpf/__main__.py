"""``python -m polyplane_ebpf``: look into the maps of a running node, and what tests need. Reads the kernel, not the agent."""

from __future__ import annotations

import argparse
import sys

from polyplane.errors import PolyplaneError
from polyplane_ebpf import syscall
from polyplane_ebpf.decode import describe
from polyplane_ebpf.events import Event, Events
from polyplane_ebpf.kernel import Kernel
from polyplane_ebpf.maps import DEFINED, SPECS
from polyplane_ebpf.options import EbpfOptions


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m polyplane_ebpf", description=__doc__)
    parser.add_argument("--netns", help="path of the node's network namespace, if it is not this one")
    parser.add_argument("--instance", help="name of the instance, if the backend was given one")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("show", help="print what is in the maps")
    commands.add_parser("fill", help="print how full the maps are")
    commands.add_parser("counters", help="print packets and bytes by rule id")
    commands.add_parser("events", help="print denied and logged packets as they come")
    commands.add_parser("forget", help="forget all connections")
    damage = commands.add_parser("damage", help="remove the first entry of a map, or detach a link, for tests of the audit")
    damage.add_argument("what", choices=(*DEFINED, "link"))
    given = parser.parse_args(arguments)
    try:
        kernel = Kernel(EbpfOptions.parse({key: value for key in ("netns", "instance") if (value := getattr(given, key)) is not None}))
        if not kernel.open(any_size=True):
            print(f"nothing of this version is pinned in {kernel.place.directory}", file=sys.stderr)
            return 1
        _run(kernel, given)
    except (PolyplaneError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _run(kernel: Kernel, given: argparse.Namespace) -> None:
    if given.command == "show":
        generation, settings = kernel.config()
        print(f"generation {generation} {settings}")
        for name, entries in kernel.read().items():
            for key, value in sorted(entries.items()):
                print(describe(name, b"#" + key if name == "interfaces" else key, value))
    elif given.command == "fill":
        for name, (count, room) in kernel.fill().items():
            print(f"{name} {count} of {room}")
    elif given.command == "counters":
        for rule, (packets, size) in sorted(kernel.counters().items()):
            print(f"rule {rule}: {packets} packets, {size} bytes")
    elif given.command == "events":
        with Events(kernel.descriptor("events"), SPECS["events"].entries) as events:
            for event in events.follow():
                print(_line(event), flush=True)
    elif given.command == "forget":
        kernel.forget("connections")
    elif given.what == "link":
        link = syscall.open_pinned(str(kernel.place.directory / next(iter(kernel.wanted_links()))))
        syscall.detach_link(link)
    else:
        key = next(syscall.keys_of(kernel.descriptor(given.what), SPECS[given.what].key))
        syscall.delete(kernel.descriptor(given.what), key)


def _line(event: Event) -> str:
    ports = f" ports {event.source_port} → {event.port}" if event.port else f" type {event.icmp}" if event.icmp else ""
    who = f"{event.source.address_text} → {event.destination.address_text} protocol {event.protocol}{ports}"
    return f"{event.time:.3f} {event.kind.name.lower()} {event.direction} rule {event.rule_id} {who}"


if __name__ == "__main__":
    sys.exit(main())
