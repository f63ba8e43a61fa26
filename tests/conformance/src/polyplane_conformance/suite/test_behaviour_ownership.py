"""Behaviour: we find what is ours, repair it, remove it, and touch nothing else."""

from __future__ import annotations

import re
import shutil
from typing import Final

import pytest

from polyplane.ir.program import Program
from polyplane.reconcile.diff import diff
from polyplane_conformance.needs import require
from polyplane_conformance.stage import Stage, only_from, pod, policy

pytestmark = [pytest.mark.tier("netns"), pytest.mark.netns]

DOOR = policy("x/door", podSelector=pod("a"), ingress=only_from("b"))
FOREIGN = """
add table inet somebody
add chain inet somebody forward { type filter hook forward priority 10; policy accept; }
add rule inet somebody forward tcp dport 9999 counter drop
add table ip polyplanes
add set ip polyplanes friends { type ipv4_addr; elements = { 192.0.2.1 }; }
"""

#: Everything a backend could have put on the node, as other tools show it.
LOOKS: Final = (
    "nft list ruleset",
    "iptables-save",
    "ip6tables-save",
    "ipset save",
    "ip rule",
    "ip -6 rule",
    "ip route show table all",
    "ip -6 route show table all",
    "ip -brief link",
    "tc qdisc",
    "tc filter show",
)


def _kernel(stage: Stage) -> dict[str, str]:
    """What `LOOKS` shows, without counters and times."""
    looks = {command: stage.run(*command.split()) for command in LOOKS if shutil.which(command.split()[0])}
    volatile = re.compile(r"packets \d+ bytes \d+|\[\d+:\d+\]|expires \S+|^#.*$|age \d+", re.MULTILINE)
    return {command: volatile.sub("", text) for command, text in looks.items()}


def test_teardown_removes_ours_and_nothing_else(stage: Stage) -> None:
    """After a teardown the node is as it was, foreign tables of similar names included."""
    require("nft")
    stage.begin()
    stage.rig.dataplane.teardown()
    try:
        stage.sandbox.run("node-1", ["nft", "-f", "-"], text=FOREIGN)
        before = _kernel(stage)
        stage.rig.program = Program()
        stage.act(DOOR)
        stage.expect(allowed=["x/b -> x/a"], denied=["x/c -> x/a"])
        assert stage.rig.load().teardown().operations > 0
        assert _kernel(stage) == before
        stage.expect(allowed=["x/b -> x/a", "x/c -> x/a"])
        assert stage.rig.load().teardown().operations == 0
    finally:
        stage.run("nft", "delete", "table", "inet", "somebody")
        stage.run("nft", "delete", "table", "ip", "polyplanes")


def test_foreign_drops_and_ours_add_up(stage: Stage) -> None:
    """What another program forbids stays forbidden, what it accepts is still ours to forbid."""
    require("nft")
    # pods of different namespaces: on a bridge, neighbours do not pass the node's own packet filter
    stage.begin(policy("x/door", podSelector=pod("a"), ingress=[{"from": [{"namespaceSelector": {}, "podSelector": pod("b")}]}]))
    text = "add table inet somebody\nadd chain inet somebody f { type filter hook forward priority -10; }\n"
    text += "add rule inet somebody f tcp dport 81 drop\nadd rule inet somebody f accept\n"
    stage.sandbox.run("node-1", ["nft", "-f", "-"], text=text)
    try:
        stage.expect("TCP/80", allowed=["y/b -> x/a"], denied=["y/c -> x/a"])
        stage.expect("TCP/81", denied=["y/b -> x/a", "y/a -> z/b"])
    finally:
        stage.run("nft", "delete", "table", "inet", "somebody")


def test_drift_is_found_and_repaired(stage: Stage) -> None:
    """Each damage the backend states is seen by the audit, and applying with an empty base repairs it."""
    for damage in stage.damages():
        stage.begin(DOOR)
        assert not stage.rig.dataplane.audit(stage.rig.program)
        stage.run(*damage.command)
        assert stage.rig.dataplane.audit(stage.rig.program), f"the audit does not notice: {damage.name}"
        assert stage.rig.dataplane.apply(diff(Program(), stage.rig.program)).operations > 0, damage.name
        assert not stage.rig.dataplane.audit(stage.rig.program), damage.name
        stage.expect(allowed=["x/b -> x/a"], denied=["x/c -> x/a"])
