"""Starting a real server, tried with stand-ins for its programs, so that it works where the programs are there."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from following import Following, pod
from real_server import Writer, real_kubeconfig

pytestmark = pytest.mark.filterwarnings("ignore:Unverified HTTPS request")

#: Takes the flags that it is given and no others, signs its own certificate, and asks for the token.
API_SERVER = """#!{python}
import argparse, os, ssl, subprocess, time
from polyplane_conformance.apiserver import ApiServer
flags = argparse.ArgumentParser()
for name in ("etcd-servers", "bind-address", "secure-port", "cert-dir", "token-auth-file", "authorization-mode",
             "service-cluster-ip-range", "service-account-issuer", "service-account-key-file",
             "service-account-signing-key-file", "disable-admission-plugins"):
    flags.add_argument("--" + name, required=True)
given = flags.parse_args()
os.makedirs(given.cert_dir)
key, certificate = given.cert_dir + "/key", given.cert_dir + "/certificate"
subject = ["-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=test"]
subprocess.run(["openssl", "req", "-x509", *subject, "-keyout", key, "-out", certificate], check=True, capture_output=True)
tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
tls.load_cert_chain(certificate, key)
server = ApiServer(tls=tls)
server._port = int(given.secure_port)
server.faults.tokens = {{open(given.token_auth_file).read().split(",")[0]}}
server.start()
print("started", os.getpid(), flush=True)
time.sleep(120)
"""


def test_it_is_started_used_and_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assets, folder = tmp_path / "assets", tmp_path / "run"
    for made in (assets, folder):
        made.mkdir()
    for name, text in (("etcd", "#!/bin/sh\nexec sleep 120\n"), ("kube-apiserver", API_SERVER.format(python=sys.executable))):
        (assets / name).write_text(text)
        (assets / name).chmod(0o755)
    monkeypatch.delenv("POLYPLANE_TEST_KUBECONFIG", raising=False)
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(assets))
    with real_kubeconfig(folder) as kubeconfig:
        assert kubeconfig is not None
        writer = Writer(kubeconfig)
        writer.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})
        writer.put(pod("first"))
        following = Following(kubeconfig)
        try:
            following.until(lambda: following.syncs)
            assert following.names("Pod") == {"first"}
        finally:
            following.stop()
    (number,) = (folder / "kube-apiserver.log").read_text().split()[1:2]
    assert not Path("/proc", number).exists()
    monkeypatch.delenv("KUBEBUILDER_ASSETS")
    with real_kubeconfig(folder) as kubeconfig:
        assert kubeconfig is None
