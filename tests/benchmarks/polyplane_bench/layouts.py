"""What a user could have instead, laid out on the same kernel: how other enforcers write the same policies.

Each writes the rules of a `Load` into a node's namespace. All of them let replies and established connections pass first, as
their models do, where polyplane's default looks at every packet of the original direction again.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final

from polyplane_bench.programs import Load, Pod, group_of, members, others, placed, port_of
from polyplane_bench.queue_reader import NUMBER
from polyplane_conformance.sandbox import Sandbox

#: Lays rules out in a sandbox's node; returns the processes, if any, that handle packets besides the kernel.
Lay = Callable[[Sandbox, Load, Pod, Pod], Collection[int]]

#: What the name of a backend ends with that rechecks open connections by mark.
BY_MARK: Final = " by mark"
_KIT: Final = Path(__file__).parents[1]
_ESTABLISHED: Final = "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"


def linear(variant: str) -> Lay:
    """One chain a policy and a rule in FORWARD for each, peers one by one: as the first enforcers did it."""

    def lay(sandbox: Sandbox, load: Load, client: Pod, server: Pod) -> Collection[int]:
        lines = ["*filter", f"-A FORWARD {_ESTABLISHED}"]
        lines += [f":P{number} - [0:0]" for number, _ in placed(load, server)]
        for number, pod in placed(load, server):
            for member in members(number, load, client):
                lines += [f"-A P{number} -s {member} -p {kind} --dport {port_of(number, load)} -j ACCEPT" for kind in ("tcp", "udp")]
            lines.append(f"-A FORWARD -d {pod.address} -j P{number}")
        lines += [f"-A FORWARD -d {pod.address} -j DROP" for pod in _isolated(load, server)]
        _restore(sandbox, variant, lines)
        return ()

    return lay


def ipset_chains(variant: str) -> Lay:
    """One chain a pod with a rule for each of its policies, peers in ipsets: as kube-router and others do it."""

    def lay(sandbox: Sandbox, load: Load, client: Pod, server: Pod) -> Collection[int]:
        sets = []
        for group, number in {group_of(number, load): number for number, _ in placed(load, server)}.items():
            sets.append(f"create s{group} hash:ip maxelem 1048576")
            sets += [f"add s{group} {member}" for member in members(number, load, client)]
        sandbox.run(sandbox.topology.node.name, ["ipset", "restore"], text="\n".join([*sets, ""]))
        chains = {pod.id: f"POD{at}" for at, pod in enumerate(_isolated(load, server))}
        lines = ["*filter", *(f":{chain} - [0:0]" for chain in chains.values()), f"-A FORWARD {_ESTABLISHED}"]
        lines += [f"-A FORWARD -d {pod.address} -j {chains[pod.id]}" for pod in _isolated(load, server)]
        for number, pod in placed(load, server):
            match = f"-m set --match-set s{group_of(number, load)} src"
            lines += [f"-A {chains[pod.id]} -p {kind} --dport {port_of(number, load)} {match} -j ACCEPT" for kind in ("tcp", "udp")]
        lines += [f"-A {chain} -j DROP" for chain in chains.values()]
        _restore(sandbox, variant, lines)
        return ()

    return lay


def nothing(_sandbox: Sandbox, _load: Load, _client: Pod, _server: Pod) -> Collection[int]:
    """Nothing at all: plain forwarding."""
    return ()


def queue(sandbox: Sandbox, _load: Load, _client: Pod, server: Pod) -> Collection[int]:
    """The first packet of every connection to a program that decides: as kube-network-policies does it."""
    _restore(
        sandbox, "legacy", ["*filter", f"-A FORWARD {_ESTABLISHED}", f"-A FORWARD -d {server.address} -j NFQUEUE --queue-num {NUMBER}"]
    )
    name = sandbox.topology.node.name
    reader = sandbox.spawn(name, [sys.executable, "-m", "polyplane_bench.queue_reader"], env={**os.environ, "PYTHONPATH": str(_KIT)})
    deadline = time.monotonic() + 5
    while not sandbox.run(name, ["cat", "/proc/thread-self/net/netfilter/nfnetlink_queue"]):
        if time.monotonic() > deadline or reader.poll() is not None:
            raise RuntimeError("nobody reads the queue")
        time.sleep(0.02)
    return (reader.pid,)


def conjunctive(sandbox: Sandbox, load: Load, client: Pod, server: Pod) -> Collection[int]:
    """Conjunctive flows: one clause for the peers, one for the pod, one for the port, as Antrea does it."""
    flows = [
        "table=0,priority=300,ip,ct_state=-trk,actions=ct(table=0,zone=7)",
        "table=0,priority=290,ip,ct_state=+est+trk,actions=NORMAL",
    ]
    clauses: dict[str, list[str]] = {}
    for number, pod in placed(load, server):
        conjunction = number + 1
        flows.append(f"table=0,priority=200,conj_id={conjunction},ip,ct_state=+trk,actions=ct(commit,zone=7),NORMAL")
        for match in (f"nw_src={member}" for member in members(number, load, client)):
            clauses.setdefault(f"ip,ct_state=+trk,{match}", []).append(f"conjunction({conjunction},1/3)")
        clauses.setdefault(f"ip,ct_state=+trk,nw_dst={pod.address}", []).append(f"conjunction({conjunction},2/3)")
        for kind in ("tcp", "udp"):
            match = f"{kind},ct_state=+trk,tp_dst={port_of(number, load)}"
            clauses.setdefault(match, []).append(f"conjunction({conjunction},3/3)")
    flows += [f"table=0,priority=200,{match},actions={','.join(actions)}" for match, actions in clauses.items()]
    flows += [f"table=0,priority=100,ip,ct_state=+trk,nw_dst={pod.address},actions=drop" for pod in _isolated(load, server)]
    sandbox.run(sandbox.topology.node.name, ["ovs-ofctl", "--bundle", "add-flows", "br-int", "-"], text="\n".join([*flows, ""]))
    return ()


def _isolated(load: Load, server: Pod) -> list[Pod]:
    """Return the pods that policies select, the server last."""
    selected = {pod.id for _, pod in placed(load, server)}
    return [pod for pod in (*others(load), server) if pod.id in selected]


def own(sandbox: Sandbox, layout: str) -> tuple[str, dict[str, object]]:
    """Return a backend's name and options for a sandbox; for a variant of iptables with a lock that nobody else here waits for."""
    name, _, variant = layout.removesuffix(BY_MARK).partition("-")
    options: dict[str, object] = {"recheck_mark": 0xFF00} if layout.endswith(BY_MARK) else {}
    return name, sandbox.backend_options() | options | ({"variant": variant, "lock_file": _lock_file(sandbox)} if variant else {})


def tidy(sandbox: Sandbox) -> None:
    """Remove the lock."""
    Path(_lock_file(sandbox)).unlink(missing_ok=True)


def _lock_file(sandbox: Sandbox) -> str:
    return str(Path(tempfile.gettempdir()) / f"{sandbox.node_netns.name}.xtables")


def _restore(sandbox: Sandbox, variant: str, lines: list[str]) -> None:
    argv = [f"iptables-{variant}-restore", "--noflush", *(["-w", "30"] if variant == "legacy" else [])]
    environment = {**os.environ, "XTABLES_LOCKFILE": _lock_file(sandbox)}
    sandbox.run(sandbox.topology.node.name, argv, text="\n".join([*lines, "COMMIT", ""]), env=environment)
