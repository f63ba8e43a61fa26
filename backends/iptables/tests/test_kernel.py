"""The backend against a real kernel, in both variants, read back with the tools themselves."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import replace

import pytest
from backend_programs import FRONT, IN, endpoint, examples, isolated, policy, program, rule, web, with_content_ids
from hypothesis import HealthCheck, Phase, given, settings
from ipt_namespace import Namespace
from ir_programs import programs

from polyplane.errors import ApplyError
from polyplane.ir.cidr import Cidr
from polyplane.ir.program import EMPTY, AddressSet, PortRange, Program
from polyplane.reconcile.diff import diff
from polyplane_iptables.backend import IptablesBackend
from polyplane_iptables.kernel import Kernel
from polyplane_iptables.options import IptablesOptions

pytestmark = pytest.mark.netns


@pytest.fixture
def backend(namespace: Namespace) -> IptablesBackend:
    return namespace.backend()


def with_members(old: AddressSet, *more: str) -> AddressSet:
    return replace(old, members=old.members.changed(added=map(Cidr.parse, more)))


def test_nothing_is_missing_here(backend: IptablesBackend, namespace: Namespace) -> None:
    capabilities = backend.polyplane_capabilities()
    assert capabilities.missing == ()
    assert ("variant", namespace.variant) in capabilities.details


@pytest.mark.parametrize("name", sorted(examples()))
def test_a_restart_finds_nothing_to_do(name: str, namespace: Namespace, backend: IptablesBackend) -> None:
    wanted = examples()[name]
    assert backend.polyplane_apply(diff(EMPTY, wanted)).operations > 0
    assert not backend._learned, "this iptables prints rules otherwise than they are written"
    assert backend.polyplane_audit(wanted) == ()
    again = namespace.backend()
    assert again.polyplane_audit(wanted) == ()
    assert again.polyplane_apply(diff(EMPTY, wanted)).operations == 0
    assert backend.polyplane_apply(diff(wanted, wanted)).operations == 0


@pytest.mark.parametrize("more", [{}, {"recheck_mark": 0x3}])
def test_any_program_follows_any_other(more: dict[str, object], namespace: Namespace) -> None:
    """One long history, so that each delta meets what the last one left."""
    last, backend = EMPTY, namespace.backend(**more)

    @settings(deadline=None, max_examples=15, suppress_health_check=list(HealthCheck), database=None, phases=[Phase.generate])
    @given(programs())
    def step(drawn: Program) -> None:
        nonlocal last
        wanted = with_content_ids(drawn)
        delta, last = diff(last, wanted), EMPTY
        backend.polyplane_apply(delta)
        last = wanted
        assert backend.polyplane_audit(wanted) == ()
        assert namespace.backend(**more).polyplane_audit(wanted) == ()

    step()


def test_one_member_is_one_element(backend: IptablesBackend) -> None:
    backend.polyplane_apply(diff(EMPTY, web()))
    more = web(members=with_members(FRONT, "10.0.0.3"))
    assert backend.polyplane_apply(diff(web(), more)).detail == {"elements": 1}
    assert backend.polyplane_apply(diff(more, web())).detail == {"elements": 1}


def test_by_mark_what_closes_is_an_epoch_more(namespace: Namespace) -> None:
    backend = namespace.backend(recheck_mark=0xFF0)
    backend.polyplane_apply(diff(EMPTY, web()))
    more = web(members=with_members(FRONT, "10.0.0.3"))
    assert backend.polyplane_apply(diff(web(), more)).detail == {"elements": 1}
    assert backend.polyplane_apply(diff(more, web())).detail == {"elements": 1, "epochs": 1}


def test_a_pod_like_others_costs_its_own_chain(backend: IptablesBackend) -> None:
    allow = policy(IN, rule("web", IN, 0, sets=("front",), protocol=6, ports=(PortRange(80, 80),)))
    stack = isolated(IN, allow)
    pods = [endpoint(f"p{at}", f"veth{at}", f"10.0.1.{at}", f"fd00::1:{at}", ingress=stack) for at in range(1, 51)]
    before, after = program(*pods[:36], *pods[37:], allow, FRONT), program(*pods, allow, FRONT)
    backend.polyplane_apply(diff(EMPTY, before))
    # In each family: its chain with two rules, one leaf in the tree over interfaces and one in the guard's.
    assert backend.polyplane_apply(diff(before, after)).detail == {"chains": 2, "rules": 8}


@pytest.mark.parametrize(
    "damage",
    [
        ("-F", "polyplane-forward"),
        ("-F", "FORWARD"),
        ("-F",),
        ("-I", "FORWARD", "-j", "ACCEPT"),
        ("-I", "polyplane-to", "-j", "RETURN"),
        ("-N", "polyplane-stray"),
        ("-A", "INPUT", "-j", "polyplane-input"),
        ("-D", "polyplane-to", "1"),
        ("-R", "polyplane-to", "1", "-o", "veth-other", "-j", "RETURN"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("family", [4, 6])
def test_damage_to_rules_is_seen_and_repaired(damage: Sequence[str], family: int, namespace: Namespace, backend: IptablesBackend) -> None:
    backend.polyplane_apply(diff(EMPTY, web()))
    whole = namespace.rules()
    namespace.iptables(*damage, family=family)
    assert backend.polyplane_audit(web())
    assert backend.polyplane_apply(diff(EMPTY, web())).operations > 0
    assert backend.polyplane_audit(web()) == ()
    repaired = namespace.rules()
    if damage[-1] != "ACCEPT":
        assert sorted(repaired.splitlines()) == sorted(whole.splitlines())


@pytest.mark.parametrize(
    "damage",
    ["add {set} 192.0.2.99", "flush {set}", "create polyplane-4-0123456789abcdef hash:ip", "create polyplane-x hash:net"],
)
def test_damage_to_sets_is_seen_and_repaired(damage: str, namespace: Namespace, backend: IptablesBackend) -> None:
    backend.polyplane_apply(diff(EMPTY, web()))
    whole = namespace.rules()
    names = namespace.run("ipset", "list", "-n").split()
    namespace.run("ipset", *damage.format(set=next(name for name in names if "-4-" in name)).split())
    assert backend.polyplane_audit(web())
    assert backend.polyplane_apply(diff(EMPTY, web())).operations > 0
    assert backend.polyplane_audit(web()) == ()
    assert sorted(namespace.rules().splitlines()) == sorted(whole.splitlines())


@pytest.mark.parametrize(
    ("damage", "epoch"),
    [
        ("ipset add {set} 0.0.0.9", 10),
        ("ipset flush {set}", 1),
        ("ipset destroy {set}", 1),
        ("sh -c 'ipset destroy {set}; ipset create {set} hash:ip'", 1),
        ("iptables-{variant} -w 5 -D polyplane-forward 2", 1),
        ("iptables-{variant} -w 5 -F polyplane-asked", 1),
        ("iptables-{variant} -w 5 -I polyplane-asked -j CONNMARK --set-mark 0x10/0xff0", 1),
        ("iptables-{variant} -w 5 -I polyplane-to -j RETURN", 4),
        ("iptables-{variant} -w 5 -F", 4),
    ],
)
def test_damage_to_the_epoch_is_seen_and_repaired(damage: str, epoch: int, namespace: Namespace) -> None:
    """The next one, if set and rules say how far epochs have come; else the first, of which nobody has a mark."""
    backend, more = namespace.backend(recheck_mark=0xFF0), web(members=with_members(FRONT, "10.0.0.3"))
    backend.polyplane_apply(diff(EMPTY, more))
    backend.polyplane_apply(diff(more, web()))
    backend.polyplane_apply(diff(web(), more))
    backend.polyplane_apply(diff(more, web()))
    (name,) = (name for name in namespace.run("ipset", "list", "-n").split() if "polyplane-e4-" in name)
    assert namespace.run("ipset", "save", name).split()[-1] == "0.0.0.3"
    namespace.run("sh", "-c", damage.format(set=name, variant=namespace.variant))
    assert backend.polyplane_audit(web())
    backend.polyplane_apply(diff(EMPTY, web()))
    assert backend.polyplane_audit(web()) == ()
    assert namespace.run("ipset", "save", name).split()[-1] == f"0.0.0.{epoch}"
    assert namespace.backend(recheck_mark=0xFF0).polyplane_apply(diff(EMPTY, web())).operations == 0


def test_a_delta_meets_damage(namespace: Namespace, backend: IptablesBackend) -> None:
    """What a delta starts from is not there any more: the backend looks, and brings everything about."""
    backend.polyplane_apply(diff(EMPTY, web()))
    namespace.iptables("-F")
    namespace.iptables("-X")
    namespace.run("ipset", "flush")
    other = replace(web(), options=replace(web().options, deny_action=examples()["keep-and-reject"].options.deny_action))
    backend.polyplane_apply(diff(web(), other))
    assert backend.polyplane_audit(other) == ()


def test_a_set_of_another_kind_has_our_name(namespace: Namespace, backend: IptablesBackend) -> None:
    name = next(line.split()[1] for line in backend.polyplane_render(diff(EMPTY, web())).splitlines() if line.startswith("create"))
    namespace.run("ipset", "create", name, "hash:ip")
    backend.polyplane_apply(diff(EMPTY, web()))
    assert namespace.backend().polyplane_audit(web()) == ()
    assert namespace.backend().polyplane_apply(diff(EMPTY, web())).operations == 0


FOREIGN = """*filter
:KUBE-FORWARD - [0:0]
:polyplanes - [0:0]
-A FORWARD -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A polyplanes -s 192.0.2.0/24 -m comment --comment polyplane -j ACCEPT
COMMIT
*nat
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
COMMIT
"""


def test_what_is_not_ours_stays_as_it_is(namespace: Namespace, backend: IptablesBackend) -> None:
    namespace.run(f"iptables-{namespace.variant}-restore", text=FOREIGN)
    namespace.run(f"ip6tables-{namespace.variant}-restore", text="*filter\n:OTHER - [0:0]\n-A FORWARD -j OTHER\nCOMMIT\n")
    namespace.run("ipset", "create", "polyplanes", "hash:ip")
    before = namespace.rules()
    backend.polyplane_apply(diff(EMPTY, web()))
    seen = [line for line in namespace.rules().splitlines() if "polyplane-" not in line]
    assert seen == before.splitlines()
    for family in (4, 6):
        assert namespace.iptables("-S", "FORWARD", "1", family=family).split()[-1] == "polyplane-forward"
    assert backend.polyplane_teardown().operations > 0
    assert namespace.rules() == before
    assert backend.polyplane_teardown().operations == 0


@pytest.mark.parametrize("namespace", ["nft"], indirect=True)  # nobody but iptables writes legacy tables
def test_a_table_that_iptables_cannot_read_is_no_empty_table(namespace: Namespace, backend: IptablesBackend) -> None:
    """Somebody wrote into it by nft. iptables-nft-save says so in a comment and ends well, and would have us add jump after jump."""
    backend.polyplane_apply(diff(EMPTY, web()))
    before = namespace.rules()
    namespace.run("nft", "add rule ip filter FORWARD iifname { a, b } meta mark set ct mark")
    for attempt in (lambda: backend.polyplane_audit(web()), lambda: backend.polyplane_apply(diff(EMPTY, web()))):
        with pytest.raises(ApplyError, match="use the nftables backend, or upgrade iptables"):
            attempt()
    (problem,) = namespace.backend().polyplane_capabilities().missing
    assert "upgrade iptables" in problem
    handle = namespace.run("nft", "-a", "list", "chain", "ip", "filter", "FORWARD").rpartition("handle ")[2].split()[0]
    namespace.run("nft", f"delete rule ip filter FORWARD handle {handle}")
    assert backend.polyplane_apply(diff(EMPTY, web())).operations == 0
    assert namespace.rules() == before


@pytest.mark.parametrize("more", [{}, {"recheck_mark": 0xFF0}])
def test_leftovers_in_the_other_variant_go(more: dict[str, object], namespace: Namespace) -> None:
    other = "legacy" if namespace.variant == "nft" else "nft"
    namespace.backend(variant=other, **more).polyplane_apply(diff(EMPTY, web()))
    backend = namespace.backend(**more)
    assert any(drift.subject == f"iptables-{other}" for drift in backend.polyplane_audit(web()))
    backend.polyplane_apply(diff(EMPTY, web()))
    assert "polyplane" not in namespace.run(f"iptables-{other}-save") + namespace.run(f"ip6tables-{other}-save")
    assert backend.polyplane_audit(web()) == ()


def test_the_variant_of_other_rules_is_taken(namespace: Namespace) -> None:
    namespace.run(f"iptables-{namespace.variant}-restore", text=FOREIGN)
    backend = namespace.backend(variant="auto")
    assert ("variant", namespace.variant) in backend.polyplane_capabilities().details
    backend.polyplane_apply(diff(EMPTY, web()))
    assert "polyplane-forward" in namespace.rules()


def test_kubelet_s_hint_counts_more_than_rules(namespace: Namespace) -> None:
    other = "legacy" if namespace.variant == "nft" else "nft"
    namespace.run(f"iptables-{other}-restore", text=FOREIGN)
    namespace.run(f"iptables-{namespace.variant}-restore", text="*mangle\n:KUBE-KUBELET-CANARY - [0:0]\nCOMMIT\n")
    assert ("variant", namespace.variant) in namespace.backend(variant="auto").polyplane_capabilities().details


def test_where_nobody_else_has_rules_ours_stay_where_they_are(namespace: Namespace) -> None:
    namespace.backend().polyplane_apply(diff(EMPTY, web()))
    again = namespace.backend(variant="auto")
    assert ("variant", namespace.variant) in again.polyplane_capabilities().details
    assert again.polyplane_apply(diff(EMPTY, web())).operations == 0


def test_nothing_there_is_nft_and_leaves_legacy_alone(namespace: Namespace) -> None:
    backend = namespace.backend(variant="auto")
    backend.polyplane_apply(diff(EMPTY, web()))
    backend.polyplane_audit(web())
    assert "polyplane-forward" in namespace.run("iptables-nft-save")
    assert namespace.run("cat", "/proc/net/ip_tables_names") == ""


class Crash(Exception):
    """The agent is killed here."""


@pytest.mark.parametrize(("name", "mask"), [("tiers", None), ("by-address", None), ("tiers", 0xFF0), ("by-address", 0x1)])
def test_a_crash_between_any_two_commands_is_made_good(name: str, mask: int | None, namespace: Namespace) -> None:
    """Break off before each command in turn; the next start finds its way from whatever is there."""
    kernel = Kernel(IptablesOptions.parse(namespace.options))
    target, more = examples()[name], {} if mask is None else {"recheck_mark": mask}

    def attempt(commands: int) -> bool:
        left = commands

        def runner(argv: Sequence[str], text: str) -> str:
            nonlocal left
            if "restore" in " ".join(argv):
                if not left:
                    raise Crash
                left -= 1
            return kernel.execute(argv, text)

        backend = namespace.backend(runner, **more)
        try:
            backend.polyplane_apply(diff(EMPTY, target))
        except Crash:
            return True
        return False

    broken = 0
    while True:
        namespace.backend().polyplane_teardown()
        namespace.backend(**more).polyplane_apply(diff(EMPTY, web()))
        if not attempt(broken):
            break
        assert namespace.backend(**more).polyplane_audit(target)
        namespace.backend(**more).polyplane_apply(diff(EMPTY, target))
        assert namespace.backend(**more).polyplane_audit(target) == ()
        broken += 1
    assert broken >= 2


@pytest.mark.parametrize("namespace", ["legacy"], indirect=True)  # iptables-nft has no lock: transactions do its work
def test_a_held_lock_is_waited_for_and_then_reported(namespace: Namespace) -> None:
    backend = namespace.backend(lock_wait=1)
    backend.polyplane_apply(diff(EMPTY, web()))
    before = namespace.rules()
    other = replace(web(), options=examples()["keep-and-reject"].options)
    holder = subprocess.Popen(["flock", "--no-fork", namespace.lock_file, "sleep", "30"])
    try:
        time.sleep(0.3)
        began = time.monotonic()
        with pytest.raises(ApplyError, match="lock") as caught:
            backend.polyplane_apply(diff(web(), other))
        assert caught.value.retryable
        assert time.monotonic() - began < 10
        assert namespace.rules() == before
    finally:
        holder.terminate()
        holder.wait()
    backend.polyplane_apply(diff(web(), other))
    assert backend.polyplane_audit(other) == ()


def test_counters_are_kept_by_rule_id(namespace: Namespace, backend: IptablesBackend) -> None:
    backend.polyplane_apply(diff(EMPTY, web()))
    ids = {one.id for each in web().policies.values() for one in each.rules}
    ids |= {tier.isolation.id for each in web().endpoints.values() for tier in each.ingress if tier.isolation}
    assert {count.rule_id for count in backend.polyplane_counters()} == ids
    assert all(count.packets == 0 for count in backend.polyplane_counters())


@pytest.mark.parametrize("namespace", ["legacy"], indirect=True)  # iptables-nft has no lock: transactions do its work
def test_a_lock_that_is_let_go_in_time_is_only_waited_for(namespace: Namespace) -> None:
    backend = namespace.backend(lock_wait=30)
    with subprocess.Popen(["flock", "--no-fork", namespace.lock_file, "sleep", "2"]) as holder:
        time.sleep(0.3)
        assert backend.polyplane_apply(diff(EMPTY, web())).operations > 0
        assert holder.poll() is not None
    assert backend.polyplane_audit(web()) == ()


def test_a_held_lock_keeps_nobody_from_looking(namespace: Namespace) -> None:
    """Audits, counters and what is shown need no lock, and say the truth meanwhile."""
    backend = namespace.backend(lock_wait=1)
    backend.polyplane_apply(diff(EMPTY, web()))
    namespace.iptables("-D", "polyplane-to", "1")
    with subprocess.Popen(["flock", "--no-fork", namespace.lock_file, "sleep", "60"]) as holder:
        time.sleep(0.3)
        assert backend.polyplane_audit(web())
        assert backend.polyplane_counters()
        assert "polyplane-to" in backend.polyplane_show()
        if namespace.variant == "legacy":
            with pytest.raises(ApplyError, match="lock"):
                backend.polyplane_teardown()
        holder.terminate()
    assert backend.polyplane_teardown().operations > 0
    assert "polyplane" not in namespace.rules()


def test_somebody_who_will_not_stop(namespace: Namespace, backend: IptablesBackend) -> None:
    """Others flush, insert, delete and hold the lock all the while: each apply ends, refused or done, and the last one heals."""
    other = replace(web(), options=examples()["keep-and-reject"].options)
    flushing = (
        f'for turn in $(seq 40); do for program in iptables ip6tables; do run="$program-{namespace.variant} -w 2"; $run -F FORWARD;'
        " $run -I FORWARD -j ACCEPT; $run -F polyplane-to; $run -I polyplane-forward -j RETURN; done; ipset flush; done; true"
    )
    holding = f"for turn in $(seq 20); do flock --no-fork {namespace.lock_file} sleep 0.4; sleep 0.1; done"
    bullies = [
        subprocess.Popen(
            ["ip", "netns", "exec", namespace.name, "sh", "-c", script],
            env={**os.environ, "XTABLES_LOCKFILE": namespace.lock_file},
            stderr=subprocess.DEVNULL,
        )
        for script in (flushing, holding)
    ]
    last, turns = EMPTY, 0
    while any(bully.poll() is None for bully in bullies) or not turns:
        target = other if last is not other else web()
        try:
            backend.polyplane_apply(diff(last, target))
        except ApplyError:
            last = EMPTY
        else:
            last = target
        turns += 1
    backend.polyplane_apply(diff(EMPTY, web()))
    assert backend.polyplane_audit(web()) == ()
    for family in (4, 6):
        assert namespace.iptables("-S", "FORWARD", "1", family=family).split()[-1] == "polyplane-forward"
    again = namespace.backend()
    assert again.polyplane_apply(diff(EMPTY, web())).operations == 0
    again.polyplane_teardown()
    assert "polyplane" not in namespace.rules()


DOCKER = """*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:DOCKER - [0:0]
:DOCKER-ISOLATION-STAGE-1 - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-ISOLATION-STAGE-1
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A DOCKER-ISOLATION-STAGE-1 -j RETURN
-A DOCKER-USER -j RETURN
COMMIT
*nat
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
-A DOCKER -i docker0 -j RETURN
COMMIT
"""
KUBE_PROXY = """*filter
:KUBE-FORWARD - [0:0]
:KUBE-FIREWALL - [0:0]
:KUBE-SERVICES - [0:0]
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-FORWARD -m comment --comment "kubernetes forwarding rules" -m mark --mark 0x4000/0x4000 -j ACCEPT
-A KUBE-FORWARD -m comment --comment "kubernetes forwarding conntrack rule" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A KUBE-FIREWALL ! -s 127.0.0.0/8 -d 127.0.0.0/8 -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP
COMMIT
*nat
:KUBE-MARK-MASQ - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-SERVICES - [0:0]
-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MASQUERADE
-A KUBE-SERVICES -d 10.96.0.1/32 -p tcp -m tcp --dport 443 -j DNAT --to-destination 192.0.2.10:6443
COMMIT
"""
KUBE_JUMPS = (
    ("filter", "INPUT", "KUBE-FIREWALL"),
    ("filter", "FORWARD", "KUBE-FORWARD"),
    ("filter", "OUTPUT", "KUBE-SERVICES"),
    ("nat", "PREROUTING", "KUBE-SERVICES"),
    ("nat", "POSTROUTING", "KUBE-POSTROUTING"),
)


def foreign(namespace: Namespace) -> list[str]:
    return [line for line in namespace.rules().splitlines() if "polyplane-" not in line]


def test_docker_and_kube_proxy_come_after_us_again_and_again(namespace: Namespace, backend: IptablesBackend) -> None:
    """Both put their jumps first when they start, and write their chains anew all the time: ours is first again after each audit."""
    namespace.run(f"iptables-{namespace.variant}-restore", text=DOCKER)
    backend.polyplane_apply(diff(EMPTY, web()))
    for _ in range(2):
        namespace.run(f"iptables-{namespace.variant}-restore", "--noflush", text=KUBE_PROXY)
        for table, built_in, chain in KUBE_JUMPS:
            namespace.iptables("-t", table, "-I", built_in, "-m", "conntrack", "--ctstate", "NEW", "-j", chain)
        namespace.iptables("-D", "FORWARD", "-j", "DOCKER-USER")
        namespace.iptables("-I", "FORWARD", "-j", "DOCKER-USER")
        theirs = foreign(namespace)
        assert {drift.subject for drift in backend.polyplane_audit(web())} == {"filter FORWARD", "filter INPUT"}
        assert backend.polyplane_apply(diff(EMPTY, web())).detail == {"rules": 4}, "two jumps, each taken out and put in"
        assert backend.polyplane_audit(web()) == ()
        assert foreign(namespace) == theirs
        for built_in in ("FORWARD", "INPUT"):
            assert namespace.iptables("-S", built_in, "1").split()[-1] == f"polyplane-{built_in.lower()}"
    backend.polyplane_teardown()
    assert namespace.rules().splitlines() == foreign(namespace) == theirs
    assert ":FORWARD DROP" in namespace.rules()


def test_a_reboot_leaves_nothing_and_everything_comes_back(namespace: Namespace, backend: IptablesBackend) -> None:
    """The kernel holds nothing of ours any more, neither does the agent, and others may have been first."""
    backend.polyplane_apply(diff(EMPTY, web()))
    whole = namespace.rules()
    for tool in ("iptables", "ip6tables"):
        namespace.run(f"{tool}-{namespace.variant}", "-F")
        namespace.run(f"{tool}-{namespace.variant}", "-X")
    time.sleep(0.2)
    namespace.run("ipset", "destroy")
    namespace.iptables("-A", "FORWARD", "-j", "ACCEPT")
    again = namespace.backend()
    again.polyplane_apply(diff(EMPTY, web()))
    assert again.polyplane_audit(web()) == ()
    namespace.iptables("-D", "FORWARD", "-j", "ACCEPT")
    assert sorted(namespace.rules().splitlines()) == sorted(whole.splitlines())
