from __future__ import annotations

from dataclasses import replace

import pytest
from backend_programs import IN, endpoint, isolated, policy, program, rule

from polyplane.backend_kit.deltas import whole
from polyplane.backend_kit.labels import Labels, isolation_label, origin_label
from polyplane.ir.program import EMPTY, Isolation, Policy, PolicyId, Program, Rule
from polyplane.reconcile.diff import diff


def made(*names: str) -> Program:
    """One pod with policies of these names."""
    policies = [policy(IN, rule(name, IN, 0)) for name in names]
    return program(*policies, endpoint("web", "veth1", "10.0.0.1", ingress=isolated(IN, *policies)))


def said(wanted: Program) -> dict[int, str]:
    return {one.id: origin_label(one.origin) if isinstance(one, Rule) else isolation_label(one.origins) for one in wanted.deciders()}


def test_what_a_delta_brings_is_explained_without_a_walk_over_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    walks = 0
    walk = Program.deciders

    def counting(self: Program) -> object:
        nonlocal walks
        walks += 1
        return walk(self)

    many = made(*(f"policy-{number}" for number in range(20)))
    more = made(*(f"policy-{number}" for number in range(21)))
    labels = Labels()
    labels.update(whole(many))
    monkeypatch.setattr(Program, "deciders", counting)
    labels.update(diff(many, more))
    assert walks == 0
    explained = said(more)
    assert {rule_id: labels.of(rule_id) for rule_id in explained} == explained
    assert any(isinstance(one, Isolation) for one in more.deciders())


def test_what_is_gone_is_forgotten() -> None:
    labels, held = Labels(), EMPTY
    for number in range(100):
        wanted = made(f"policy-{number}")
        labels.update(diff(held, wanted))
        held = wanted
    known = [number for number in range(100) if labels.of(next(iter(made(f"policy-{number}").policies.values())).rules[0].id)]
    assert known[-1] == 99
    assert len(known) < 10


def test_an_id_may_be_given_again() -> None:
    labels = Labels()
    before = made("old")
    labels.update(whole(before))
    (old,) = before.policies.values()
    new = rule("new", IN, 0)
    again = Policy(id=PolicyId("other"), direction=IN, rules=(replace(new, id=old.rules[0].id),))
    after = program(again, endpoint("web", "veth1", "10.0.0.1", ingress=isolated(IN, again)))
    labels.update(diff(before, after))
    assert labels.of(old.rules[0].id) == origin_label(new.origin)


def test_what_nobody_has_is_nobodys() -> None:
    assert Labels().of(0) == "no-rule"
    assert Labels().of(7) == ""
