"""The small questions of the API text: does a selector select, does an IP block contain, does a port item match."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from typing import Any

Raw = Mapping[str, Any]

#: Label that the control plane keeps on every namespace (GA in Kubernetes 1.22).
NAME_LABEL = "kubernetes.io/metadata.name"


def selects(selector: Raw | None, labels: Mapping[str, str]) -> bool:
    """Whether a LabelSelector selects an object with these labels; None and ``{}`` select everything.

    Everything in a selector is and-ed. ``NotIn`` and ``DoesNotExist`` hold for objects that lack the key.
    """
    selector = selector or {}
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    return all(_holds(expression, labels) for expression in selector.get("matchExpressions") or ())


def _holds(expression: Raw, labels: Mapping[str, str]) -> bool:
    key = expression["key"]
    values = expression.get("values") or ()
    answers = {
        "In": key in labels and labels[key] in values,
        "NotIn": not (key in labels and labels[key] in values),
        "Exists": key in labels,
        "DoesNotExist": key not in labels,
    }
    return answers[expression["operator"]]


def in_block(block: Raw, address: str) -> bool:
    """Whether an ipBlock contains the address: inside ``cidr`` and in none of ``except``; families never mix."""
    if not _inside(block["cidr"], address):
        return False
    return not any(_inside(carved, address) for carved in block.get("except") or ())


def _inside(cidr: str, address: str) -> bool:
    network = ipaddress.ip_network(cidr, strict=False)
    parsed = ipaddress.ip_address(address)
    return parsed.version == network.version and parsed in network


def policy_types(spec: Raw) -> frozenset[str]:
    """Directions a policy isolates: as written, or ``Ingress`` and, if there is any egress rule, ``Egress``."""
    written = spec.get("policyTypes") or ()
    if written:
        return frozenset(written)
    return frozenset({"Ingress", "Egress"} if spec.get("egress") else {"Ingress"})


def container_ports(pod: Raw) -> Iterator[Raw]:
    """All declared ports of a pod: of its containers, and of init containers that stay as sidecars."""
    spec = pod.get("spec") or {}
    for container in spec.get("containers") or ():
        yield from container.get("ports") or ()
    for container in spec.get("initContainers") or ():
        if container.get("restartPolicy") == "Always":
            yield from container.get("ports") or ()


def port_matches(item: Raw, *, protocol: str, port: int | None, destination: Raw | None) -> bool:
    """Whether one item of ``ports`` matches; names are looked up at the destination pod, None if it is no pod."""
    if item.get("protocol", "TCP") != protocol:
        return False
    wanted = item.get("port")
    if wanted is None:
        return True
    if isinstance(wanted, str):
        if destination is None:
            return False
        return any(
            declared.get("name") == wanted and declared.get("protocol", "TCP") == protocol and declared["containerPort"] == port
            for declared in container_ports(destination)
        )
    return port is not None and wanted <= port <= item.get("endPort", wanted)
