"""The backend against a real kernel, read back with nft's own program."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace

import pytest
from backend_programs import FRONT, IN, endpoint, examples, isolated, policy, program, rule, web, with_content_ids
from hypothesis import HealthCheck, given, settings
from ir_programs import programs
from nft_namespace import Namespace

from polyplane.errors import ApplyError, BackendUnavailable
from polyplane.ir.cidr import Cidr
from polyplane.ir.members import Members
from polyplane.ir.program import EMPTY, AddressSet, Established, Options, PortRange, Program
from polyplane.reconcile.diff import diff
from polyplane_nftables.backend import NftablesBackend
from polyplane_nftables.kernel import NftError

pytestmark = pytest.mark.netns


@pytest.fixture
def backend(namespace: Namespace) -> NftablesBackend:
    return NftablesBackend({"netns": namespace.path})


def with_members(old: AddressSet, *more: str) -> AddressSet:
    return replace(old, members=old.members.changed(added=map(Cidr.parse, more)))


def test_nothing_is_missing_here(backend: NftablesBackend) -> None:
    assert backend.polyplane_capabilities().missing == ()


@pytest.mark.parametrize("name", sorted(examples()))
def test_a_restart_finds_nothing_to_do(name: str, namespace: Namespace, backend: NftablesBackend) -> None:
    wanted = examples()[name]
    assert backend.polyplane_apply(diff(EMPTY, wanted)).operations > 0
    assert backend.polyplane_audit(wanted) == ()
    again = NftablesBackend({"netns": namespace.path})
    assert again.polyplane_audit(wanted) == ()
    assert again.polyplane_apply(diff(EMPTY, wanted)).operations == 0
    assert not again._bodies, "this nft lists rules otherwise than they are written"
    assert backend.polyplane_apply(diff(wanted, wanted)).operations == 0


def test_the_table_is_shown_as_nft_lists_it(backend: NftablesBackend, namespace: Namespace) -> None:
    with pytest.raises(BackendUnavailable, match="no table inet polyplane of ours"):
        backend.polyplane_show()
    backend.polyplane_apply(diff(EMPTY, web()))
    listed = subprocess.run(
        ["nsenter", f"--net={namespace.path}", "nft", "--stateless", "list", "table", "inet", "polyplane"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert backend.polyplane_show().split("{")[0] == listed.split("{")[0]
    assert [line.split()[:2] for line in backend.polyplane_show().splitlines() if line.startswith("\tchain")] == [
        line.split()[:2] for line in listed.splitlines() if line.startswith("\tchain")
    ]


def test_any_program_follows_any_other(backend: NftablesBackend, namespace: Namespace) -> None:
    """One long history, so that each delta meets what the last one left."""
    last = EMPTY

    @settings(deadline=None, max_examples=40, suppress_health_check=list(HealthCheck), database=None)
    @given(programs())
    def step(drawn: Program) -> None:
        nonlocal last
        wanted = with_content_ids(drawn)
        delta, last = diff(last, wanted), EMPTY
        backend.polyplane_apply(delta)
        last = wanted
        assert backend.polyplane_audit(wanted) == ()

    step()


def test_one_member_is_one_element(backend: NftablesBackend) -> None:
    backend.polyplane_apply(diff(EMPTY, web()))
    more = web(members=with_members(FRONT, "10.0.0.3"))
    assert backend.polyplane_apply(diff(web(), more)).detail == {"elements": 1}
    assert backend.polyplane_apply(diff(more, web())).detail == {"elements": 1}


def test_a_pod_like_others_costs_its_own_elements(backend: NftablesBackend) -> None:
    allow = policy(IN, rule("web", IN, 0, sets=("front",), protocol=6, ports=(PortRange(80, 80),)))
    stack = isolated(IN, allow)
    pods = [endpoint(f"p{at}", f"veth{at}", f"10.0.1.{at}", f"fd00::1:{at}", ingress=stack) for at in range(1, 51)]
    before, after = program(*pods[:-1], allow, FRONT), program(*pods, allow, FRONT)
    backend.polyplane_apply(diff(EMPTY, before))
    # Its interface: in the set of interfaces, in the two default maps and the two maps of front's class; its two addresses:
    # bound to the interface, and as traffic to itself.
    assert backend.polyplane_apply(diff(before, after)).detail == {"elements": 9}


def test_a_policy_that_changes_leaves_other_counters_alone(backend: NftablesBackend, namespace: Namespace) -> None:
    backend.polyplane_apply(diff(EMPTY, web()))
    (allow,) = web().policies
    namespace.nft(f"flush chain inet polyplane a_{web().policies[allow].rules[0].id:08x}")
    namespace.nft(
        f"add rule inet polyplane a_{web().policies[allow].rules[0].id:08x} counter packets 7 bytes 70 return "
        f'comment "{web().policies[allow].rules[0].id:08x} NetworkPolicy/shop/web/ingress/0"'
    )
    counts = {count.rule_id: (count.packets, count.bytes) for count in backend.polyplane_counters()}
    assert counts[web().policies[allow].rules[0].id] == (7, 70)
    other = web(options=Options(established=Established.KEEP))
    backend.polyplane_apply(diff(web(), other))
    NftablesBackend({"netns": namespace.path}).polyplane_apply(diff(EMPTY, web()))
    counts = {count.rule_id: (count.packets, count.bytes) for count in backend.polyplane_counters()}
    assert counts[web().policies[allow].rules[0].id] == (7, 70)


@pytest.mark.parametrize(
    "damage",
    [
        "flush chain inet polyplane in_4",
        "flush map inet polyplane in_hosts4",
        "delete table inet polyplane",
        "add rule inet polyplane forward accept",
        "insert rule inet polyplane in_rest4 return",
        "add chain inet polyplane extra",
        "add set inet polyplane extra { type mark; }",
        'add element inet polyplane in_ifs { "other" }',
        'delete element inet polyplane in_ifs { "veth-web" }',
        "add table inet polyplane { flags dormant; }",
        "add chain inet polyplane forward { policy drop; }",
        "add counter inet polyplane mine",
        'add element inet polyplane in_hosts4 { 10.9.9.9 comment "mine" : accept }',
    ],
)
def test_drift_is_seen_and_repaired(damage: str, namespace: Namespace, backend: NftablesBackend) -> None:
    wanted = web()
    backend.polyplane_apply(diff(EMPTY, wanted))
    before = namespace.run("nft", "-s", "list", "ruleset")
    namespace.nft(damage + "\n")
    assert namespace.run("nft", "-s", "list", "ruleset") != before
    assert backend.polyplane_audit(wanted)
    assert backend.polyplane_apply(diff(EMPTY, wanted)).operations > 0
    assert backend.polyplane_audit(wanted) == ()
    assert sorted(namespace.run("nft", "-s", "list", "ruleset").split()) == sorted(before.split())


def test_a_delta_heals_what_it_stumbles_over(namespace: Namespace, backend: NftablesBackend) -> None:
    backend.polyplane_apply(diff(EMPTY, web()))
    namespace.nft("delete table inet polyplane\n")
    more = web(members=with_members(FRONT, "10.0.0.3"))
    backend.polyplane_apply(diff(web(), more))
    assert backend.polyplane_audit(more) == ()


def test_foreign_tables_are_left_alone(namespace: Namespace, backend: NftablesBackend) -> None:
    foreign = "table inet other {\n\tchain polyplane_layout_1 {\n\t\taccept\n\t}\n\tchain d_0000002a {\n\t\tcounter\n\t}\n}\n"
    namespace.nft(foreign + "table ip polyplane {\n}\n")
    before = namespace.ruleset()
    backend.polyplane_apply(diff(EMPTY, web()))
    assert 42 not in {count.rule_id for count in backend.polyplane_counters()}
    assert backend.polyplane_teardown().operations == 1
    assert namespace.ruleset() == before
    assert backend.polyplane_counters() == ()
    assert backend.polyplane_teardown().operations == 0


def test_a_table_of_our_name_that_is_not_ours_is_refused(namespace: Namespace, backend: NftablesBackend) -> None:
    namespace.nft("table inet polyplane {\n\tchain mine {\n\t\taccept\n\t}\n}\n")
    before = namespace.ruleset()
    with pytest.raises(ApplyError, match=r"not ours.*table") as caught:
        backend.polyplane_apply(diff(EMPTY, web()))
    assert not caught.value.retryable
    assert backend.polyplane_teardown().operations == 0
    assert namespace.ruleset() == before


def test_another_layout_is_replaced_in_one_batch(namespace: Namespace, backend: NftablesBackend) -> None:
    namespace.nft("table inet polyplane {\n\tchain polyplane_layout_999 {\n\t}\n\tflags dormant;\n\tcounter old {\n\t}\n}\n")
    backend.polyplane_apply(diff(EMPTY, web()))
    assert backend.polyplane_audit(web()) == ()
    assert "999" not in namespace.ruleset()


def test_the_nft_program_serves_where_the_library_is_missing(
    namespace: Namespace, backend: NftablesBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("polyplane_nftables.kernel.LIBRARY", "libnftables.so.none")
    assert dict(backend.polyplane_capabilities().details)["nft"] == "nft program"
    test_a_restart_finds_nothing_to_do("tiers", namespace, backend)
    namespace.nft("delete table inet polyplane\n")
    assert backend.polyplane_audit(web())


def test_a_process_with_many_descriptors_is_not_ended(namespace: Namespace) -> None:
    """Not when it begins with many, and not when it comes to have them after libnftables has its socket."""
    script = (
        "import os, resource, sys\n"
        "from polyplane_nftables.kernel import Kernel\n"
        "hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))\n"
        f"early, late = Kernel({namespace.path!r}), Kernel({namespace.path!r})\n"
        "early.run('add table inet early')\n"
        "ways = [early.details()[0][1]]\n"
        "held = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]\n"
        "late.run('add table inet crowded')\n"
        "early.run('add table inet crowded')\n"
        "print(*ways, early.details()[0][1], late.details()[0][1], sep=', ')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout == "libnftables, nft program, nft program\n"
    assert "table inet crowded" in namespace.ruleset()


def test_a_missing_namespace_is_explained() -> None:
    backend = NftablesBackend({"netns": "/run/netns/there-is-none"})
    (why,) = backend.polyplane_capabilities().missing
    assert "there-is-none does not exist" in why
    with pytest.raises(ApplyError):
        backend.polyplane_apply(diff(EMPTY, web()))


def test_a_batch_is_all_or_nothing(namespace: Namespace, backend: NftablesBackend) -> None:
    backend.polyplane_apply(diff(EMPTY, web()))
    before = namespace.ruleset()
    with pytest.raises(NftError, match="No such file"):
        backend._kernel.run("add chain inet polyplane x\ndelete chain inet polyplane none\n")
    assert namespace.ruleset() == before


def test_one_of_100000_prefixes_is_quick_to_change(backend: NftablesBackend) -> None:
    """nft 1.0.6 reads every plain interval set before it edits any element: ours must not be one."""
    block = AddressSet(id=FRONT.id, label="blocks", members=Members(Cidr(4, (10 << 24) + (at << 8), 24 + at % 2) for at in range(1 << 16)))
    full, seconds = web(members=block), []
    start = time.perf_counter()
    backend.polyplane_apply(diff(EMPTY, full))
    load = time.perf_counter() - start
    for text in ("192.0.2.1", "192.0.2.2", "198.51.100.0/24"):
        more = web(members=with_members(block, text))
        delta = diff(full, more)
        start = time.perf_counter()
        assert backend.polyplane_apply(delta).operations == 1
        seconds.append(time.perf_counter() - start)
        backend.polyplane_apply(diff(more, full))
    assert min(seconds) * 10 < load, (seconds, load)
