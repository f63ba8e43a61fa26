"""What is asked and what came of it: `Traffic`, `Probe`, `Outcome`, `Result`. Plain data, no I/O."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

ICMP: Final = 1
TCP: Final = 6
UDP: Final = 17
ICMPV6: Final = 58
SCTP: Final = 132

#: Protocols with ports, by the name that Kubernetes and people use.
PROTOCOL_NUMBERS: Final = {"tcp": TCP, "udp": UDP, "sctp": SCTP}
_NAMES: Final = {number: name for name, number in PROTOCOL_NUMBERS.items()} | {ICMP: "icmp", ICMPV6: "icmp"}


def protocol_name(number: int) -> str:
    """``tcp``, ``udp``, ``sctp``, ``icmp`` (of either family), otherwise ``ip-<number>``."""
    return _NAMES.get(number, f"ip-{number}")


def family_of(address: str) -> int:
    """4 or 6, by the look of an IP address."""
    return 6 if ":" in address else 4


@dataclass(frozen=True, slots=True, order=True)
class Traffic:
    """A kind of traffic: IP protocol number, destination port (0 for protocols without ports), IP version 4 or 6.

    1 and 58 mean an echo request. Any other number than those, TCP, UDP and SCTP is sent as a raw packet.
    """

    protocol: int
    port: int = 0
    family: int = 4

    def __post_init__(self) -> None:
        if self.family not in {4, 6}:
            raise ValueError(f"IP version {self.family} is neither 4 nor 6")
        if (self.protocol == ICMP and self.family == 6) or (self.protocol == ICMPV6 and self.family == 4):
            raise ValueError(f"protocol {self.protocol} does not exist in IPv{self.family}; IPv4 has 1, IPv6 has 58")
        if (self.protocol in PROTOCOL_NUMBERS.values()) != (0 < self.port < 65536):
            raise ValueError(
                f"protocol {self.protocol} with port {self.port}; TCP, UDP and SCTP need one from 1 to 65535, others have none"
            )

    @classmethod
    def parse(cls, text: str, family: int = 4) -> Traffic:
        """Read ``tcp/80``, ``udp/53``, ``sctp/3868``, ``icmp`` or ``ip-253``.

        :raises ValueError: for anything else
        """
        name, slash, port = text.lower().partition("/")
        if name in PROTOCOL_NUMBERS and port.isdecimal():
            return cls(PROTOCOL_NUMBERS[name], int(port), family)
        if not slash and name == "icmp":
            return cls(ICMP if family == 4 else ICMPV6, 0, family)
        if not slash and name.startswith("ip-") and name[3:].isdecimal():
            return cls(int(name[3:]), 0, family)
        raise ValueError(f"traffic {text!r} is none of tcp/<port>, udp/<port>, sctp/<port>, icmp, ip-<number>")

    @property
    def name(self) -> str:
        """The traffic without its family, as `parse` reads it."""
        return f"{protocol_name(self.protocol)}/{self.port}" if self.port else protocol_name(self.protocol)

    def __str__(self) -> str:
        return f"{self.name} IPv{self.family}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """One question: does this traffic get from ``source`` to ``destination``, and back?

    Both are names of the sandbox: a pod's ``namespace/name``, a node, a host. ``address`` replaces the destination's own
    address (a service address, an address that changed hands); then ``destination`` only says whose answer is expected.
    ``source_port`` 0: any.
    """

    source: str
    destination: str
    traffic: Traffic
    address: str = ""
    source_port: int = 0

    def __str__(self) -> str:
        return f"{self.source} → {self.destination}{f' at {self.address}' if self.address else ''} {self.traffic}"


class Outcome(StrEnum):
    """What became of a probe."""

    #: Answered.
    ALLOWED = "allowed"
    #: Silence, while another path to the same server worked at the same time.
    DENIED = "denied"
    #: Refused aloud (TCP reset, ICMP prohibited or unreachable port), while another path to the same server worked.
    REJECTED = "rejected"
    #: Says nothing about policy: no route, no server, the sandbox itself does not work.
    BROKEN = "broken"


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of one probe.

    ``answered_by``: who answered (a pod's ``namespace/name``), empty for ICMP, which the kernel answers without a name, and
    where nobody did. ``seconds``: from the first packet to the answer or verdict. ``packets``: how many times it was tried.
    """

    outcome: Outcome
    answered_by: str = ""
    detail: str = ""
    seconds: float = 0.0
    packets: int = 1

    @property
    def allowed(self) -> bool:
        """Whether the traffic passed."""
        return self.outcome is Outcome.ALLOWED
