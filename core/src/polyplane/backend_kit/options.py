"""Checks that the options of every backend need."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable
from typing import TypeGuard

from polyplane.errors import ConfigError


def refuse_unknown(where: str, given: Iterable[str], known: Collection[str]) -> None:
    """Refuse option names that the backend does not have.

    :param where: the table of the configuration, such as ``[backend.nftables]``
    :raises ConfigError: naming the key and the nearest option, or all of them
    """
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            remedy = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
            raise ConfigError(f"{where} {key}: there is no such option; {remedy}")


def netns_option(where: str, value: object) -> str | None:
    """Check the option ``netns``: path of the network namespace to work in, None for the process's own.

    :raises ConfigError: it is no absolute path
    """
    if value is not None and not (isinstance(value, str) and value.startswith("/")):
        raise ConfigError(f"{where} netns: {value!r} is no absolute path; give one such as /run/netns/NAME")
    return value


def log_group_option(where: str, value: object) -> int | None:
    """Check the option ``log_group``: nflog group for rules that log, None for the kernel log.

    :raises ConfigError: it is no group
    """
    if value is not None and not (is_int(value) and 0 <= value <= 65535):
        raise ConfigError(f"{where} log_group: {value!r} is not a number from 0 to 65535")
    return value


def is_int(value: object) -> TypeGuard[int]:
    """Whether a value is a whole number; True and False are none."""
    return isinstance(value, int) and not isinstance(value, bool)
