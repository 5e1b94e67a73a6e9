"""Gateways that share a PostgreSQL: keys, secrets and costs of all are those of each, and the server may go away."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from narthex.store.ledger import read_costs
from narthex.store.postgres.database import Postgres
from narthex.testing import FakeServer
from tests.conftest import StartGateway
from tests.counterparts.postgres import Cluster
from tests.e2e.harness import Gateway, wait_for
from tests.e2e.test_kept import TOOLS, becomes, call, command

pytestmark = pytest.mark.e2e
PASSWORD = "PLANTED-password"


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer(tools=TOOLS) as started:
        yield started


def config(cluster: Cluster, server: FakeServer) -> dict[str, Any]:
    return {
        "version": 1,
        "servers": {"one": {"url": server.url}},
        "identity": {"api_keys": True},
        "secrets": {"db": "env:DB_PASSWORD"},
        "store": {"url": f"postgresql:///narthex?host={cluster.folder}", "password": "${secret:db}"},
        "prices": [{"tools": ["one__*"], "per_call": "0.01 USD"}],
        "audit": {"dir": "audit"},
    }


def test_two_gateways_are_of_one_mind_and_outlive_their_server(
    start_gateway: StartGateway, server: FakeServer, cluster: Cluster
) -> None:
    cluster.start()
    Postgres(cluster.spec).migrate()
    one, two = (start_gateway(config(cluster, server), env={"DB_PASSWORD": PASSWORD}) for _ in range(2))
    key = json.loads(command(one, "keys", "create", "ci", "--json"))["key"]
    for gateway in (one, two):
        becomes(gateway, key, 200)
    before = called(server)
    # Each has the records of its own journal in its index, and no others; they are written a little after the answers.
    wait_for(lambda: sum(counts := [found(one), found(two)]) == before and all(counts), "all records to be found")

    cluster.kill()
    for gateway in (one, two):
        wait_for(lambda gateway=gateway: gateway.ready().status == 503, "the store to be missed")
        assert gateway.ready().json["status"] == "store_unavailable"
        assert call(gateway, key).status == 200, "what is known goes on"
    cluster.start()
    for gateway in (one, two):
        wait_for(lambda gateway=gateway: gateway.ready().status == 200, "the store to be back")
    command(two, "keys", "revoke", "ci")
    for gateway in (one, two):
        becomes(gateway, key, 401)
        gateway.stop()
        assert PASSWORD not in gateway.log() and "the store can be used again" in gateway.log()
    costs = read_costs(cluster.spec, 0, 1 << 40)
    assert sum(one.amount for one in costs) == 10_000 * called(server) > 10_000 * before


def found(gateway: Gateway) -> int:
    """How many calls `narthex audit search` finds, by the index."""
    said = command(gateway, "audit", "search", "--event", "call", "--outcome", "ok", "--json")
    return int(json.loads(said)["found"])


def called(server: FakeServer) -> int:
    return len(server.requests("tools/call"))


def test_a_gateway_without_its_tables_says_what_to_do(server: FakeServer, cluster: Cluster, tmp_path: Path) -> None:
    cluster.start()
    gateway = Gateway(config(cluster, server), tmp_path, env={"DB_PASSWORD": PASSWORD})
    with pytest.raises(AssertionError):
        gateway.start()
    wait_for(lambda: "run `narthex migrate`" in gateway.log(), "the way out")
    assert PASSWORD not in gateway.log()
