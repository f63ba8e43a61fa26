"""`SyntheticCluster`: a cluster of any size as a stream of objects, the same for the same shape and seed.

It looks like clusters do: namespaces of very different sizes, each with the same eight applications; policies that select one
application or all, and admit others of their namespace, of namespaces with a label, of the whole cluster, or blocks of addresses;
named ports, ranges, egress. What belongs to the node under test is spread over the cluster.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from polyplane.cluster.model import InSync, ObjectKey, PutObject, SourceEvent

NODE: Final = "node-0"
APPS: Final = ("web", "api", "auth", "cart", "orders", "worker", "cache", "db")
TEAMS: Final = 25
_PODS_PER_NODE: Final = 110
_FULL: Final = 1 << 32

Raw = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How large a cluster is: ``local`` of the ``pods`` are on the node under test."""

    pods: int
    policies: int
    namespaces: int = 1000
    local: int = 110
    seed: int = 1

    def __str__(self) -> str:
        return f"{self.pods} pods, {self.policies} policies, {self.local} here"


@dataclass(frozen=True, slots=True)
class SyntheticCluster:
    """Makes the objects of a cluster of this shape, each when it is asked for, so that nothing of it stays in memory."""

    shape: Shape

    def objects(self) -> Iterator[Raw]:
        """Yield every object: namespaces, pods, policies."""
        for number in range(self.shape.namespaces):
            yield self.namespace(number)
        for number in range(self.shape.pods):
            yield self.pod(number)
        for number in range(self.shape.policies):
            yield self.policy(number)

    def events(self) -> Iterator[SourceEvent]:
        """Yield the same as a source would at its start."""
        for raw in self.objects():
            yield put(raw)
        yield InSync()

    # --- parts

    def namespace(self, number: int, **labels: str) -> Raw:
        """Return a namespace. Every fiftieth is of those who may go everywhere (monitoring and ingress)."""
        name = f"ns-{number:04}"
        role = ("monitoring", "ingress")[number // 50 % 2] if number % 50 == 0 else "tenant"
        own = {"kubernetes.io/metadata.name": name, "team": f"team-{number % TEAMS}", "role": role}
        return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {**own, **labels}}}

    def home(self, number: int) -> int:
        """Return the namespace of a pod: a few are large, most are small."""
        return int(self.shape.namespaces * (self._mix("home", number) / _FULL) ** 1.5)

    def is_local(self, number: int) -> bool:
        """Whether a pod is on the node under test."""
        every = max(1, self.shape.pods // self.shape.local)
        return number % every == 0 and number // every < self.shape.local

    def pod(self, number: int, *, app: str = "", address: int | None = None) -> Raw:
        """Return a pod; the address is that of another number if one is given."""
        app = app or APPS[self._mix("app", number) % len(APPS)]
        at = number if address is None else address
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "namespace": f"ns-{self.home(number):04}",
                "name": f"{app_of_name(number)}-{number:06}",
                "labels": {
                    "app": app,
                    "version": f"v{self._mix('version', number) % 3}",
                    "pod-template-hash": f"{self._mix(app, self.home(number)):010}",
                },
            },
            "spec": {
                "nodeName": NODE if self.is_local(number) else f"node-{1 + number // _PODS_PER_NODE}",
                "containers": [
                    {"name": "main", "ports": [{"name": "http", "containerPort": 8080}, {"name": "metrics", "containerPort": 9090}]}
                ],
            },
            "status": {
                "phase": "Running",
                "podIPs": [{"ip": f"10.{64 + (at >> 16)}.{at >> 8 & 255}.{at & 255}"}, {"ip": f"fd00:64::{at >> 16:x}:{at & 65535:x}"}],
            },
        }

    def policy(self, number: int, *, port: int = 0, namespace: int | None = None) -> Raw:
        """Return a policy; ``port`` other than 0 replaces the number in its first rule."""
        where = number % self.shape.namespaces if namespace is None else namespace
        spec = _TEMPLATES[self._mix("template", number) % len(_TEMPLATES)](number, where)
        if port:
            spec["ingress"] = [{**(spec.get("ingress") or [{}])[0], "ports": [{"port": port}]}]
            spec["policyTypes"] = sorted({*spec.get("policyTypes", []), "Ingress"})
        metadata = {"namespace": f"ns-{where:04}", "name": f"policy-{number:05}"}
        return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec}

    def _mix(self, what: str, number: int) -> int:
        """Return 32 bits that look like chance."""
        return zlib.crc32(f"{self.shape.seed}/{what}/{number}".encode())


def app_of_name(number: int) -> str:
    """Return what a pod's name begins with; its labels may say something else."""
    return f"app{number % 7}"


def put(raw: Raw) -> PutObject:
    """Return the event that an object is there."""
    return PutObject(key=key_of(raw), raw=raw)


def key_of(raw: Mapping[str, Any]) -> ObjectKey:
    """Return an object's key."""
    return ObjectKey(raw["apiVersion"], raw["kind"], raw["metadata"].get("namespace", ""), raw["metadata"]["name"])


# --- policies ----------------------------------------------------------------------------------------------------------


def _app(name: str) -> Raw:
    return {"podSelector": {"matchLabels": {"app": name}}}


def _deny_all(_number: int, _namespace: int) -> Raw:
    return {"podSelector": {}, "policyTypes": ["Ingress"]}


def _front(_number: int, _namespace: int) -> Raw:
    peers = [{"namespaceSelector": {"matchLabels": {"role": "ingress"}}}]
    return {**_app("web"), "ingress": [{"from": peers, "ports": [{"port": "http"}]}]}


def _same_namespace(number: int, _namespace: int) -> Raw:
    caller, called = APPS[number % len(APPS)], APPS[(number + 1) % len(APPS)]
    return {**_app(called), "ingress": [{"from": [_app(caller)], "ports": [{"port": "http"}, {"port": 9000, "endPort": 9100}]}]}


def _database(_number: int, _namespace: int) -> Raw:
    expression = {"key": "app", "operator": "In", "values": ["api", "orders", "worker"]}
    peers = [{"podSelector": {"matchExpressions": [expression]}}]
    return {**_app("db"), "ingress": [{"from": peers, "ports": [{"port": 5432}]}], "policyTypes": ["Ingress"]}


def _monitoring(_number: int, _namespace: int) -> Raw:
    peers = [{"namespaceSelector": {"matchLabels": {"role": "monitoring"}}, "podSelector": {"matchLabels": {"app": "worker"}}}]
    return {"podSelector": {}, "ingress": [{"from": peers, "ports": [{"port": "metrics"}]}]}


def _team(number: int, _namespace: int) -> Raw:
    peers = [{"namespaceSelector": {"matchLabels": {"team": f"team-{number % TEAMS}"}}, **_app("web")}]
    return {**_app("orders"), "ingress": [{"from": peers, "ports": [{"port": 8443}]}]}


def _everywhere(number: int, _namespace: int) -> Raw:
    selector = {"matchLabels": {"app": "auth", "version": f"v{number % 3}"}}
    return {**_app("api"), "ingress": [{"from": [{"namespaceSelector": {}, "podSelector": selector}], "ports": [{"port": 8080}]}]}


def _office(number: int, _namespace: int) -> Raw:
    block = {"cidr": f"192.168.{number % 64 * 4}.0/22", "except": [f"192.168.{number % 64 * 4 + 1}.0/24"]}
    return {**_app("web"), "ingress": [{"from": [{"ipBlock": block}], "ports": [{"port": 443}]}]}


def _egress(_number: int, _namespace: int) -> Raw:
    world = {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8", "169.254.0.0/16"]}}
    names = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ns-0001"}}, **_app("cache")}
    rules = [{"to": [world], "ports": [{"port": 443}]}, {"to": [names], "ports": [{"port": 53, "protocol": "UDP"}]}]
    return {**_app("worker"), "egress": rules, "policyTypes": ["Egress"]}


def _no_egress(_number: int, _namespace: int) -> Raw:
    return {**_app("db"), "egress": [{"to": [{"podSelector": {}}]}], "policyTypes": ["Egress"]}


_TEMPLATES: Final = (_deny_all, _front, _same_namespace, _database, _monitoring, _team, _everywhere, _office, _egress, _no_egress)
