"""`World`: the raw objects of a cluster while a scenario plays, and the writes that every action makes.

It is the API server of the suite: it keeps what was admitted, and remembers for every object the writes since it was last
valid, so that a source can be replayed in any order (see `polyplane_conformance.expanders`). It knows nothing of polyplane.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from polyplane_conformance.actions import (
    Action,
    AddNamespace,
    AddPod,
    AddressPod,
    ApplyClusterPolicy,
    ApplyPolicy,
    DeleteClusterPolicy,
    DeletePolicy,
    FinishPod,
    LabelNamespace,
    LabelNode,
    LabelPod,
    PodSpec,
    RemoveNamespace,
    RemovePod,
    Restart,
    TerminatePod,
)
from polyplane_conformance.cast import HOSTS, NODE, NODE_ACTOR, PORTS, REMOTE_NODE, REMOTE_NODE_ACTOR, AddressPlan
from polyplane_conformance.oracle import refusal
from polyplane_conformance.scenario import Scenario

Raw = Mapping[str, Any]
#: Kind, namespace (empty for cluster-scoped kinds), name.
Key = tuple[str, str, str]
#: Chooses the node of a pod from its name and the node its scenario wants.
Placement = Callable[[str, str], str]

_PLACEHOLDER: Final = re.compile(r"\{(?P<actor>[^{}:]+):(?P<family>[46])(?:/(?P<length>\d+))?\}")
#: Kinds of policies, and their API versions.
API_VERSIONS: Final[Mapping[str, str]] = {
    "NetworkPolicy": "networking.k8s.io/v1",
    "ClusterNetworkPolicy": "policy.networking.k8s.io/v1alpha2",
    "AdminNetworkPolicy": "policy.networking.k8s.io/v1alpha1",
    "BaselineAdminNetworkPolicy": "policy.networking.k8s.io/v1alpha1",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """One object was written with this content, or deleted (None). ``accepted``: whether an API server would have taken it."""

    key: Key
    raw: Raw | None
    accepted: bool = True


def as_written(_pod: str, node: str) -> str:
    """Place every pod where its scenario says."""
    return node


def together(_pod: str, _node: str) -> str:
    """Place all pods on the node under test."""
    return NODE


def apart(pod: str, _node: str) -> str:
    """Spread pods over both nodes, so that neighbours in the alphabet are apart."""
    return NODE if sum(pod.encode()) % 2 else REMOTE_NODE


class World:
    """The cluster of one scenario at one moment."""

    def __init__(
        self, scenario: Scenario, plan: AddressPlan, *, placement: Placement = as_written, interfaces: Mapping[str, str] | None = None
    ) -> None:
        self.plan = plan
        self.placement = placement
        #: Actor to the host-side interface of its pod, where known.
        self.interfaces = interfaces or {}
        #: Objects in force, by key.
        self.objects: dict[Key, Raw] = {}
        #: For every object: its last accepted write and the refused ones that followed.
        self.history: dict[Key, tuple[Write, ...]] = {}
        #: Pod to the actor whose addresses it has.
        self.played_by: dict[str, str] = {}
        self._homes: dict[str, str] | None = None
        self._write_nodes()
        for name, labels in scenario.namespaces.items():
            self._write(self._namespace(name, labels))
        for name, spec in scenario.pods.items():
            self._write(self._pod(name, spec))

    # --- reading

    def actor(self, name: str) -> str:
        """Return whose addresses an actor of the scenario has: a pod may play another's."""
        return self.played_by.get(name, name)

    def addresses(self, name: str) -> Mapping[int, str]:
        """Return the addresses to send from or to for an actor, whether or not the cluster knows them yet."""
        return self.plan.of(self.actor(name))

    def homes(self) -> Mapping[str, str]:
        """Return the node behind every address that is in use: the nodes' own and those of pods that run."""
        if self._homes is None:
            self._homes = {}
            for (kind, _, name), raw in self.objects.items():
                status = raw.get("status") or {}
                if kind == "Node":
                    self._homes.update({entry["address"]: name for entry in status["addresses"]})
                elif kind == "Pod" and status["phase"] not in ("Succeeded", "Failed") and "nodeName" in raw["spec"]:
                    self._homes.update({entry["ip"]: raw["spec"]["nodeName"] for entry in status.get("podIPs", ())})
        return self._homes

    # --- acting

    def perform(self, action: Action) -> list[Write]:
        """Carry out one action and return its writes.

        :raises KeyError: when the action names an object that does not exist
        """
        match action:
            case ApplyPolicy() | ApplyClusterPolicy():
                return [self._write(self._policy(action))]
            case AddPod():
                return [self._write(self._pod(action.pod, action))]
            case AddNamespace():
                return [self._write(self._namespace(action.name, action.labels))]
            case LabelNamespace():
                return [self._relabel(("Namespace", "", action.name), action.set, action.drop)]
            case LabelNode():
                return [self._relabel(("Node", "", HOSTS[action.name] or action.name), action.set, action.drop)]
            case LabelPod():
                return [self._relabel(("Pod", *_split(action.pod)), action.set, action.drop)]
            case AddressPod() | FinishPod() | TerminatePod():
                return [self._change_pod(action)]
            case DeletePolicy() | DeleteClusterPolicy() | RemoveNamespace() | RemovePod() | Restart():
                return [self._delete(key) for key in self._doomed(action)]

    def _doomed(self, action: DeletePolicy | DeleteClusterPolicy | RemoveNamespace | RemovePod | Restart) -> list[Key]:
        """Objects that an action deletes, a namespace after what is in it."""
        match action:
            case DeletePolicy(name="*"):
                return [key for key in self.history if key[0] in API_VERSIONS]
            case DeletePolicy():
                return [key for key in (("NetworkPolicy", *_split(action.name)),) if key in self.history]
            case DeleteClusterPolicy():
                return [key for key in ((action.kind, "", action.name),) if key in self.history]
            case RemoveNamespace():
                return [*(key for key in self.history if key[1] == action.name), ("Namespace", "", action.name)]
            case RemovePod():
                return [("Pod", *_split(action.pod))]
            case Restart():
                return []

    def _change_pod(self, action: AddressPod | FinishPod | TerminatePod) -> Write:
        pod = copy.deepcopy(dict(self.objects["Pod", *_split(action.pod)]))
        match action:
            case AddressPod():
                pod["status"] = self._status(self.addresses(action.pod), action.families)
            case FinishPod():
                pod["status"]["phase"] = action.phase
            case TerminatePod():
                pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        return self._write(pod)

    # --- writing

    def _write(self, raw: Raw) -> Write:
        meta = raw["metadata"]
        key = (raw["kind"], meta.get("namespace", ""), meta["name"])
        accepted = raw["kind"] not in API_VERSIONS or refusal(raw) is None
        write = Write(key=key, raw=raw, accepted=accepted)
        self._homes = None
        if accepted:
            self.objects[key] = raw
            self.history[key] = (write,)
        else:
            self.history[key] = (*self.history.get(key, ()), write)
        return write

    def _delete(self, key: Key) -> Write:
        self.objects.pop(key, None)
        self._homes = None
        del self.history[key]
        return Write(key=key, raw=None)

    def _relabel(self, key: Key, added: Mapping[str, str], dropped: Iterable[str]) -> Write:
        raw = copy.deepcopy(dict(self.objects[key]))
        labels = {**(raw["metadata"].get("labels") or {}), **added}
        raw["metadata"]["labels"] = {name: value for name, value in labels.items() if name not in dropped}
        return self._write(raw)

    # --- objects

    def _write_nodes(self) -> None:
        for name, actor in ((NODE, NODE_ACTOR), (REMOTE_NODE, REMOTE_NODE_ACTOR)):
            addresses = [{"type": "InternalIP", "address": address} for address in self.plan.of(actor).values()]
            meta = {"name": name, "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux"}}
            self._write({"apiVersion": "v1", "kind": "Node", "metadata": meta, "status": {"addresses": addresses}})

    @staticmethod
    def _namespace(name: str, labels: Mapping[str, str]) -> Raw:
        return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": dict(labels)}}

    def _pod(self, pod: str, spec: PodSpec) -> Raw:
        namespace, name = _split(pod)
        self.played_by.pop(pod, None)
        if spec.plays is not None:
            self.played_by[pod] = spec.plays
        node = {"local": NODE, "remote": REMOTE_NODE}.get(spec.node or "", spec.node)
        node = None if node is None else self.placement(pod, node)
        if spec.host_network:
            self.played_by[pod] = NODE_ACTOR if node == NODE else REMOTE_NODE_ACTOR
        meta: dict[str, Any] = {
            "name": name,
            "namespace": namespace,
            "labels": dict(spec.labels if spec.labels is not None else {"pod": name}),
        }
        if (interface := self.interfaces.get(self.actor(pod))) and not spec.host_network and node == NODE:
            meta["annotations"] = {"polyplane.dev/host-interface": interface}
        containers = spec.containers if spec.containers is not None else (PORTS,)
        raw_spec: dict[str, Any] = {
            "containers": [_container(f"main-{index}", ports) for index, ports in enumerate(containers)],
            "initContainers": [
                *(_container(f"sidecar-{index}", ports) | {"restartPolicy": "Always"} for index, ports in enumerate(spec.sidecars)),
                *(_container(f"init-{index}", ports) for index, ports in enumerate(spec.init_containers)),
            ],
        }
        if node is not None:
            raw_spec["nodeName"] = node
        if spec.host_network:
            raw_spec["hostNetwork"] = True
        status = self._status(self.addresses(pod), spec.families)
        return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": raw_spec, "status": status}

    @staticmethod
    def _status(addresses: Mapping[int, str], families: Iterable[int]) -> dict[str, Any]:
        ips = [{"ip": addresses[family]} for family in families]
        return {"phase": "Running", "podIP": ips[0]["ip"], "podIPs": ips} if ips else {"phase": "Pending"}

    def _policy(self, action: ApplyPolicy | ApplyClusterPolicy) -> Raw:
        if isinstance(action, ApplyPolicy):
            namespace, name = _split(action.policy)
            kind, meta = "NetworkPolicy", {"name": name, "namespace": namespace}
        else:
            kind, meta = action.kind, {"name": action.name}
        return {"apiVersion": API_VERSIONS[kind], "kind": kind, "metadata": meta, "spec": self._fill_in(action.spec)}

    def _fill_in(self, value: Any) -> Any:
        """Replace ``{x/a:4}`` and ``{x/a:6/64}`` in texts by the actor's prefix."""
        match value:
            case str():
                return _PLACEHOLDER.sub(self._prefix, value)
            case Mapping():
                return {key: self._fill_in(item) for key, item in value.items()}
            case list() | tuple():
                return [self._fill_in(item) for item in value]
            case _:
                return value

    def _prefix(self, found: re.Match[str]) -> str:
        length = found["length"]
        return self.plan.prefix(self.actor(found["actor"]), int(found["family"]), int(length) if length else None)


def _split(name: str) -> tuple[str, str]:
    namespace, _, pod = name.partition("/")
    return namespace, pod


def _container(name: str, ports: Iterable[str]) -> dict[str, Any]:
    """Return a container whose ports are written ``name=number/protocol``; the name may be left out."""
    declared = []
    for text in ports:
        label, _, service = text.rpartition("=")
        number, _, protocol = service.partition("/")
        port: dict[str, Any] = {"containerPort": int(number), "protocol": protocol}
        declared.append(port | ({"name": label} if label else {}))
    return {"name": name, "image": "none", "ports": declared}
