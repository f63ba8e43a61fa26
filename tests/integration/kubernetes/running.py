"""`Agent`: a real ``polyplane run``, and what it says of itself."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families


class Agent:
    """The process, and what it says of itself."""

    def __init__(self, kubeconfig: Path, log: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        self.log = log
        flags = ["--kubeconfig", str(kubeconfig), "--node", "node-1", "--backend", "memory", "--listen", self.address]
        with log.open("w") as out:
            self.process = subprocess.Popen(
                [Path(sys.executable).with_name("polyplane"), "run", *flags, "--log-format", "json"], stdout=out, stderr=out
            )

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://{self.address}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    def metrics(self) -> dict[str, float]:
        families = text_string_to_metric_families(self.get("/metrics")[1])
        return {
            f"{sample.name}{{{','.join(f'{key}={value}' for key, value in sample.labels.items())}}}": sample.value
            for family in families
            for sample in family.samples
        }

    def until(self, holds: Callable[[], object], seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not holds():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, f"{self.get('/readyz')} {self.log.read_text()}"
            time.sleep(0.05)
