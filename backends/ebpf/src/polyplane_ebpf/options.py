"""`EbpfOptions`: what can be set under ``[backend.ebpf]``."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Final, TypeGuard

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
    of destinations (-100) and of sources (100). ``events``: events per second and processor. ``attach``: how the program that answers refused packets
    is attached, ``auto``, ``tcx`` or ``clsact``. ``bytecode``: ``auto``, ``prebuilt``
    (as it came with polyplane) or ``compile`` (by bcc, here). ``state``: directory for compiled bytecode. ``sizes``: entries of
    maps, by map.
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
        known = [option.name for option in fields(cls) if option.name != "sizes"] + sorted(SIZES)
        for key in options:
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                remedy = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
                raise ConfigError(f"{_WHERE} {key}: there is no such option; {remedy}")
        netns = options.get("netns")
        if netns is not None and not (isinstance(netns, str) and netns.startswith("/")):
            raise ConfigError(f"{_WHERE} netns: {netns!r} is no absolute path; give one such as /run/netns/NAME")
        instance = options.get("instance")
        if instance is not None and not (isinstance(instance, str) and _INSTANCE.fullmatch(instance)):
            raise ConfigError(f"{_WHERE} instance: {instance!r} is no usable name; take up to 63 letters, digits, - and _, a letter first")
        return cls(
            netns=netns,
            instance=instance,
            bpffs=_path(options, "bpffs", cls),
            priority=_number(options, "priority", cls, -99, 99),
            events=_number(options, "events", cls, 0, 1_000_000),
            attach=_choice(options, "attach", ("auto", "tcx", "clsact")),
            bytecode=_choice(options, "bytecode", ("auto", "prebuilt", "compile")),
            state=_path(options, "state", cls),
            sizes={SIZES[key]: _number({key: value}, key, None, 1, 1 << 26) for key, value in options.items() if key in SIZES},
        )


def _default(cls: type[EbpfOptions] | None, key: str) -> object:
    return next((option.default for option in fields(cls) if option.name == key), None) if cls else None


def _choice(options: Mapping[str, object], key: str, choices: tuple[str, ...]) -> str:
    value = options.get(key, choices[0])
    if value not in choices:
        raise ConfigError(f"{_WHERE} {key}: {value!r} is none of {', '.join(choices)}")
    return str(value)


def _path(options: Mapping[str, object], key: str, cls: type[EbpfOptions]) -> str:
    value = options.get(key, _default(cls, key))
    if not isinstance(value, str) or not value.startswith("/"):
        raise ConfigError(f"{_WHERE} {key}: {value!r} is no absolute path")
    return value


def _number(options: Mapping[str, object], key: str, cls: type[EbpfOptions] | None, least: int, most: int) -> int:
    value = options.get(key, _default(cls, key))
    if isinstance(value, str) and value.lstrip("-").isdecimal():
        value = int(value)  # as a command line gives it
    if not (_is_int(value) and least <= value <= most):
        raise ConfigError(f"{_WHERE} {key}: {value!r} is not a number from {least} to {most}")
    return value


def _is_int(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)
