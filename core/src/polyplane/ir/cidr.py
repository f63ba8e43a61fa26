"""`Cidr`: one IPv4 or IPv6 prefix; a plain address is a prefix of full length.

A named tuple of integers rather than :mod:`ipaddress`: hashing and comparing happen in C, which is what a node with
100,000 addresses spends its time on, and the natural order (IPv4 first, then by address, short before long) is canonical.
"""

from __future__ import annotations

import ipaddress
import socket
from enum import IntEnum
from typing import NamedTuple

from polyplane.errors import InvalidProgram


class Family(IntEnum):
    """IP version; the value is what the IP header's version field says."""

    IPV4 = 4
    IPV6 = 6

    @property
    def bits(self) -> int:
        """Length of an address of this family in bits."""
        return 32 if self is Family.IPV4 else 128


#: Address bits per IP version, keyed by the plain integer that `Cidr.family` holds.
BITS = {4: 32, 6: 128}


class Cidr(NamedTuple):
    """One IP prefix: ``family`` 4 or 6, ``address`` as an unsigned integer with the host bits clear, ``length`` in bits."""

    family: int
    address: int
    length: int

    @classmethod
    def parse(cls, text: str) -> Cidr:
        """Read ``10.0.0.0/8``, ``10.1.2.3``, ``fd00::/8`` or ``fd00::1``; host bits are masked.

        :raises InvalidProgram: when the text is no IP address or prefix
        """
        try:
            network = ipaddress.ip_network(text, strict=False)
        except ValueError as error:
            raise InvalidProgram(f"{text!r} is not an IP address or prefix: {error}") from error
        return cls(network.version, int(network.network_address), network.prefixlen)

    @property
    def bits(self) -> int:
        """Length of an address of this family in bits: 32 or 128."""
        return BITS[self.family]

    @property
    def is_host(self) -> bool:
        """Whether the prefix is one single address."""
        return self.length == BITS[self.family]

    @property
    def first(self) -> int:
        """Lowest address of the prefix, as an integer."""
        return self.address

    @property
    def last(self) -> int:
        """Highest address of the prefix, as an integer."""
        return self.address | ((1 << (BITS[self.family] - self.length)) - 1)

    def covers(self, other: Cidr) -> bool:
        """Whether every address of ``other`` is an address of this prefix."""
        if self.family != other.family or self.length > other.length:
            return False
        return (self.address ^ other.address) >> (BITS[self.family] - self.length) == 0

    def prefix(self, length: int) -> Cidr:
        """Return the prefix of ``length`` bits that covers this one; ``length`` must not exceed ours."""
        host_bits = BITS[self.family] - length
        return Cidr(self.family, self.address >> host_bits << host_bits, length)

    @property
    def address_text(self) -> str:
        """The address without its length, in canonical form (RFC 5952 for IPv6)."""
        return address_text(self.family, self.address)

    def __str__(self) -> str:
        text = self.address_text
        return text if self.is_host else f"{text}/{self.length}"


def address_text(family: int, address: int) -> str:
    """Canonical text of one address given as an integer.

    `socket.inet_ntop` rather than :mod:`ipaddress` because printing is on the hot path of every native batch.
    """
    if family == Family.IPV4:
        return socket.inet_ntop(socket.AF_INET, address.to_bytes(4, "big"))
    return str(ipaddress.IPv6Address(address))
