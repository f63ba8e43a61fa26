from __future__ import annotations

from polyplane.hookspecs import RuleCount
from polyplane_iptables.counting import Ledger
from polyplane_iptables.listing import Count


def said(packets: int, *, chain: str = "polyplane-s1", rule_id: int = 7) -> dict[int, list[Count]]:
    return {4: [Count(chain, f"{rule_id} -j RETURN", rule_id, packets, packets * 10)]}


def total(packets: int, rule_id: int = 7) -> tuple[RuleCount, ...]:
    return (RuleCount(rule_id=rule_id, packets=packets, bytes=packets * 10),)


def test_a_chain_that_is_written_anew_counts_on() -> None:
    ledger = Ledger()
    assert ledger.read(said(5)) == total(5)
    ledger.lose(4, ["polyplane-s1"])
    assert ledger.read(said(9)) == total(14)
    assert ledger.read(said(10)) == total(15)


def test_a_rule_that_moves_to_another_chain_counts_on() -> None:
    ledger = Ledger()
    ledger.read(said(5))
    assert ledger.read(said(2, chain="polyplane-s2")) == total(7)


def test_what_somebody_else_set_to_0_counts_on() -> None:
    ledger = Ledger()
    ledger.read(said(5))
    assert ledger.read(said(1)) == total(6)


def test_a_rule_that_is_gone_for_good_is_forgotten() -> None:
    ledger = Ledger()
    ledger.read(said(5))
    assert ledger.read(said(1, rule_id=8)) == total(1, rule_id=8)
    assert ledger.read(said(2)) == total(2)


def test_nothing_is_read_beforehand_unless_somebody_asks_for_counters() -> None:
    ledger = Ledger()
    assert not ledger.worth_reading
    ledger.read(said(1))
    assert ledger.worth_reading
