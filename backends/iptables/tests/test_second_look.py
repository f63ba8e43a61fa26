"""What the backend wrote, read by python-iptables, which shares no code with iptables-save and knows nothing of this backend."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from backend_programs import examples
from ipt_namespace import Namespace

from polyplane.ir.program import EMPTY
from polyplane.reconcile.diff import diff
from polyplane_iptables.layout import Layout
from polyplane_iptables.listing import protocol_number

pytestmark = [
    pytest.mark.netns,
    pytest.mark.skipif(find_spec("iptc") is None, reason="needs python-iptables (pip install python-iptables; it compiles)"),
]


def second_look(namespace: Namespace, family: int) -> dict[str, list[dict[str, str]]]:
    script = Path(__file__).with_name("ipt_second_look.py")
    argv = ["ip", "netns", "exec", namespace.name, sys.executable, str(script), str(family)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"python-iptables ended with {done.returncode}: {done.stderr}"
    seen: dict[str, list[dict[str, str]]] = json.loads(done.stdout)
    for rule in (rule for rules in seen.values() for rule in rules):
        rule["protocol"] = protocol_number(rule["protocol"])
    return seen


def expected(rule: str) -> dict[str, object]:
    words = shlex.split(rule)
    options = {word: words[at + 1] for at, word in enumerate(words[:-1]) if word in ("-p", "-i", "-o", "-j", "-g", "--comment")}
    return {
        "protocol": protocol_number(options.get("-p", "ip")),
        "in": options.get("-i"),
        "out": options.get("-o"),
        "target": options.get("-j") or options["-g"],
        "comment": options.get("--comment", ""),
        "matches": sorted(words[at + 1] for at, word in enumerate(words) if word == "-m"),
    }


@pytest.mark.parametrize("name", ["one-pod", "blocks", "tiers"])
@pytest.mark.parametrize("family", [4, 6])
def test_another_decoder_sees_the_same(name: str, family: int, namespace: Namespace) -> None:
    if namespace.variant == "nft":
        pytest.skip("python-iptables sees legacy tables only")
    wanted = examples()[name]
    namespace.backend().polyplane_apply(diff(EMPTY, wanted))
    seen = second_look(namespace, family)
    native = Layout.of(wanted).native({}).filters[family]
    assert {chain for chain in seen if chain.startswith("polyplane-")} == native.chains.keys()
    for chain, content in native.chains.items():
        assert seen[chain] == [expected(rule) for rule in content.rules], chain
    for built_in, jumps in native.jumps.items():
        assert seen[built_in] == [expected(rule) for _, rule in jumps]
