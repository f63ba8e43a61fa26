"""A topology as the cluster would describe it: raw Namespace, Node and Pod objects."""

from __future__ import annotations

from typing import Any, Final

from polyplane_conformance.sandbox.topology import NodeSpec, PodSpec, Topology, manifest_protocol

#: Tells polyplane which interface of the node a pod hangs on.
INTERFACE_ANNOTATION: Final = "polyplane.dev/host-interface"

Manifest = dict[str, Any]


def manifests(topology: Topology, *, interfaces: bool = True) -> list[Manifest]:
    """Return all objects; with ``interfaces`` False the pods do not tell their interface, as with a CNI that says nothing."""
    spaces = {**{pod.namespace: {} for pod in topology.pods}, **topology.namespaces}
    return [
        *(namespace_manifest(name, dict(labels)) for name, labels in spaces.items()),
        *(node_manifest(node) for node in topology.nodes),
        *(pod_manifest(topology, pod, interface=interfaces) for pod in topology.pods),
    ]


def namespace_manifest(name: str, labels: dict[str, str]) -> Manifest:
    """Return a Namespace with the label that an API server adds."""
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {**labels, "kubernetes.io/metadata.name": name}}}


def node_manifest(node: NodeSpec) -> Manifest:
    """Return a Node with its internal addresses."""
    addresses = [{"type": "InternalIP", "address": address} for address in node.addresses]
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": node.name, "labels": dict(node.labels)},
        "status": {"addresses": [*addresses, {"type": "Hostname", "address": node.name}]},
    }


def pod_manifest(topology: Topology, pod: PodSpec, *, interface: bool = True) -> Manifest:
    """Return a running Pod: where it is, its addresses, the ports it serves, and the interface it hangs on."""
    metadata: Manifest = {"namespace": pod.namespace, "name": pod.name, "labels": dict(pod.labels)}
    if interface and not pod.host_network:
        metadata["annotations"] = {INTERFACE_ANNOTATION: pod.host_interface}
    ports = [
        {"name": port.manifest_name, "containerPort": port.number, "protocol": protocol}
        for port in pod.ports
        if (protocol := manifest_protocol(port)) is not None
    ]
    spec: Manifest = {"nodeName": topology.node_of(pod).name, "containers": [{"name": "serve", "image": "none", "ports": ports}]}
    if pod.host_network:
        spec["hostNetwork"] = True
    addresses = topology.addresses_of(pod.id)
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": spec,
        "status": {"phase": "Running", "podIP": addresses[0], "podIPs": [{"ip": address} for address in addresses]},
    }
