"""A small API server for tests: what a Kubernetes API server was seen to do, and what it does when it misbehaves.

`ApiServer` listens and speaks HTTP, `Cluster` keeps the objects and their history, `Faults` says what goes wrong next.
It knows nothing of polyplane, and enough of Kubernetes for kubectl's plain verbs and any client's list and watch.
"""

from polyplane_conformance.apiserver.cluster import Cluster, Kind, Refusal
from polyplane_conformance.apiserver.faults import Faults
from polyplane_conformance.apiserver.server import ApiServer

__all__ = ["ApiServer", "Cluster", "Faults", "Kind", "Refusal"]
