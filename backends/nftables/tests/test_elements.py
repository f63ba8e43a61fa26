"""Elements of our own netlink messages: what they can say, and what the kernel makes of them, read back with nft."""

from __future__ import annotations

from dataclasses import replace

import pytest
from backend_programs import web
from nft_namespace import Namespace

from polyplane.ir.cidr import Cidr
from polyplane.ir.program import EMPTY, AddressSet, Program
from polyplane.reconcile.diff import diff
from polyplane_nftables.backend import NftablesBackend
from polyplane_nftables.elements import encode
from polyplane_nftables.kernel import Kernel
from polyplane_nftables.native import Chain, Changes, Kind

ADDRESSES = Kind("ipv4_addr", is_map=True)
KINDS = {"hosts": ADDRESSES, "ranges": Kind("ipv4_addr", is_map=True, intervals=True), "names": Kind("ifname", is_map=True)}


def changed(name: str = "hosts", **steps: tuple[str | None, str | None]) -> Changes:
    return Changes(elements={name: steps})


def test_only_plain_address_maps_can_be_said() -> None:
    one = {"1.1.1.1": (None, "goto x")}
    assert encode("t", changed(**{"1.1.1.1": (None, "goto x")}), KINDS) is not None
    assert encode("t", changed("ranges", **one), KINDS) is None
    assert encode("t", changed("names", **one), KINDS) is None
    assert encode("t", changed("unknown", **one), KINDS) is None
    assert encode("t", changed(**{"1.1.1.1": (None, "accept")}), KINDS) is None
    assert encode("t", Changes(), KINDS) is None
    with_chain = changed(**{"1.1.1.1": (None, "goto x")})
    with_chain.chains["x"] = (None, Chain())
    assert encode("t", with_chain, KINDS) is None


def test_deletions_come_first_and_many_elements_take_several_messages() -> None:
    steps: dict[str, tuple[str | None, str | None]] = {f"10.0.{number >> 8}.{number & 255}": ("goto x", "goto y") for number in range(600)}
    messages = encode("t", changed(**steps), KINDS)
    assert messages is not None
    kinds = [kind & 255 for kind, _, _ in messages]
    assert kinds == [14] * 3 + [12] * 3
    assert all(len(payload) < 1 << 16 for _, _, payload in messages)


def grown(base: Program, *addresses: str) -> Program:
    first: AddressSet = next(iter(base.sets.values()))
    more = replace(first, members=first.members.changed(added=map(Cidr.parse, addresses)))
    return replace(base, sets={**base.sets, first.id: more})


@pytest.mark.netns
def test_members_do_without_libnftables(namespace: Namespace, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = NftablesBackend({"netns": namespace.path})
    before = web()
    after = grown(before, *(f"10.5.{number >> 8}.{number & 255}" for number in range(700)), "fd00:5::1")
    backend.polyplane_apply(diff(EMPTY, before))
    with monkeypatch.context() as patch:
        patch.setattr(Kernel, "run", lambda *_: pytest.fail("this is for elements alone"))
        assert backend.polyplane_apply(diff(before, after)).operations == 701
        assert backend.polyplane_audit(after) == ()
        listed = namespace.ruleset()
        assert "10.5.2.187 : goto" in listed
        assert "fd00:5::1 : goto" in listed
        assert backend.polyplane_apply(diff(after, before)).operations == 701
        assert backend.polyplane_audit(before) == ()
    assert "10.5.2.187" not in namespace.ruleset()


@pytest.mark.netns
def test_what_the_kernel_refuses_changes_nothing_and_is_repaired(namespace: Namespace) -> None:
    backend = NftablesBackend({"netns": namespace.path})
    before = web()
    after = grown(before, "10.5.0.1", "10.5.0.2")
    backend.polyplane_apply(diff(EMPTY, after))
    namespace.nft("delete element inet polyplane in_hosts4 { 10.5.0.2 }")
    # Of the two deletions the kernel refuses one, and so both: the backend looks, and finishes.
    backend.polyplane_apply(diff(after, before))
    assert backend.polyplane_audit(before) == ()
    assert "10.5.0" not in namespace.ruleset()
