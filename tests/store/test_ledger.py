"""The ledger: sums that stay exact whatever the disk does, and what is read back."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

import pytest
from msgspec.structs import replace

from narthex.flow.limit.keys import Subject
from narthex.flow.limit.spending import Spent, Use
from narthex.store.costs import added_up
from narthex.store.database import Where
from narthex.store.ledger import HOUR, MOST_KEPT, Ledger, read_costs, read_uses
from narthex.types import CostsKept, Principal

ADA = Subject(Principal("acme", "https://idp", "ada", "bot"), "default", "git", "log")
BOB = Subject(Principal("acme", "https://idp", "bob", "bot"), "default", "git", "log")
NOW = 1_800_000_000_000_000


def spent(subject: Subject = ADA, amount: int = 10, currency: str = "USD", at: int = NOW, uses: int = 1) -> Spent:
    use = Use(b"counter", b"key", at // HOUR, at, at + 24 * HOUR, amount)
    return Spent(at, subject, currency, amount, (use,) * uses)


def test_what_was_added_is_there_in_sums(where: Where) -> None:
    ledger = Ledger(where)
    for number in range(1000):
        ledger.add(spent(ADA if number % 2 else BOB, number, at=NOW + number))
    ledger.add(spent(currency="EUR", amount=7, uses=0))
    ledger.add(spent(currency="", amount=0))
    ledger.close()
    ledger.close()
    costs = read_costs(where, 0, NOW // HOUR + 1)
    assert {(one.subject, one.currency, one.amount, one.calls) for one in costs} == {
        ("ada", "USD", sum(range(1, 1000, 2)), 500),
        ("bob", "USD", sum(range(0, 1000, 2)), 500),
        ("ada", "EUR", 7, 1),
    }
    (use,) = read_uses(where, NOW)
    assert (use.counter, use.key, use.amount, use.at) == (b"counter", b"key", sum(range(1000)), NOW + 999)
    assert read_uses(where, NOW + 25 * HOUR) == []


def test_what_costs_nothing_is_added_up_with_what_does(where: Where) -> None:
    ledger, slot = Ledger(where), NOW // HOUR
    for number in range(1000):
        ledger.tab.add((b"counter", b"key", slot), NOW + number, NOW + 24 * HOUR, 2)
        if number % 100 == 0:
            ledger.add(spent(amount=5, currency="", at=NOW + number))
    assert ledger.flush()
    (use,) = read_uses(where, NOW)
    assert (use.counter, use.key, use.amount, use.at) == (b"counter", b"key", 2050, NOW + 999)
    ledger.tab.add((b"counter", b"key", slot), NOW, NOW + 24 * HOUR, 1)
    ledger.close()
    assert [use.amount for use in read_uses(where, NOW)] == [2051], "the last of it is written as it ends"


@pytest.mark.parametrize("pair", [("a\0", "a\ufffd"), ("a", "\ud800"), ("?y", "\udc80y")], ids=ascii)
def test_what_somebody_is_called_keeps_no_cost_from_the_book(where: Where, pair: tuple[str, str]) -> None:
    """Names that no database tells apart, or keeps as they are: of the same group, of which nobody's may be lost."""
    ledger = Ledger(where)
    for run in (*pair, "", *pair):
        ledger.add(replace(spent(), run=run))
    ledger.close()
    assert not ledger.problem
    assert sum(one.amount for one in read_costs(where, 0, NOW // HOUR + 1)) == 50


def test_whatever_a_server_says_that_it_costs_keeps_no_cost_from_the_book(where: Where) -> None:
    """Sums end near what has room, in a row and where hours become a day; those of others are exact."""
    ledger = Ledger(where, kept=CostsKept(hours=24, days=400))
    for at in (NOW, NOW + HOUR, NOW, NOW + HOUR, NOW + 100 * HOUR):
        ledger.add(spent(BOB, at=at))
        for _ in range(2):
            ledger.add(spent(ADA, 3 * 10**18, at=at))
        assert ledger.flush(60) and not ledger.problem
    ledger.close()
    costs = read_costs(where, 0, NOW // HOUR + 101)
    assert sum(one.amount for one in costs if one.subject == "bob") == 50
    ada = [one.amount for one in costs if one.subject == "ada"]
    assert all(isinstance(one, int) and MOST_KEPT <= one < 1 << 63 for one in ada)


def test_a_second_process_adds_to_what_is_there(where: Where) -> None:
    for _ in range(2):
        ledger = Ledger(where)
        ledger.add(spent())
        ledger.close()
    assert [one.amount for one in read_costs(where, 0, NOW // HOUR + 1)] == [20]
    assert [one.amount for one in read_uses(where, NOW)] == [20]


def test_what_a_locked_file_does_not_take_waits_and_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("narthex.store.ledger.RETRY_S", 0.01)
    path = tmp_path / "s.db"
    ledger = Ledger(path, busy_s=0.01)
    other = sqlite3.connect(path, isolation_level=None, timeout=60)
    other.execute("BEGIN IMMEDIATE")
    ledger.add(spent())
    while not ledger.problem:
        time.sleep(0.001)
    assert "locked" in ledger.problem
    ledger.add(spent())
    other.execute("ROLLBACK")
    other.close()
    while ledger.problem:
        time.sleep(0.001)
    ledger.close()
    assert [one.amount for one in read_costs(path, 0, NOW // HOUR + 1)] == [20]


def test_uses_that_count_no_more_are_removed_in_time(where: Where) -> None:
    for at in (NOW, NOW + 30 * HOUR):
        ledger = Ledger(where)
        ledger.add(spent(at=at))
        ledger.close()
    assert len(read_uses(where, 0)) == 1


def test_rows_are_added_up_by_what_is_asked_for(where: Where) -> None:
    ledger = Ledger(where)
    for subject, at in ((ADA, NOW), (BOB, NOW), (ADA, NOW + 24 * HOUR)):
        ledger.add(spent(subject, 50_000, at=at))
    ledger.close()
    costs = read_costs(where, 0, NOW // HOUR + 48)
    document = added_up(costs, ("day", "server"))
    assert document["total"] == [{"amount": "0.15", "currency": "USD"}]
    assert document["rows"] == [
        {"day": "2027-01-15", "server": "git", "calls": 2, "amount": "0.10", "currency": "USD"},
        {"day": "2027-01-16", "server": "git", "calls": 1, "amount": "0.05", "currency": "USD"},
    ]
    assert added_up([], ("day",)) == {"total": [], "rows": []}


def test_costs_are_put_down_to_team_project_model_and_run(where: Where) -> None:
    who = Principal("acme", "https://idp", "ada", "bot")
    ledger = Ledger(where)
    of = Subject(who, "default", "git", "log", "payments", "atlas")
    ledger.add(Spent(NOW, of, "USD", 5, model="gpt-4o", run="r-1"))
    ledger.add(Spent(NOW, of, "USD", 7, model="gpt-4o", run="r-2"))
    ledger.add(Spent(NOW, of, "USD", 2, model="gpt-4o", run="r-2", calls=0))
    ledger.close()
    document = added_up(read_costs(where, 0, NOW // HOUR + 1), ("team", "project", "model", "run", "hour"))
    assert [(one["team"], one["project"], one["model"], one["run"], one["calls"], one["amount"], one["hour"])
            for one in document["rows"]] == [
        ("payments", "atlas", "gpt-4o", "r-1", 1, "0.000005", "2027-01-15T08Z"),
        ("payments", "atlas", "gpt-4o", "r-2", 1, "0.000009", "2027-01-15T08Z"),
    ]  # fmt: skip


def test_runs_that_an_agent_makes_up_have_a_bound(where: Where, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("narthex.store.ledger.MOST_RUNS", 3)
    ledger = Ledger(where)
    for number in range(10):
        ledger.add(Spent(NOW, ADA, "USD", 1, run=f"r-{number}"))
    ledger.close()
    runs = {one.run: one.calls for one in read_costs(where, 0, NOW // HOUR + 1)}
    assert runs == {"r-0": 1, "r-1": 1, "r-2": 1, "others": 7}


def test_old_hours_become_days_and_old_days_go_and_no_sum_changes(where: Where) -> None:
    day = 24 * HOUR
    ledger = Ledger(where, kept=CostsKept(hours=48, days=10))
    first = NOW // day * day
    for hour in range(24 * 4):
        ledger.add(Spent(first + hour * HOUR, ADA if hour % 2 else BOB, "USD", hour, run=f"r-{hour % 5}"))
    ledger.add(Spent(first - 20 * day, ADA, "USD", 1_000_000))
    ledger.close()
    for _ in range(6):  # a day with each group
        ledger = Ledger(where, kept=CostsKept(hours=48, days=10))
        ledger.add(Spent(first + 95 * HOUR, ADA, "USD", 0, calls=0))
        ledger.close()
    costs = read_costs(where, 0, first // HOUR + 1000)
    assert sum(one.amount for one in costs) == sum(range(96)) and sum(one.calls for one in costs) == 96
    old = [one for one in costs if one.hour < first // HOUR + 24]
    assert {(one.hour, one.subject, one.run, one.calls) for one in old} == {
        (first // HOUR, "ada", "", 12),
        (first // HOUR, "bob", "", 12),
    }
    assert len({one.hour for one in costs if one.hour >= first // HOUR + 48}) == 48, "what is not old stays by the hour"
