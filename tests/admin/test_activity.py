"""What is going on is told to those who may know it, and never more than fits."""

from __future__ import annotations

import msgspec

from narthex.flow.codec.jsonrpc import Raw
from narthex.telemetry.accounts import OUTCOME
from narthex.types import LOCAL, Call
from tests.admin.gateway import ADMIN, Gateway
from tests.admin.test_server import ask


def called(gateway: Gateway, name: str, outcome: str = "ok", tenant: str = "default", times: int = 1) -> None:
    who = msgspec.structs.replace(LOCAL, tenant=tenant, client="helpdesk-bot")
    params = {"arguments": Raw(b'{"secret":"canary-argument"}')}
    call = Call("tools/call", params, {}, b"1", "modern", "2026-07-28", who, "default", name)
    for _ in range(times):
        gateway.behaviour.note(call, "web", name, OUTCOME[outcome], 0.25, 1.0, "", (20_000, "USD"))
        gateway.accounts.counter("default", "web", "tools/call", name, "modern").add(OUTCOME[outcome], 0.25, 1, 1, 0.2)


def test_who_calls_what() -> None:
    gateway = Gateway()
    called(gateway, "get", times=3)
    called(gateway, "get", "tool_error")
    called(gateway, "get", "approval_required")
    status, found = ask(gateway, "GET", "/api/v1/activity")
    assert status == 200
    (row,) = found["rows"]
    assert row == {
        "tenant": "default", "subject": "local", "client": "helpdesk-bot", "server": "web", "name": "get", "ok": 3,
        "failed": 1, "held": 1, "refused": 0, "seconds": 1.25, "runs": 1, "retries": 1, "repeats": 3, "loops": 3,
        "cost": [{"amount": "0.10", "currency": "USD"}],
    }  # fmt: skip
    totals = {"ok": 3, "failed": 1, "held": 1, "refused": 0, "runs": 1, "retries": 1, "repeats": 3, "loops": 3}
    assert found["totals"] == totals
    assert (found["started_at"], found["open_calls"], found["more"]) == (900.0, 3, False)
    assert sum(found["latency"]["call"]["counts"]) == sum(found["latency"]["gateway"]["counts"]) == 5
    assert [one["name"] for one in found["servers"]] == ["web", "local"]
    assert "canary" not in str(found)


def test_the_rows_with_the_most_calls_are_shown() -> None:
    gateway = Gateway()
    for times, name in enumerate("abc", 1):
        called(gateway, name, times=times)
    found = ask(gateway, "GET", "/api/v1/activity?most=2")[1]
    assert [row["name"] for row in found["rows"]] == ["c", "b"]
    assert found["more"]
    for most in ("0", "501", "x", "-1", "9" * 20):
        assert ask(gateway, "GET", f"/api/v1/activity?most={most}")[0] == 400


def test_tools_that_nobody_has_called() -> None:
    gateway = Gateway()
    called(gateway, "get")
    found = ask(gateway, "GET", "/api/v1/activity/unused")[1]
    assert found["servers"] == [
        {"server": "web", "listed": 2, "tools": ["put"]}, {"server": "local", "listed": 0, "tools": []},
    ]  # fmt: skip


def test_a_principal_hears_of_its_own_tenant() -> None:
    gateway = Gateway(admin_listen=("0.0.0.0", 0))
    called(gateway, "get")
    called(gateway, "theirs", tenant="acme")
    found = ask(gateway, "GET", "/api/v1/activity", {"Host": "localhost", "Authorization": f"Bearer {ADMIN}"})[1]
    assert [one["name"] for one in found["rows"]] == ["get"]
    assert found["totals"]["ok"] == 1
    assert found["latency"] == {}, "what others do shows in it"
