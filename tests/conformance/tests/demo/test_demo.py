from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from rich.console import Console

from polyplane.errors import PolyplaneError
from polyplane.plugins import Dataplane
from polyplane.testing import MemoryBackend
from polyplane_conformance import demo, netns

pytestmark = pytest.mark.netns

SHOP = Path(__file__).parents[4] / "examples" / "shop"


def play(backend: str, manifests: Path = SHOP) -> tuple[int, str]:
    console = Console(file=io.StringIO(), width=250)
    status = demo.run_demo(backend=backend, manifests=manifests, console=console)
    assert isinstance(console.file, io.StringIO)
    return status, console.file.getvalue()


@pytest.mark.needs("polyplane_nftables")
def test_the_shop_on_nftables() -> None:
    before = [name for name in netns.names() if str(os.getpid()) in name]
    status, text = play("nftables")
    assert status == 0
    assert "packets and evaluate agree on all" in text
    assert "egress: isolated by NetworkPolicy shop/report-egress" in text
    assert "✓→✗" in text
    assert [name for name in netns.names() if str(os.getpid()) in name] == before


def test_a_backend_that_enforces_nothing_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "load_backend", lambda name, _options: Dataplane(name, MemoryBackend()))
    status, text = play("memory")
    assert status == 1
    assert "shop/db → shop/report icmp IPv6: expected denied, was allowed" in text
    assert "packets disagree with evaluate on" in text


def test_a_backend_that_knows_no_namespaces_is_refused() -> None:
    with pytest.raises(PolyplaneError, match="backend memory does not work on packets of a sandbox"):
        play("memory")


def test_a_missing_directory_is_told(tmp_path: Path) -> None:
    with pytest.raises(PolyplaneError, match="no such directory"):
        play("nftables", tmp_path / "nowhere")
