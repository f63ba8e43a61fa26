"""Addresses and prefixes as the Kubernetes API has always accepted them, laxer than `ipaddress`.

Until ``StrictIPCIDRValidation`` (on since Kubernetes 1.36) the API server let leading zeros, host bits and IPv4-mapped IPv6
addresses through, so clusters contain them. They are read as the API server's parser reads them, with a warning each.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from typing import Final

from polyplane.ir.cidr import Cidr, Family

#: An octet or a length with any number of leading zeros; more digits than any value needs never reach `int`.
_DECIMAL: Final = re.compile(r"0*([0-9]{1,3})")
_HEX_GROUP: Final = re.compile(r"0*([0-9a-fA-F]{1,4})")
#: The longest text that can be an address without leading zeros is 45 characters; leave room for a few of those.
_LONGEST: Final = 200
_MAPPED_PREFIX: Final = 0xFFFF
_MAPPED_LENGTH: Final = 96


def _strictly(family: socket.AddressFamily, text: str) -> int | None:
    """Read an address as the C library does, which refuses leading zeros: all but a few are written so, and it is ten times faster."""
    try:
        return int.from_bytes(socket.inet_pton(family, text), "big")
    except (OSError, ValueError):
        return None


def _ipv4(text: str) -> int | None:
    octets = [_DECIMAL.fullmatch(part) for part in text.split(".")]
    if len(octets) != 4:
        return None
    address = 0
    for octet in octets:
        if octet is None or int(octet[1]) > 255:
            return None
        address = address << 8 | int(octet[1])
    return address


def _ipv6(text: str) -> int | None:
    head, colon, tail = text.rpartition(":")
    if "." in tail:
        embedded = _ipv4(tail)
        if embedded is None or not colon:
            return None
        text = f"{head}:{embedded >> 16:x}:{embedded & 0xFFFF:x}"
    groups = []
    for part in text.split(":"):
        group = _HEX_GROUP.fullmatch(part)
        if part and group is None:
            return None
        groups.append(group[1] if group else "")
    try:
        return int(ipaddress.IPv6Address(":".join(groups)))
    except ValueError:
        return None


def parse_address(text: str) -> Cidr | None:
    """Read one address as a host prefix; None when it is none. An IPv4-mapped IPv6 address is the IPv4 address."""
    if len(text) > _LONGEST:
        return None
    if ":" not in text:
        address = _strictly(socket.AF_INET, text)
        if address is None:
            address = _ipv4(text)
        return None if address is None else Cidr(Family.IPV4.value, address, 32)
    address = _strictly(socket.AF_INET6, text)
    if address is None:
        address = _ipv6(text)
    if address is None:
        return None
    if address >> 32 == _MAPPED_PREFIX:
        return Cidr(Family.IPV4.value, address & 0xFFFFFFFF, 32)
    return Cidr(Family.IPV6.value, address, 128)


def parse_prefix(text: str) -> tuple[Cidr, tuple[str, ...]] | None:
    """Read ``address/length``: the prefix with its host bits cleared, and what a strict API server would object to.

    None when even the old, lax parser refuses it.
    """
    address_part, slash, length_part = text.partition("/")
    digits = _DECIMAL.fullmatch(length_part)
    if not slash or digits is None or len(text) > _LONGEST:
        return None
    length = int(digits[1])
    family = Family.IPV6 if ":" in address_part else Family.IPV4
    address = _ipv6(address_part) if family is Family.IPV6 else _ipv4(address_part)
    if address is None or length > family.bits:
        return None
    warnings = []
    if family is Family.IPV6 and address >> 32 == _MAPPED_PREFIX and length >= _MAPPED_LENGTH:
        # No packet carries such an address. The API server's own containment check reads it as IPv4, so an `except` written
        # this way must cut from the IPv4 block it was accepted for.
        family, address, length = Family.IPV4, address & 0xFFFFFFFF, length - _MAPPED_LENGTH
        warnings.append("an IPv4-mapped IPv6 prefix is read as IPv4")
    host_bits = family.bits - length
    prefix = Cidr(family.value, address >> host_bits << host_bits, length)
    if prefix.address != address:
        warnings.append("bits beyond the prefix length are ignored")
    if _has_leading_zeros(address_part, length_part):
        warnings.append("leading zeros are ignored")
    return prefix, tuple(warnings)


def _has_leading_zeros(address: str, length: str) -> bool:
    parts = [length, *address.rpartition(":")[2].split(".")] if "." in address else [length]
    return any(len(part) > 1 and part.startswith("0") for part in parts)


def written(prefix: Cidr) -> str:
    """The prefix as a manifest writes it, always with its length."""
    return f"{prefix.address_text}/{prefix.length}"
