"""Four gateway processes that share their limits in a real Redis or Valkey, under load from 64 connections."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from narthex.store.shared.link import LIVED_S
from narthex.testing import FakeServer
from tests.conftest import StartGateway, missing
from tests.counterparts import keeper
from tests.counterparts.keeper import Keeper
from tests.e2e.harness import Gateway, wait_for
from tests.e2e.test_kept import TOOLS, command, records

pytestmark = pytest.mark.e2e
GATEWAYS, CONNECTIONS, CALLS = 4, 64, 12
ECHO: dict[str, Any] = {"name": "one__echo", "arguments": {}}
RATE, BURST, HOURLY, AT_A_TIME = 60, 40, 300, 7


@pytest.fixture(scope="module", params=keeper.KINDS)
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keeper]:
    if keeper.program(request.param) is None:
        missing(request.param, keeper.INSTALLED_BY[request.param])
    with keeper.serving(request.param, tmp_path_factory.mktemp("keeper")) as one:
        yield one


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer(tools=TOOLS) as started:
        yield started


def config(shared: Keeper, server: str, limits: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    where = {"url": shared.url, "timeout": "10s", **more}
    servers = {"one": {"url": server}}
    return {"version": 1, "servers": servers, "shared": where, "limits": limits, "audit": {"dir": "audit"}}


def load(gateways: list[Gateway], calls: int) -> tuple[Counter[str], float]:
    """What became of so many calls on each connection, and how long it took."""
    found: Counter[str] = Counter()
    lock = threading.Lock()

    def caller(gateway: Gateway) -> None:
        client, mine = gateway.client(), Counter[str]()
        for _ in range(calls):
            answer = client.ask("tools/call", ECHO)
            mine["granted" if "result" in answer else str(answer["error"]["data"].get("limit"))] += 1
        with lock:
            found.update(mine)

    threads = [threading.Thread(target=caller, args=(gateways[at % len(gateways)],)) for at in range(CONNECTIONS)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found, time.monotonic() - began


def used(gateway: Gateway) -> dict[str, int]:
    shown = json.loads(command(gateway, "limits", "--json", "--admin", gateway.admin))["limits"]
    return {one["limit"]: one["used"] for one in shown}


def test_never_more_than_burst_and_rate_over_all_gateways(
    start_gateway: StartGateway, server: FakeServer, shared: Keeper
) -> None:
    limits = [
        {"name": "rate", "calls": RATE, "window": "1s", "algorithm": "bucket", "burst": BURST},
        {"name": "hourly", "calls": HOURLY, "window": "1h"},
        {"name": "at a time", "concurrent": AT_A_TIME},
    ]
    gateways = [start_gateway(config(shared, server.url, limits, prefix="load")) for _ in range(GATEWAYS)]
    found, took = load(gateways, CALLS)
    assert sum(found.values()) == CONNECTIONS * CALLS
    assert set(found) <= {"granted", "rate", "hourly", "at a time"}
    assert 0 < found["granted"] <= min(HOURLY, BURST + RATE * took)
    assert len(server.requests("tools/call")) == found["granted"]
    wait_for(lambda: used(gateways[0])["at a time"] == 0, "everything was given back")
    assert {used(one)["hourly"] for one in gateways} == {found["granted"]}


def test_a_server_that_forgot_everything_is_told_what_lasts_of_every_ledger(
    start_gateway: StartGateway, server: FakeServer, shared: Keeper
) -> None:
    limits = [{"name": "month", "calls": 12, "window": "calendar month"}]
    gateways = [start_gateway(config(shared, server.url, limits, prefix="flush")) for _ in range(2)]
    started = time.monotonic()
    for gateway in gateways:
        for _ in range(5):
            gateway.client().call("one__echo")
    assert used(gateways[0]) == {"month": 10}
    wait_for(lambda: time.monotonic() > started + LIVED_S, "connections that are tried again at once")
    client = shared.client()
    client("FLUSHALL")
    client.close()
    granted = sum("result" in gateways[at % 2].client().ask("tools/call", ECHO) for at in range(6))
    assert granted == 2
    assert [used(gateway)["month"] for gateway in gateways] == [12, 12]


@pytest.mark.parametrize(("policy", "granted", "limits"), [("local_share", 3, "local_share"), ("allow", 8, "allow")])
def test_while_the_server_is_away_the_setting_decides_and_the_record_says_so(
    start_gateway: StartGateway, server: FakeServer, shared: Keeper, policy: str, granted: int, limits: str
) -> None:
    rules = [{"name": "calls", "calls": 6, "window": "1h"}]
    where = {"url": "valkey://127.0.0.1:1", "when_down": policy, "processes": 2}
    gateway = start_gateway(config(shared, server.url, rules, **where))
    assert sum("result" in gateway.client().ask("tools/call", ECHO) for _ in range(8)) == granted
    ready = json.loads(gateway.ready().body)
    assert ready["status"] == "degraded" and ready["shared_problem"]
    wait_for(lambda: len(records(gateway)) == 8, "the records")
    assert {one.get("limits") for one in records(gateway) if one["outcome"] == "ok"} == {limits}
    gateway.stop()  # what it logged is there as a whole
    told = [line for line in gateway.lines if "shared counters are away" in line]
    assert len(told) == 1 and policy.replace("_", " ") in told[0]


def test_where_nobody_counts_and_refuse_is_set_nothing_is_sent(
    start_gateway: StartGateway, server: FakeServer, shared: Keeper
) -> None:
    rules = [{"name": "calls", "calls": 6, "window": "1h"}]
    gateway = start_gateway(config(shared, server.url, rules, url="valkey://127.0.0.1:1", when_down="refuse"))
    error = gateway.client().ask("tools/call", ECHO)["error"]
    assert (error["code"], error["data"]["reason"]) == (-31009, "limits_unavailable")
    assert not server.requests("tools/call")
