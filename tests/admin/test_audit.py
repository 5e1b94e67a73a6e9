"""Records at the admin side: who may read them, of whom, and that reading is recorded."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import pytest

from narthex.telemetry.audit.exports.sink import State
from narthex.telemetry.audit.frames import Answer, Question
from narthex.telemetry.audit.keeper import Away
from narthex.types import Grant, Who

from .gateway import ADMIN, TOKEN, WORKER, Gateway, ask

BY_TOKEN, BY_ROLE, BY_WORKER = ({"Authorization": f"Bearer {one}"} for one in (TOKEN, ADMIN, WORKER))
PATH = "/api/v1/audit"
RECORD = {"id": "r1", "event": "call", "tenant": "default", "input": {"mcp": {"arguments": {"note": "PLANTED"}}}}


class Keeper:
    """Answers what a test says, and keeps what it was asked."""

    def __init__(self, answer: Answer | None) -> None:
        self.answer, self.asked = answer, []
        self.exports = [State("siem", 7, problem="refused")]
        self.problem = ""

    async def ask(self, question: Question) -> Answer:
        self.asked.append(question)
        if self.answer is None:
            raise Away("it is not there")
        return self.answer


def with_records(answer: Answer | None = None, *, away: bool = False, **changes: Any) -> tuple[Gateway, Keeper]:
    gateway = Gateway(**changes)
    keeper = Keeper(None if away else answer or Answer([RECORD], "c1", 2))
    gateway.keeping.keeper = keeper  # type: ignore[assignment]
    return gateway, keeper


def query(**asked: Any) -> str:
    return f"{PATH}?{urlencode(asked, doseq=True)}"


def test_a_page_of_records() -> None:
    gateway, keeper = with_records()
    path = query(principal="ada", tool=["git__*", "time__*"], since="2026-11", text="x", limit=7, cursor="c0")
    assert ask(gateway, "GET", path, BY_TOKEN) == (200, {"records": [RECORD], "next": "c1", "unread": 2})
    (asked,) = keeper.asked
    assert (asked.limit, asked.cursor, asked.wanted.principal, asked.wanted.text) == (7, "c0", "ada", "x")
    assert (asked.wanted.tools, asked.wanted.since) == (("git__*", "time__*"), "2026-11-01T00:00:00.000000Z")


@pytest.mark.parametrize("headers", [None, {"Authorization": "Bearer wrong"}, BY_WORKER])
def test_nobody_else_reads_anything(headers: Any) -> None:
    gateway, keeper = with_records()
    status, document = ask(gateway, "GET", PATH, headers)
    assert status in (401, 403) and "PLANTED" not in str(document) and keeper.asked == []


def auditors(*actions: str) -> dict[str, Any]:
    grant = Grant(
        "auditors", "allow", Who(role=("support",)), admin=actions, tools=tuple(f"admin__{one}" for one in actions)
    )
    return {"admin_grants": (grant,)}


def test_an_auditor_sees_what_calls_have_said_and_others_do_not() -> None:
    for actions, whole in ((("audit.read",), False), (("audit.read", "payloads.read"), True)):
        gateway, keeper = with_records(**auditors(*actions))
        status, document = ask(gateway, "GET", PATH, BY_WORKER)
        assert status == 200 and ("PLANTED" in str(document)) is whole
        assert keeper.asked[0].wanted.tenant == "default"
    assert "PLANTED" in str(ask(with_records()[0], "GET", PATH, BY_ROLE)[1])


def test_who_reads_is_recorded() -> None:
    gateway, _ = with_records(**auditors("audit.read"))
    ask(gateway, "GET", f"{PATH}?server=github", BY_WORKER)
    ask(gateway, "GET", PATH, BY_TOKEN)
    ask(gateway, "GET", "/api/v1/limits", BY_TOKEN)
    assert [(one["method"], one["principal"]["subject"]) for one in gateway.recorded] == [
        ("audit.read", "worker"), ("audit.read", "admin.token"),
    ]  # fmt: skip
    assert (gateway.recorded[0]["query"], gateway.recorded[0]["did"]) == ("server=github", {"records": 1})


def test_a_principal_hears_of_no_other_tenant() -> None:
    gateway, keeper = with_records()
    assert ask(gateway, "GET", query(tenant="other"), BY_ROLE)[0] == 403
    assert ask(gateway, "GET", query(tenant="other"), BY_TOKEN)[0] == 200
    assert [one.wanted.tenant for one in keeper.asked] == ["other"]


@pytest.mark.parametrize(
    "path",
    [
        query(who="ada"), query(since="yesterday"), query(limit="0"), query(limit="501"), query(limit="x"),
        query(limit="000000001999999999"), query(limit="0" * 5000 + "1"),
        query(tools="x"),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_is_no_empty_answer(path: str) -> None:
    gateway, keeper = with_records()
    assert ask(gateway, "GET", path, BY_TOKEN)[0] == 400 and keeper.asked == []


def test_what_is_wrong_is_said() -> None:
    assert ask(with_records(away=True)[0], "GET", PATH, BY_TOKEN)[0] == 503
    assert ask(Gateway(), "GET", PATH, BY_TOKEN)[0] == 409
    refused = with_records(Answer(error="the cursor is of another question", refused=True))[0]
    assert ask(refused, "GET", PATH, BY_TOKEN)[0] == 400
    status, document = ask(with_records(Answer(error="/secret/path: damaged"))[0], "GET", PATH, BY_TOKEN)
    assert status == 503 and "/secret" not in str(document)


def test_how_it_goes_with_what_is_sent_elsewhere() -> None:
    gateway, _ = with_records()
    (one,) = ask(gateway, "GET", "/api/v1/exports", BY_TOKEN)[1]["exports"]
    assert (one["name"], one["sent"], one["problem"]) == ("siem", 7, "refused")
    status, document = ask(gateway, "GET", "/readyz")
    assert (status, document["status"], document["records"]) == (200, "degraded", "waiting for siem")
