"""A real kube-apiserver for the tests, where there is one: by a kubeconfig, or started from ``KUBEBUILDER_ASSETS``."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from polyplane.cluster.sources.kubernetes.connection import TRANSPORT_ERRORS, ApiStatus, Connection

#: Where objects of a kind are.
PATHS = {
    "Pod": "/api/v1/namespaces/{}/pods",
    "Namespace": "/api/v1/namespaces",
    "Node": "/api/v1/nodes",
    "NetworkPolicy": "/apis/networking.k8s.io/v1/namespaces/{}/networkpolicies",
    "CustomResourceDefinition": "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
}
WHY_NOT = "no real API server: set POLYPLANE_TEST_KUBECONFIG, or KUBEBUILDER_ASSETS to a folder with kube-apiserver and etcd"


class Writer:
    """Writes objects by way of the API, as kubectl does."""

    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig
        self.connection = Connection(kubeconfig=str(kubeconfig))

    def put(self, raw: Mapping[str, Any]) -> None:
        metadata = raw["metadata"]
        path = PATHS[raw["kind"]].format(metadata.get("namespace"))
        body = {key: value for key, value in raw.items() if key != "status"}
        try:
            self.connection.request("POST", path, body=body)
        except ApiStatus as status:
            if status.code != 409:
                raise
            patch = {"metadata": {"labels": metadata.get("labels", {})}} if raw["kind"] == "Pod" else body
            self.patch(f"{path}/{metadata['name']}", patch)
        if "status" in raw:
            self.patch(f"{path}/{metadata['name']}/status", {"status": raw["status"]})

    def patch(self, path: str, body: object) -> None:
        self.connection.request("PATCH", path, body=body, content_type="application/merge-patch+json")

    def remove(self, kind: str, namespace: str, name: str) -> None:
        self.connection.request("DELETE", f"{PATHS[kind].format(namespace)}/{name}", body={"gracePeriodSeconds": 0})


def _port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@contextlib.contextmanager
def real_kubeconfig(folder: Path) -> Iterator[Path | None]:
    """Yield the kubeconfig of a real server, None if there is none."""
    if given := os.environ.get("POLYPLANE_TEST_KUBECONFIG"):
        yield Path(given)
        return
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    if not assets:
        yield None
        return
    with contextlib.ExitStack() as running:
        yield _start(Path(assets), folder, running)


def _start(assets: Path, folder: Path, running: contextlib.ExitStack) -> Path:
    etcd, peer, secure = _port(), _port(), _port()
    token = secrets.token_hex()
    (folder / "tokens").write_text(f"{token},tester,1,system:masters\n")
    subprocess.run(["openssl", "genrsa", "-out", folder / "key", "2048"], check=True, capture_output=True)

    def start(name: str, *flags: str) -> None:
        with (folder / f"{name}.log").open("w") as log:
            process = subprocess.Popen([assets / name, *flags], stdout=log, stderr=log)
        running.callback(process.wait, 20)
        running.callback(process.terminate)

    client = f"http://127.0.0.1:{etcd}"
    start(
        "etcd",
        f"--data-dir={folder}/etcd",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls=http://127.0.0.1:{peer}",
        "--unsafe-no-fsync",
    )
    start(
        "kube-apiserver",
        f"--etcd-servers={client}",
        "--bind-address=127.0.0.1",
        f"--secure-port={secure}",
        f"--cert-dir={folder}/certificates",
        f"--token-auth-file={folder}/tokens",
        "--authorization-mode=RBAC",
        "--service-cluster-ip-range=10.0.0.0/24",
        "--service-account-issuer=https://polyplane.test",
        f"--service-account-key-file={folder}/key",
        f"--service-account-signing-key-file={folder}/key",
        "--disable-admission-plugins=ServiceAccount",
    )
    cluster = {"server": f"https://127.0.0.1:{secure}", "insecure-skip-tls-verify": True}
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [{"name": "test", "cluster": cluster}],
        "users": [{"name": "test", "user": {"token": token}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
    }
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(json.dumps(content))
    connection = Connection(kubeconfig=str(kubeconfig))
    deadline = time.monotonic() + 60
    while True:
        try:
            connection.request("GET", "/readyz", timeout=5)
        except (ApiStatus, *TRANSPORT_ERRORS):
            assert time.monotonic() < deadline, (folder / "kube-apiserver.log").read_text()[-3000:]
            time.sleep(0.5)
        else:
            return kubeconfig
