"""What a scenario can do to the cluster, one class per verb; the first key of the YAML mapping is the verb."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

import msgspec

_Many = tuple[str, ...]
PodName = Annotated[str, msgspec.Meta(pattern=r"^[^/]+/[^/]+$")]


class ApplyPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Create or update a NetworkPolicy. ``refused``: an API server would not take it."""

    policy: PodName
    spec: Any = None
    refused: bool = False


class ApplyClusterPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, rename={"name": "cluster-policy"}):
    """Create or update a policy that lives in no namespace. ``refused``: an API server would not take it."""

    name: str
    kind: str = "ClusterNetworkPolicy"
    spec: Any = None
    refused: bool = False


class DeleteClusterPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, rename={"name": "delete-cluster-policy"}):
    """Delete one policy that lives in no namespace."""

    name: str
    kind: str = "ClusterNetworkPolicy"


class DeletePolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, rename={"name": "delete-policy"}):
    """Delete one policy of a namespace, or with ``*`` all of all kinds."""

    name: str


class AddNamespace(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, rename={"name": "add-namespace"}):
    """Create a namespace."""

    name: str
    labels: Mapping[str, str] = {}


class RemoveNamespace(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, rename={"name": "remove-namespace"}):
    """Delete a namespace with all its pods and policies."""

    name: str


class LabelNamespace(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, rename={"name": "label-namespace"}):
    """Set and drop labels of a namespace."""

    name: str
    set: Mapping[str, str] = {}
    drop: _Many = ()


class LabelPod(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, rename={"pod": "label-pod"}):
    """Set and drop labels of a pod."""

    pod: PodName
    set: Mapping[str, str] = {}
    drop: _Many = ()


class LabelNode(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, rename={"name": "label-node"}):
    """Set and drop labels of a node, ``node`` or ``remote-node``."""

    name: str
    set: Mapping[str, str] = {}
    drop: _Many = ()


class PodSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A pod where it differs from the cast's.

    ``containers`` and ``sidecars`` list each container's ports as ``name=number/protocol``. ``families``: the IP versions it has addresses of;
    none: not yet assigned. ``plays``: the actor whose addresses it has (its own name's, unless given).
    """

    labels: Mapping[str, str] | None = None
    containers: tuple[_Many, ...] | None = None
    sidecars: tuple[_Many, ...] = ()
    init_containers: tuple[_Many, ...] = ()
    node: str | None = "local"
    host_network: bool = False
    families: tuple[int, ...] = (4, 6)
    plays: str | None = None


class AddPod(PodSpec, frozen=True, forbid_unknown_fields=True, kw_only=True, rename={"pod": "add-pod"}):
    """Create a pod that runs at once."""

    pod: PodName


class AddressPod(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, rename={"pod": "address-pod"}):
    """Give a pod that has no address yet its addresses."""

    pod: PodName
    families: tuple[int, ...] = (4, 6)


class RemovePod(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, rename={"pod": "remove-pod"}):
    """Delete a pod."""

    pod: PodName


class FinishPod(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, rename={"pod": "finish-pod"}):
    """All containers of the pod have ended; its status still shows the addresses it had."""

    pod: PodName
    phase: str = "Succeeded"


class TerminatePod(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, rename={"pod": "terminate-pod"}):
    """Somebody asked for the pod's deletion; it still runs."""

    pod: PodName


class Restart(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, rename={"what": "restart"}):
    """The agent starts again and remembers nothing."""

    what: str


Action = (
    ApplyPolicy
    | DeletePolicy
    | ApplyClusterPolicy
    | DeleteClusterPolicy
    | AddNamespace
    | RemoveNamespace
    | LabelNamespace
    | LabelNode
    | LabelPod
    | AddPod
    | AddressPod
    | RemovePod
    | FinishPod
    | TerminatePod
    | Restart
)

#: Verb (the key that YAML has) to class.
VERBS: Final[Mapping[str, type[Action]]] = {
    "policy": ApplyPolicy,
    "delete-policy": DeletePolicy,
    "cluster-policy": ApplyClusterPolicy,
    "delete-cluster-policy": DeleteClusterPolicy,
    "add-namespace": AddNamespace,
    "remove-namespace": RemoveNamespace,
    "label-namespace": LabelNamespace,
    "label-node": LabelNode,
    "label-pod": LabelPod,
    "add-pod": AddPod,
    "address-pod": AddressPod,
    "remove-pod": RemovePod,
    "finish-pod": FinishPod,
    "terminate-pod": TerminatePod,
    "restart": Restart,
}


def read_action(raw: Mapping[str, Any]) -> Action:
    """Turn one YAML mapping into an action.

    :raises ValueError: for an unknown verb, key or value
    """
    verb = next((key for key in raw if key in VERBS), None)
    if verb is None:
        raise ValueError(f"no known verb among {', '.join(raw)}; verbs are {', '.join(VERBS)}")
    return msgspec.convert(raw, VERBS[verb])
