"""The addresses of this machine: what the node's own traffic comes from, besides what its Node object says."""

from __future__ import annotations

from typing import Any, Final

from polyplane.errors import PolyplaneError
from polyplane.ir.cidr import Cidr

#: Address scope "host" (linux/rtnetlink.h RT_SCOPE_HOST): loopback, which never reaches a pod.
_SCOPE_HOST: Final = 254


def local_addresses() -> frozenset[Cidr]:
    """Return the addresses of all interfaces of this network namespace, but loopback's.

    :raises PolyplaneError: when netlink cannot be asked
    """
    # Imported here because it takes more than half a second, which only a starting agent should have to wait.
    from pyroute2 import IPRoute  # noqa: PLC0415
    from pyroute2.netlink.exceptions import NetlinkError  # noqa: PLC0415

    try:
        with IPRoute() as netlink:
            messages: list[Any] = list(netlink.get_addr())
    except (OSError, NetlinkError) as error:
        raise PolyplaneError(f"cannot list this machine's addresses: {error}; set detect_node_addresses = false") from error
    # IFA_LOCAL is our side of a point-to-point link, where IFA_ADDRESS is the peer's; IPv6 mostly has IFA_ADDRESS alone.
    texts = [message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS") for message in messages if message["scope"] != _SCOPE_HOST]
    return frozenset(Cidr.parse(text) for text in texts if text)
