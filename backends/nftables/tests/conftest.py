from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest
from nft_namespace import Namespace

from polyplane_conformance.sandbox.namespaces import new_prefix


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    """An empty network namespace; gone afterwards, also after a failure."""
    name = f"{new_prefix()}nft"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        yield Namespace(name)
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)
