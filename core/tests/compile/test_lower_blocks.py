from __future__ import annotations

from polyplane.cluster.dialects.networkpolicy import NetworkPolicyDialect
from polyplane.cluster.model import InSync, ObjectKey, PutObject
from polyplane.cluster.store import Store
from polyplane.compile.incremental import Compiler


def test_plain_blocks_share_one_set() -> None:
    store = Store(NetworkPolicyDialect().polyplane_dialects())
    compiler = Compiler(node="n")
    pod = {
        "kind": "Pod",
        "metadata": {"name": "a", "namespace": "x"},
        "spec": {"nodeName": "n"},
        "status": {"podIPs": [{"ip": "10.0.0.1"}]},
    }
    blocks = [{"ipBlock": {"cidr": "192.0.2.0/24"}}, {"ipBlock": {"cidr": "198.51.100.0/24"}}]
    policy = {"kind": "NetworkPolicy", "metadata": {"name": "p", "namespace": "x"}, "spec": {"ingress": [{"from": blocks}]}}
    store.apply(InSync())
    for key, raw in ((ObjectKey("v1", "Pod", "x", "a"), pod), (ObjectKey("networking.k8s.io/v1", "NetworkPolicy", "x", "p"), policy)):
        program = compiler.update(store.apply(PutObject(key=key, raw={"apiVersion": key.api_version, **raw})))
    (only,) = program.sets.values()
    assert {str(member) for member in only.members} == {"192.0.2.0/24", "198.51.100.0/24"}
