"""Service translation as kube-proxy does it: the policy engine must see the address *after* it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from polyplane_conformance.probe.model import family_of, protocol_name

#: Our own table, so that any backend's tables and this one do not meet.
TABLE: Final = "sandbox-services"


class Translator(StrEnum):
    """By what means addresses are translated."""

    NFT = "nft"
    #: Whatever ``iptables`` is on this machine, legacy or nft.
    IPTABLES = "iptables"


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A service address and the one pod behind it: protocol number, ports, both addresses of one family."""

    address: str
    port: int
    protocol: int
    target: str
    target_port: int

    def __post_init__(self) -> None:
        if family_of(self.address) != family_of(self.target):
            raise ValueError(f"service {self.address} and its target {self.target} are not of one family")


def nft_text(service: Service) -> str:
    """Return what ``nft -f -`` brings into the node: translation of forwarded and the node's own packets, and of hairpins.

    A pod that reaches itself through a service would get packets from its own address, which it drops; so they get the
    node's, as kube-proxy has it.
    """
    family, name = ("ip" if family_of(service.address) == 4 else "ip6"), protocol_name(service.protocol)
    target = service.target if family == "ip" else f"[{service.target}]"
    translate = f"{family} daddr {service.address} {name} dport {service.port} dnat to {target}:{service.target_port}"
    return "\n".join(
        [
            f"add table {family} {TABLE}",
            f"add chain {family} {TABLE} prerouting {{ type nat hook prerouting priority dstnat; }}",
            f"add chain {family} {TABLE} output {{ type nat hook output priority -100; }}",
            f"add chain {family} {TABLE} postrouting {{ type nat hook postrouting priority srcnat; }}",
            f"add rule {family} {TABLE} prerouting {translate}",
            f"add rule {family} {TABLE} output {translate}",
            f"add rule {family} {TABLE} postrouting {family} saddr {service.target} {family} daddr {service.target} masquerade",
            "",
        ]
    )


def iptables_commands(service: Service) -> list[list[str]]:
    """Return the same as commands."""
    program, target = ("iptables", service.target) if family_of(service.address) == 4 else ("ip6tables", f"[{service.target}]")
    translate = ["-d", service.address, "-p", protocol_name(service.protocol), "--dport", str(service.port)]
    translate += ["-j", "DNAT", "--to-destination", f"{target}:{service.target_port}"]
    hairpin = ["-s", service.target, "-d", service.target, "-j", "MASQUERADE"]
    return [
        [program, "-w", "5", "-t", "nat", "-A", *rule]
        for rule in (["PREROUTING", *translate], ["OUTPUT", *translate], ["POSTROUTING", *hairpin])
    ]
