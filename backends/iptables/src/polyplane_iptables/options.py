"""`IptablesOptions`: what can be set under ``[backend.iptables]``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Final

from polyplane.backend_kit.options import is_int, log_group_option, netns_option, refuse_unknown
from polyplane.errors import ConfigError
from polyplane_iptables.decisions import Style
from polyplane_iptables.epochs import ALL_BITS

_WHERE: Final = "[backend.iptables]"
_DEFAULT_LOCK_WAIT: Final = 10


class Variant(StrEnum):
    """Which half of the kernel the rules go to: the two do not see each other's."""

    NFT = "nft"
    LEGACY = "legacy"

    @property
    def other(self) -> Variant:
        """The one that is not this."""
        return Variant.LEGACY if self is Variant.NFT else Variant.NFT


@dataclass(frozen=True, slots=True, kw_only=True)
class IptablesOptions:
    """Options of the iptables backend.

    ``variant`` None: that of the node's other rules. ``netns``: path of the network namespace to work in, default the
    process's own. ``log_group``: nflog group for rules that log, default the kernel log. ``lock_wait``: seconds to wait for
    other programs' changes (legacy). ``lock_file``: instead of ``/run/xtables.lock``, which all namespaces of a machine share.
    ``log_denied``: what is denied is logged like what a rule logs. ``second_look``: audits read legacy tables with
    python-iptables where it is installed. ``recheck_mark``: bits of connections' marks that nobody else uses, for the recheck by
    mark (`epochs`); 0: by direction.
    """

    variant: Variant | None = None
    netns: str | None = None
    log_group: int | None = None
    lock_wait: int = _DEFAULT_LOCK_WAIT
    lock_file: str | None = None
    log_denied: bool = False
    second_look: bool = True
    recheck_mark: int = 0

    @classmethod
    def parse(cls, options: Mapping[str, object]) -> IptablesOptions:
        """Check names, types and values.

        :raises ConfigError: naming the key and what it may be
        """
        refuse_unknown(_WHERE, options, [option.name for option in fields(cls)])
        variant = options.get("variant", "auto")
        if variant not in ("auto", *Variant):
            raise ConfigError(f"{_WHERE} variant: {variant!r} is none of auto, nft, legacy")
        wait = options.get("lock_wait", _DEFAULT_LOCK_WAIT)
        if isinstance(wait, str) and wait.isdecimal():
            wait = int(wait)
        if not (is_int(wait) and 1 <= wait <= 600):
            raise ConfigError(f"{_WHERE} lock_wait: {wait!r} is not a number of seconds from 1 to 600")
        lock_file = options.get("lock_file")
        if lock_file is not None and not (isinstance(lock_file, str) and lock_file.startswith("/")):
            raise ConfigError(f"{_WHERE} lock_file: {lock_file!r} is no absolute path; leave it out for /run/xtables.lock")
        return cls(
            variant=None if variant == "auto" else Variant(str(variant)),
            netns=netns_option(_WHERE, options.get("netns")),
            log_group=log_group_option(_WHERE, options.get("log_group")),
            lock_wait=wait,
            lock_file=lock_file,
            log_denied=_switch(options, "log_denied", default=False),
            second_look=_switch(options, "second_look", default=True),
            recheck_mark=_mask(options.get("recheck_mark")),
        )

    def style(self) -> Style:
        """Return what the options say about rules."""
        return Style(log_group=self.log_group, log_denied=self.log_denied)


def _mask(value: object) -> int:
    if value is None:
        return 0
    if isinstance(value, str) and re.fullmatch("0[xX][0-9a-fA-F]+|[0-9]+", value):
        value = int(value, 16 if value[1:2] in ("x", "X") else 10)
    if not (is_int(value) and 1 <= value <= ALL_BITS):
        raise ConfigError(
            f"{_WHERE} recheck_mark: {value!r} is no mask of a connection's mark; give bits that nobody else uses, such as 0xff00, or leave it out"
        )
    return value


def _switch(options: Mapping[str, object], name: str, *, default: bool) -> bool:
    value = options.get(name, default)
    if isinstance(value, str) and value in ("true", "false"):
        return value == "true"
    if not isinstance(value, bool):
        raise ConfigError(f"{_WHERE} {name}: {value!r} is neither true nor false")
    return value
