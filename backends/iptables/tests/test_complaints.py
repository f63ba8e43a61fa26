"""What tools complain about, in words that name the object."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from backend_programs import web
from ipt_namespace import Namespace

from polyplane.errors import ApplyError
from polyplane.ir.program import EMPTY
from polyplane.reconcile.diff import diff
from polyplane_iptables.complaints import explained
from polyplane_iptables.kernel import Kernel
from polyplane_iptables.options import IptablesOptions

TEXT = """*filter
:polyplane-s1 - [0:0]
-A polyplane-s1 -p tcp -m set --match-set polyplane-4-a src -m comment --comment "0badf00d NetworkPolicy/shop/web/ingress/0" -j RETURN
-A polyplane-to -o veth1 -g polyplane-s1
COMMIT
"""


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (
            "iptables-restore: line 3 failed",
            "rule 0badf00d (NetworkPolicy/shop/web/ingress/0) in chain polyplane-s1: iptables-restore: line 3",
        ),
        ("line 4: RULE_APPEND failed (Too many links): rule in chain polyplane-to", "chain polyplane-to: line 4: RULE_APPEND failed"),
        ("iptables-restore: line 5 failed", "iptables-restore: line 5 failed"),
        ("Extension set revision 0 not supported, missing kernel module?", "modprobe"),
        ("Fatal: can't open lock file /run/xtables.lock", "lock"),
    ],
)
def test_the_object_is_named(message: str, said: str) -> None:
    assert said in explained(message, TEXT)


def test_elements_are_named_by_their_set() -> None:
    text = "create polyplane-4-a hash:net\nadd polyplane-4-a 10.0.0.1\n"
    said = explained("ipset v7.17: Error in line 2: Hash is full, cannot add more elements", text)
    assert said.startswith("set polyplane-4-a: ")
    assert said.endswith("select fewer addresses")


@pytest.mark.netns
def test_a_refused_rule_is_named(namespace: Namespace) -> None:
    """A set is gone at the moment when the rules that ask it are committed."""
    kernel = Kernel(IptablesOptions.parse(namespace.options))

    def runner(argv: Sequence[str], text: str) -> str:
        if text.startswith("*filter"):
            namespace.run("ipset", "destroy")
        return kernel.execute(argv, text)

    web_rule = next(rule for policy in web().policies.values() for rule in policy.rules)
    with pytest.raises(ApplyError, match=rf"rule {web_rule.id:08x} \(NetworkPolicy/shop/web/ingress/0\) in chain polyplane-s") as caught:
        namespace.backend(runner).polyplane_apply(diff(EMPTY, web()))
    assert "Set polyplane-4-" in str(caught.value) or "doesn't exist" in str(caught.value) or "match `set'" in str(caught.value)


@pytest.mark.netns
def test_a_set_that_somebody_else_asks_stays_until_they_let_go(namespace: Namespace) -> None:
    """It is in nobody's way meanwhile, and each change tries again."""
    backend = namespace.backend()
    backend.polyplane_apply(diff(EMPTY, web()))
    name = next(line for line in namespace.run("ipset", "list", "-n").split() if "-4-" in line)
    namespace.iptables("-A", "INPUT", "-m", "set", "--match-set", name, "src", "-j", "ACCEPT")
    backend.polyplane_apply(diff(web(), EMPTY))
    assert name in namespace.run("ipset", "list", "-n")
    assert any(drift.subject == f"set {name}" for drift in backend.polyplane_audit(EMPTY))
    namespace.iptables("-F", "INPUT")
    backend.polyplane_apply(diff(EMPTY, EMPTY))
    assert name not in namespace.run("ipset", "list", "-n")
    assert backend.polyplane_audit(EMPTY) == ()
