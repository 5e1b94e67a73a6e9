"""Held calls at the admin side: who may see and decide them, what is shown, and who is recorded."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from msgspec.structs import replace

from narthex.flow.codec.jsonrpc import Raw
from narthex.store.memory import MemoryStore
from narthex.types import ApprovalSpec, Principal
from tests.authority.test_approvals import ANN, CALL

from .gateway import ADMIN, BOSS, TOKEN, Gateway, ask

BY_TOKEN, BY_ROLE = {"Authorization": f"Bearer {TOKEN}"}, {"Authorization": f"Bearer {ADMIN}"}
PATH = "/api/v1/approvals"


def with_call(principal: Principal = ANN, **more: Any) -> Gateway:
    """A gateway at which one call, `a1`, waits."""
    gateway = Gateway()

    async def fill() -> None:
        await gateway.approvals.take(MemoryStore(), ApprovalSpec())
        await gateway.approvals.ask(replace(CALL, principal=principal, **more))

    asyncio.run(fill())
    return gateway


def state(gateway: Gateway) -> str:
    return str(ask(gateway, "GET", f"{PATH}/a1", BY_TOKEN)[1]["state"])


def test_a_call_that_waits_is_shown_whole() -> None:
    status, document = ask(with_call(), "GET", PATH, BY_TOKEN)
    (shown,) = document["approvals"]
    assert status == 200
    assert (shown["id"], shown["state"], shown["name"], shown["rule"]) == (
        "a1", "pending", "billing__refund", "large refunds",
    )  # fmt: skip
    assert shown["params"] == {"arguments": {"amount": 500, "note": "PLANTED"}}
    assert (shown["principal"]["subject"], shown["ends_at"]) == ("ann", 1060)


@pytest.mark.parametrize("headers", [None, {"Authorization": "Bearer wrong"}], ids=["no token", "a wrong one"])
@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", PATH), ("GET", f"{PATH}/a1"), ("POST", f"{PATH}/a1/approve"), ("POST", f"{PATH}/a1/deny")],
)
def test_nobody_else_sees_or_decides_anything(method: str, path: str, headers: Any) -> None:
    gateway = with_call()
    status, document = ask(gateway, method, path, headers)
    assert status == 401
    assert "PLANTED" not in json.dumps(document)
    assert state(gateway) == "pending"


@pytest.mark.parametrize(
    "path", ["/api/v1//approvals", "/api/v1/approvals/", "/api/v1/%61pprovals", "/api/v1/approvals//a1"]
)
def test_no_other_spelling_of_the_way_is_open(path: str) -> None:
    status, document = ask(with_call(), "GET", path)
    assert status in (401, 404)
    assert "PLANTED" not in json.dumps(document)


@pytest.mark.parametrize(
    ("headers", "by"),
    [
        pytest.param(BY_TOKEN, "the admin token", id="by the token"),
        pytest.param(BY_ROLE, f"{BOSS.subject} of {BOSS.issuer}", id="by the role"),
    ],
)
@pytest.mark.parametrize(("word", "then"), [("approve", "approved"), ("deny", "denied")])
def test_who_decided_is_recorded(headers: Any, by: str, word: str, then: str) -> None:
    gateway = with_call()
    status, document = ask(gateway, "POST", f"{PATH}/a1/{word}", headers)
    assert (status, document["state"], document[f"{then}_by"]) == (200, then, by)
    assert state(gateway) == then


def test_nobody_approves_a_call_of_their_own() -> None:
    gateway = with_call(BOSS)
    status, document = ask(gateway, "POST", f"{PATH}/a1/approve", BY_ROLE)
    assert (status, document["error"]) == (403, "own_call")
    assert state(gateway) == "pending"
    assert ask(gateway, "POST", f"{PATH}/a1/deny", BY_ROLE)[0] == 200


def test_another_tenants_calls_are_not_there() -> None:
    gateway = with_call(replace(ANN, tenant="acme"))
    assert ask(gateway, "GET", PATH, BY_ROLE) == (200, {"approvals": []})
    for method, way in (("GET", ""), ("POST", "/approve"), ("POST", "/deny")):
        assert ask(gateway, method, f"{PATH}/a1{way}", BY_ROLE)[0] == 404
    assert state(gateway) == "pending"
    assert len(ask(gateway, "GET", PATH, BY_TOKEN)[1]["approvals"]) == 1, "who has the token decides for all"


def test_what_is_over_is_a_conflict_and_what_is_unknown_is_not_found() -> None:
    gateway = with_call()
    ask(gateway, "POST", f"{PATH}/a1/deny", BY_TOKEN)
    status, document = ask(gateway, "POST", f"{PATH}/a1/approve", BY_TOKEN)
    assert (status, document["error"]) == (409, "not_open") and "denied" in document["message"]
    assert ask(gateway, "POST", f"{PATH}/nobody/approve", BY_TOKEN)[0] == 404
    assert ask(gateway, "GET", f"{PATH}/nobody", BY_TOKEN)[0] == 404
    assert ask(gateway, "GET", f"{PATH}/a1/approve", BY_TOKEN)[0] == 405
    assert ask(gateway, "POST", f"{PATH}/a1/maybe", BY_TOKEN)[0] == 404


def test_a_list_has_what_is_open_or_all_of_it() -> None:
    gateway = with_call()
    ask(gateway, "POST", f"{PATH}/a1/deny", BY_TOKEN)
    assert ask(gateway, "GET", PATH, BY_TOKEN)[1] == {"approvals": []}
    (shown,) = ask(gateway, "GET", f"{PATH}?all=true", BY_TOKEN)[1]["approvals"]
    assert shown["state"] == "denied"


def test_a_list_shows_no_large_parameters_but_one_alone_does() -> None:
    gateway = with_call(params={"arguments": Raw(json.dumps({"x": "y" * 3000}).encode())})
    (shown,) = ask(gateway, "GET", PATH, BY_TOKEN)[1]["approvals"]
    assert shown["params"] is None and shown["size"] > 3000
    assert ask(gateway, "GET", f"{PATH}/a1", BY_TOKEN)[1]["params"]["arguments"]["x"] == "y" * 3000


def test_without_a_store_there_is_nothing_and_a_broken_one_is_said() -> None:
    gateway = Gateway()
    assert ask(gateway, "GET", PATH, BY_TOKEN) == (200, {"approvals": []})
    status, document = ask(gateway, "POST", f"{PATH}/a1/approve", BY_TOKEN)
    assert (status, document["error"]) == (503, "store_unavailable")
