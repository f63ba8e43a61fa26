"""What the backend wrote, read by others: python-iptables in a child process, nft, netlink. None of them knows this backend."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from backend_programs import examples, web
from ipt_namespace import Namespace
from structlog.testing import capture_logs

from polyplane.ir.cidr import BITS
from polyplane.ir.program import EMPTY
from polyplane.reconcile.diff import diff
from polyplane_iptables import decoder
from polyplane_iptables.decoder import Decoder
from polyplane_iptables.kernel import Kernel
from polyplane_iptables.layout import Layout
from polyplane_iptables.listing import reworded
from polyplane_iptables.options import IptablesOptions
from polyplane_iptables.witness import differences

pytestmark = pytest.mark.netns


#: Beside iptables-save nothing but python-iptables reads legacy tables, and that reads no others.
LEGACY = pytest.param("legacy", marks=pytest.mark.needs("iptc"))
by_python_iptables = pytest.mark.parametrize("namespace", [LEGACY], indirect=True)
by_another = pytest.mark.parametrize("namespace", ["nft", LEGACY], indirect=True)


@pytest.mark.parametrize("name", sorted(examples()))
@by_python_iptables
def test_another_decoder_sees_the_same(name: str, namespace: Namespace) -> None:
    wanted = examples()[name]
    namespace.backend().polyplane_apply(diff(EMPTY, wanted))
    native = Layout.of(wanted).native({})
    decoded = Decoder(IptablesOptions.parse(namespace.options)).read(BITS)
    assert decoded is not None
    for family in BITS:
        assert reworded(decoded[family], native.filters[family], {}) == native.filters[family]


@pytest.mark.parametrize("group", [None, 0, 5])
@by_python_iptables
def test_targets_that_log_do_not_crash_it(group: int | None, namespace: Namespace) -> None:
    more = {} if group is None else {"log_group": group}
    backend = namespace.backend(log_denied=True, **more)
    wanted = examples()["tiers"]
    backend.polyplane_apply(diff(EMPTY, wanted))
    with capture_logs() as logs:
        assert backend.polyplane_audit(wanted) == ()
    assert logs == []


@pytest.mark.parametrize(
    ("what_it_does", "reason"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "status -11"),
        ("raise OSError('no libiptc')", "no libiptc"),
        ("import time; time.sleep(60)", "no end after"),
        ("import os; os.write(1, b'{'); os._exit(0)", "cannot be understood"),
        ("import sys; print('[]'); sys.exit(0)", "cannot be understood"),
    ],
)
@by_python_iptables
def test_a_child_that_fails_does_no_harm(
    what_it_does: str, reason: str, namespace: Namespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The audit goes on with iptables-legacy-save, and says so once."""
    backend = namespace.backend()
    backend.polyplane_apply(diff(EMPTY, web()))
    (tmp_path / "iptc.py").write_text(what_it_does)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(decoder, "_SECONDS", 3.0)
    with capture_logs() as logs:
        assert backend.polyplane_audit(web()) == ()
        assert backend.polyplane_audit(web()) == ()
    assert [entry["log_level"] for entry in logs] == ["warning"]
    assert reason in logs[0]["reason"]
    namespace.iptables("-D", "polyplane-to", "1")
    assert backend.polyplane_audit(web())


@by_python_iptables
def test_what_only_one_of_two_readers_sees_is_told(namespace: Namespace) -> None:
    """iptables-legacy-save says what it said before; python-iptables sees the rule that has come."""
    kernel = Kernel(IptablesOptions.parse(namespace.options))
    said: dict[str, str] = {}

    def repeat(argv: Sequence[str], text: str) -> str:
        if argv[0].endswith("-save"):
            return said.setdefault(" ".join(argv), kernel.execute(argv, text))
        return kernel.execute(argv, text)

    namespace.backend().polyplane_apply(diff(EMPTY, web()))
    backend = namespace.backend(repeat)
    assert backend.polyplane_audit(web()) == ()
    namespace.iptables("-I", "polyplane-to", "-j", "RETURN")
    with capture_logs() as logs:
        assert backend.polyplane_audit(web()) == ()
    assert [entry["event"] for entry in logs] == ["python-iptables sees what iptables-legacy-save does not"]
    assert "polyplane-to" in logs[0]["reason"]


@pytest.mark.parametrize("name", sorted(examples()))
@by_another
def test_the_witness_agrees(name: str, namespace: Namespace) -> None:
    wanted = examples()[name]
    namespace.backend().polyplane_apply(diff(EMPTY, wanted))
    assert differences(wanted, namespace.path) == ()


@pytest.mark.parametrize(
    "damage",
    [
        "iptables-{variant} -w 5 -D polyplane-to 1",
        "iptables-{variant} -w 5 -I FORWARD -j ACCEPT",
        "ip6tables-{variant} -w 5 -R polyplane-to 1 -o other -j RETURN",
        "ip6tables-{variant} -w 5 -N polyplane-stray",
        "ipset flush",
        "sh -c 'ipset add $(ipset list -n | grep -m 1 polyplane-4) 192.0.2.7'",
        "ipset create polyplane-p-stray bitmap:port range 0-65535",
    ],
)
@by_another
def test_the_witness_notices(damage: str, namespace: Namespace) -> None:
    namespace.backend().polyplane_apply(diff(EMPTY, web()))
    namespace.run("sh", "-c", damage.format(variant=namespace.variant))
    assert differences(web(), namespace.path)


@pytest.mark.parametrize("namespace", ["legacy"], indirect=True)
def test_a_missing_second_reader_is_told(namespace: Namespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sets are still compared; nobody may take the tables for looked at."""
    namespace.backend().polyplane_apply(diff(EMPTY, web()))
    monkeypatch.setattr(Decoder, "usable", False)
    with pytest.warns(UserWarning, match="second-look"):
        assert differences(web(), namespace.path) == ()
    namespace.run("ipset", "flush")
    with pytest.warns(UserWarning, match="second-look"):
        assert differences(web(), namespace.path)
