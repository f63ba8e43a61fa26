"""Reaching the API server: TLS, the pod's service account, exec plugins, configurations that cannot be used."""

from __future__ import annotations

import json
import ssl
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from following import QUICK, Following, pod
from kubernetes.config import incluster_config

from polyplane.cluster.sources.kubernetes import KubernetesSource
from polyplane.errors import ConfigError
from polyplane_conformance.apiserver import ApiServer


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", folder / "key.pem", "-out", folder / "cert.pem"]
    subprocess.run(command, check=True, capture_output=True)
    return folder / "cert.pem"


@pytest.fixture
def secure(certificate: Path) -> Iterator[ApiServer]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_name("key.pem"))
    with ApiServer(tls=context) as running:
        running.cluster.put(pod("web"))
        yield running


def follow(kubeconfig: Path, holds: Callable[[Following], object]) -> Following:
    following = Following(kubeconfig)
    try:
        following.until(lambda: holds(following))
    finally:
        following.stop()
    return following


def test_tls(secure: ApiServer, certificate: Path, tmp_path: Path) -> None:
    following = follow(secure.kubeconfig(tmp_path / "kubeconfig", authority=certificate), lambda it: it.syncs)
    assert following.names("Pod") == {"web"}


def test_a_server_that_nobody_vouches_for(secure: ApiServer, tmp_path: Path) -> None:
    following = follow(secure.kubeconfig(tmp_path / "kubeconfig"), lambda it: it.problems)
    assert "certificate" in next(iter(following.problems.values())).lower()
    assert not following.syncs
    assert not following.objects


def test_the_pods_service_account(secure: ApiServer, certificate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token = tmp_path / "token"
    token.write_text("first")
    secure.faults.tokens = {"first"}
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", secure.url.rpartition(":")[2])
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(token))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(certificate))
    following = Following(None)
    try:
        following.until(lambda: following.syncs)
        # The kubelet replaces the token, the old one expires.
        token.write_text("second")
        secure.faults.tokens = {"second"}
        secure.disconnect()
        secure.cluster.put(pod("late"))
        following.until(lambda: "late" in following.names("Pod"))
    finally:
        following.stop()


def test_an_exec_plugin(server: ApiServer, tmp_path: Path) -> None:
    server.faults.tokens = {"first"}
    token = tmp_path / "token"
    token.write_text("first")
    plugin = tmp_path / "plugin"
    plugin.write_text(
        f"#!{sys.executable}\nimport json, pathlib\n"
        f"status = {{'token': pathlib.Path({str(token)!r}).read_text()}}\n"
        "print(json.dumps({'apiVersion': 'client.authentication.k8s.io/v1', 'kind': 'ExecCredential', 'status': status}))\n"
    )
    plugin.chmod(stat.S_IRWXU)
    path = server.kubeconfig(tmp_path / "kubeconfig")
    content = json.loads(path.read_text())
    content["users"][0]["user"] = {
        "exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": str(plugin), "interactiveMode": "Never"}
    }
    path.write_text(json.dumps(content))
    following = Following(path)
    try:
        following.until(lambda: following.syncs)
        token.write_text("second")
        server.faults.tokens = {"second"}
        server.disconnect()
        server.cluster.put(pod("late"))
        following.until(lambda: "late" in following.names("Pod"))
    finally:
        following.stop()


def test_configurations_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        KubernetesSource({"kubeconfig": str(tmp_path / "nowhere")})
    (tmp_path / "empty").write_text("apiVersion: v1\nkind: Config\n")
    with pytest.raises(ConfigError, match="correct the kubeconfig"):
        KubernetesSource({"kubeconfig": str(tmp_path / "empty")})


@pytest.mark.parametrize(
    "options",
    [{"kubeconf": "x"}, {"page_size": 0}, {"page_size": "many"}, {"watch_list": "yes"}, {"silence": 0}, {"context": 3}, {"silence": True}],
)
def test_refuses_options(server: ApiServer, tmp_path: Path, options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="source kubernetes"):
        KubernetesSource({"kubeconfig": str(server.kubeconfig(tmp_path / "kubeconfig")), **QUICK, **options})
