from __future__ import annotations

import pytest

from polyplane.compile import rule_ids
from polyplane.compile.rule_ids import RuleIds


def test_an_id_is_the_same_in_every_process() -> None:
    ids = RuleIds()
    ids.acquire(["NetworkPolicy x/p ingress[0]"])

    assert ids["NetworkPolicy x/p ingress[0]"] == 2190514802


def test_colliding_names_get_ids_that_do_not_depend_on_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    real = rule_ids._hash
    monkeypatch.setattr(rule_ids, "_hash", lambda name, salt=0: 7 if name in ("a", "b", "c") and not salt else real(name, salt))
    forward, backward = RuleIds(), RuleIds()
    for name in "abc":
        forward.acquire([name])
    moved = [backward.acquire([name]) for name in "cba"]

    assert [forward[name] for name in "abc"] == [backward[name] for name in "abc"]
    assert forward["a"] == 7
    assert len({forward[name] for name in "abc"}) == 3
    assert moved == [set(), {"c"}, {"b", "c"}]
    assert backward.release(["a"]) == {"b", "c"}
    assert backward["b"] == 7
