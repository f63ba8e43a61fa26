"""What tests ask of the machine: root, commands, Python modules. What is not there is named together with what brings it."""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec
from typing import Final

import pytest

#: What brings a command; packages are Debian's.
_COMMANDS: Final = {
    "conntrack": "apt-get install conntrack",
    "helm": "https://helm.sh/docs/intro/install",
    "ip": "apt-get install iproute2",
    "ip6tables": "apt-get install iptables",
    "ipset": "apt-get install ipset",
    "iptables": "apt-get install iptables",
    "iptables-legacy-restore": "apt-get install iptables",
    "iptables-nft-restore": "apt-get install iptables",
    "iptables-restore": "apt-get install iptables",
    "kubectl": "https://kubernetes.io/docs/tasks/tools",
    "nft": "apt-get install nftables",
    "ovs-ofctl": "apt-get install openvswitch-switch",
    "ovs-vswitchd": "apt-get install openvswitch-switch",
    "ovsdb-server": "apt-get install openvswitch-switch",
    "setpriv": "apt-get install util-linux",
    "tcpdump": "apt-get install tcpdump",
}
#: What brings a module.
_MODULES: Final = {
    "bcc": "apt-get install python3-bpfcc",
    "iptc": "pip install python-iptables (it is compiled)",
    "matplotlib": "pip install matplotlib",
    "opentelemetry.sdk": "pip install 'polyplane[otel]'",
    "polyplane_nftables": "pip install polyplane-nftables",
}


def missing(*things: str) -> tuple[str, ...]:
    """Say of each of the things that is not here what brings it.

    :param things: ``root``, commands, or modules by the name they are imported by
    :raises ValueError: for a thing nobody has said how to get, so that a misspelt one is no reason to leave a test out for ever
    """
    return tuple(filter(None, map(_missing, dict.fromkeys(things))))


def require(*things: str) -> None:
    """Skip the test that is running, or the module that is being read, unless everything is here; see `missing`."""
    if lacking := missing(*things):
        pytest.skip("; ".join(lacking), allow_module_level=True)


def _missing(thing: str) -> str:
    if thing == "root":
        return "" if os.geteuid() == 0 else "needs root, for network namespaces or BPF programs: run it with sudo"
    if (remedy := _COMMANDS.get(thing)) is not None:
        return "" if shutil.which(thing) else f"needs the command {thing}: {remedy}"
    if (remedy := _MODULES.get(thing)) is not None:
        return "" if _importable(thing) else f"needs the module {thing}: {remedy}"
    raise ValueError(f"nobody knows what brings {thing}; say it in {__name__}")


def _importable(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # a package that it is part of
        return False
