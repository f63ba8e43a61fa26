"""`EbpfOptions`: what can be set under ``[backend.ebpf]``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Final

from polyplane.backend_kit.options import is_int, netns_option, refuse_unknown
from polyplane.errors import ConfigError
from polyplane_ebpf.maps import SPECS

_WHERE: Final = "[backend.ebpf]"
_INSTANCE: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,62}")
#: Sizes of maps that can be set, by option.
SIZES: Final = {spec.option: spec.name for spec in SPECS.values() if spec.option}


@dataclass(frozen=True, slots=True, kw_only=True)
class EbpfOptions:
    """Options of the eBPF backend.

    ``netns``: path of the network namespace to work in, default the process's own. ``instance``: name of what is ours in the BPF
    file system ``bpffs``, default made from the namespace's number. ``priority``: of our hooks in netfilter, between translation
    of destinations (-100) and of sources (100). ``events``: events per second and processor. ``attach``: how the programs that
    answer refused packets are attached, ``auto``, ``tcx`` or ``clsact``. ``bytecode``: ``auto``, ``prebuilt`` (as it came with
    polyplane) or ``compile`` (by bcc, here). ``state``: directory for compiled bytecode. ``sizes``: entries of maps, by map.
    """

    netns: str | None = None
    instance: str | None = None
    bpffs: str = "/sys/fs/bpf"
    priority: int = 10
    events: int = 100
    attach: str = "auto"
    bytecode: str = "auto"
    state: str = "/var/cache/polyplane/ebpf"
    sizes: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def parse(cls, options: Mapping[str, object]) -> EbpfOptions:
        """Check names, types and values.

        :raises ConfigError: naming the key and what it may be
        """
        defaults = {option.name: option.default for option in fields(cls) if option.name != "sizes"}
        refuse_unknown(_WHERE, options, [*defaults, *sorted(SIZES)])
        instance = options.get("instance")
        if instance is not None and not (isinstance(instance, str) and _INSTANCE.fullmatch(instance)):
            raise ConfigError(f"{_WHERE} instance: {instance!r} is no usable name; take up to 63 letters, digits, - and _, a letter first")
        given = {**defaults, **options}
        return cls(
            netns=netns_option(_WHERE, options.get("netns")),
            instance=instance,
            bpffs=_path(given, "bpffs"),
            priority=_number(given, "priority", -99, 99),
            events=_number(given, "events", 0, 1_000_000),
            attach=_choice(given, "attach", ("auto", "tcx", "clsact")),
            bytecode=_choice(given, "bytecode", ("auto", "prebuilt", "compile")),
            state=_path(given, "state"),
            sizes={SIZES[key]: _number(options, key, 1, 1 << 26) for key in options if key in SIZES},
        )


def _choice(options: Mapping[str, object], key: str, choices: tuple[str, ...]) -> str:
    value = options[key]
    if value not in choices:
        raise ConfigError(f"{_WHERE} {key}: {value!r} is none of {', '.join(choices)}")
    return str(value)


def _path(options: Mapping[str, object], key: str) -> str:
    value = options[key]
    if not isinstance(value, str) or not value.startswith("/"):
        raise ConfigError(f"{_WHERE} {key}: {value!r} is no absolute path")
    return value


def _number(options: Mapping[str, object], key: str, least: int, most: int) -> int:
    value = options[key]
    if isinstance(value, str) and value.lstrip("-").isdecimal():
        value = int(value)  # as a command line gives it
    if not (is_int(value) and least <= value <= most):
        raise ConfigError(f"{_WHERE} {key}: {value!r} is not a number from {least} to {most}")
    return value
