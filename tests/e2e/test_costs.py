"""Budgets and the ledger of a running gateway: what was spent stays spent when it is killed, and the sums agree."""

from __future__ import annotations

import json
import signal
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from narthex.flow.limit.money import parse_money
from narthex.store.ledger import read_costs, read_uses
from narthex.testing import FakeServer
from tests.conftest import StartGateway
from tests.e2e.harness import Gateway, json_lines, wait_for
from tests.e2e.test_kept import TOOLS, call, command

pytestmark = pytest.mark.e2e
PRICE = 10_000
BUDGET = 25


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer(tools=TOOLS) as started:
        yield started


def config(server: FakeServer) -> dict[str, object]:
    return {
        "version": 1,
        "servers": {"one": {"url": server.url}},
        "limits": [
            {"name": "spend", "per": ["subject"], "money": "0.25 USD", "window": "calendar month"},
            {"name": "lately", "money": "1.00 USD", "window": "1h"},
            {"name": "calls", "calls": 1000, "window": "1m"},
        ],
        "prices": [{"tools": ["one__*"], "per_call": "0.01 USD"}],
    }


def shown(gateway: Gateway, path: str) -> Any:
    with urllib.request.urlopen(f"{gateway.admin.rstrip('/')}/api/v1/{path}", timeout=60) as answer:
        return json.load(answer)


def counted(gateway: Gateway) -> dict[str, int]:
    return {one["limit"]: one["used"] for one in shown(gateway, "limits")["limits"]}


def spent_in(gateway: Gateway) -> int:
    return sum(one.amount for one in read_costs(store_of(gateway), 0, 1 << 40))


def again(gateway: Gateway) -> None:
    gateway.lines.clear()
    gateway.start()


def store_of(gateway: Gateway) -> Path:
    return gateway.folder / ".narthex" / "narthex.db"


def test_the_sum_of_the_ledger_is_what_limits_count_over_kills_and_restarts(
    start_gateway: StartGateway, server: FakeServer
) -> None:
    gateway = start_gateway(config(server))
    answered = 0
    for kill in (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM):
        for _ in range(5):
            assert "result" in call(gateway).answer
            answered += 1
        wait_for(lambda: spent_in(gateway), "the first group")
        if kill == signal.SIGKILL:  # in the middle of a group that is being written, perhaps
            gateway.kill()
        else:
            gateway.stop()
        spent, uses = spent_in(gateway), Counter[bytes]()
        for use in read_uses(store_of(gateway), 0):
            if use.counter:  # else the ledger's name, not a limit's
                uses[use.counter] += use.amount
        assert list(uses.values()) == [spent, spent], "both lasting limits have counted what the ledger has"
        assert spent <= answered * PRICE
        if kill == signal.SIGTERM:
            assert spent >= 5 * PRICE
        answered = spent // PRICE  # what a killed process could lose, it has lost for the budget and the books alike
        again(gateway)
        assert "result" in call(gateway).answer
        answered += 1
        assert counted(gateway) == {"spend": answered * PRICE, "lately": answered * PRICE, "calls": 1}
    left = BUDGET - answered
    for _ in range(left):
        assert "result" in call(gateway).answer
    error = call(gateway).answer["error"]
    assert (error["code"], error["data"]["limit"]) == (-31003, "spend")
    assert error["data"]["retryAfterSeconds"] > 0
    gateway.stop()
    document = json.loads(command(gateway, "cost", "--json"))
    assert document["total"] == [{"amount": "0.25", "currency": "USD"}]
    assert sum(row["calls"] for row in document["rows"]) == BUDGET
    assert sum(parse_money(f"{row['amount']} USD")[0] for row in document["rows"]) == BUDGET * PRICE
    assert {(row["subject"], row["server"], row["name"]) for row in document["rows"]} == {("local", "one", "echo")}


def test_who_spent_what_is_shown_while_it_runs(start_gateway: StartGateway, server: FakeServer) -> None:
    gateway = start_gateway(config(server))
    assert json.loads(command(gateway, "cost", "--json")) == {"total": [], "rows": []}
    call(gateway)
    path = "costs?by=name&by=server"
    wait_for(lambda: shown(gateway, path)["rows"], "the ledger")
    expected = {"name": "echo", "server": "one", "calls": 1, "amount": "0.01", "currency": "USD"}
    assert shown(gateway, path)["rows"] == [expected]
    for wrong in ("costs?by=color", "costs?days=0", "costs?days=x"):
        with pytest.raises(urllib.error.HTTPError, match="400"):
            shown(gateway, wrong)
    text = command(gateway, "cost", "--by", "subject")
    assert "local" in text and "Total: 0.01 USD" in text


def test_what_tokens_were_after_all_is_recorded_behind_the_call(
    start_gateway: StartGateway, server: FakeServer
) -> None:
    said = config(server) | {
        "limits": [{"name": "context", "tokens": 1_000_000, "window": "calendar day"}],
        "prices": [{"tools": ["one__*"], "per_million_tokens_out": "1000.00 USD"}],
        "tokens": {"tokenizer": "o200k"},
        "audit": {"dir": "audit"},
    }
    gateway = start_gateway(said)
    for _ in range(3):
        call(gateway)

    def recorded(event: str) -> list[dict[str, Any]]:
        found = json_lines(*sorted((gateway.folder / "audit").glob("calls-*")))
        return [one for one in found if one["event"] == event]

    wait_for(lambda: len(recorded("recount")) == 3, "the exact counts")
    calls, recounts = recorded("call"), recorded("recount")
    assert [one["call"] for one in recounts] == [one["id"] for one in calls]
    assert {one["tokens"]["counted"] for one in calls} == {"estimate"}
    for one in recounts:
        assert one["tokens"]["counted"] == "o200k" and one["seq"] > next(
            x["seq"] for x in calls if x["id"] == one["call"]
        )
        assert one["taken"]["context"] == one["tokens"]["in"] + one["tokens"]["out"]
    wait_for(lambda: spent_in(gateway) == sum(parse_money(one["cost"])[0] for one in recounts), "the books")
