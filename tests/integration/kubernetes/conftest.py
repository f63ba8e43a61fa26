"""A server to follow and sources that follow it, stopped after each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from following import Following

from polyplane_conformance.apiserver import ApiServer


@pytest.fixture
def server() -> Iterator[ApiServer]:
    with ApiServer() as running:
        running.cluster.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})
        yield running


@pytest.fixture
def follow(server: ApiServer, tmp_path: Path) -> Iterator[Callable[..., Following]]:
    started: list[Following] = []

    def start(*, token: str = "", **options: Any) -> Following:
        started.append(Following(server.kubeconfig(tmp_path / "kubeconfig", token=token), **options))
        return started[-1]

    yield start
    for following in started:
        following.stop()
