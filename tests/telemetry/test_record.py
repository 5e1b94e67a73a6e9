"""The record of a call: every member that an auditor asks for, nothing that the call said."""

from __future__ import annotations

import json
import uuid
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from narthex.errors import Denied
from narthex.flow.codec.jsonrpc import Raw
from narthex.flow.limit.spending import Taken
from narthex.flow.policy.admission import Admission
from narthex.flow.policy.check import Check
from narthex.flow.policy.decision import Decision
from narthex.flow.policy.engines.obligations import Obligation
from narthex.flow.policy.grants import Grants
from narthex.flow.route.target import Target
from narthex.flow.upstream.port import Dialect
from narthex.telemetry.accounts import OUTCOME, OUTCOMES
from narthex.telemetry.record import MOST_RULES, Entry, line_of, line_of_lost
from narthex.telemetry.stamps import Ids, id_of, stamp
from narthex.types import LOCAL, Grant, LimitRule, Principal

ID = "01890a5d-ac96-774b-bcce-b302099a8057"
WHO = Principal(
    "acme",
    "https://sso.example.com",
    "u-17",
    "helpdesk-bot",
    ("support",),
    kind="human",
    actors=("agent-2", "agent-1"),
    method="jwt",
    authenticated_at=1_700_000_000.0,
)
ENTRY = Entry(
    principal=WHO,
    source="10.0.0.7",
    session="s1",
    endpoint="default",
    server="github",
    method="tools/call",
    name="search",
    request=b'"r-1"',
    version="2026-07-28",
    outcome=OUTCOME["ok"],
    reason="",
    code=0,
    decision_id="",
    account="github-pat tools:read",
    bytes_in=210,
    bytes_out=512,
    seconds=0.0123456789,
    config="c0ffee",
    at=1_700_000_000.25,
)


def read(entry: Entry) -> dict[str, Any]:
    line = line_of(entry, ID)
    assert b"\n" not in line
    return json.loads(line)


def test_a_call_with_everything_that_is_known_of_it() -> None:
    dialect = Dialect("legacy", "2025-11-25", server_info={"version": "1.2.3"}, session_id="their own")
    more = {
        "server_seconds": 0.01, "admission_seconds": 0.0000314, "answer_seconds": 0.0003456789, "upstream_status": 200,
        "definition": b"\1" * 32, "dialect": dialect, "taken": Taken(LIMITS, (1, 12_000)), "cost": (12_000, "USD"),
        "tokens": (12, 345, "estimate"),
    }  # fmt: skip
    assert read(replace(ENTRY, **more)) == {
        "v": 1,
        "id": ID,
        "time": "2023-11-14T22:13:20.250000Z",
        "event": "call",
        "tenant": "acme",
        "principal": {
            "issuer": "https://sso.example.com",
            "subject": "u-17",
            "proof": "jwt",
            "client": "helpdesk-bot",
            "kind": "human",
            "actors": ["agent-2", "agent-1"],
            "roles": ["support"],
            "authenticated": "2023-11-14T22:13:20.000000Z",
        },
        "endpoint": "default",
        "method": "tools/call",
        "outcome": "ok",
        "decision": "allow",
        "bytes_in": 210,
        "bytes_out": 512,
        "seconds": 0.012346,
        "server_seconds": 0.01,
        "latency": {"admission": 0.000031, "upstream": 0.01, "answer": 0.000346},
        "definition_digest": "sha256:" + "01" * 32,
        "upstream": {"protocol": "2025-11-25", "status": 200, "session": "1c3d8fc2aa6620c3", "version": "1.2.3"},
        "taken": {"calls": 1, "spend": "0.012 USD"},
        "tokens": {"in": 12, "out": 345, "counted": "estimate"},
        "cost": "0.012 USD",
        "config": "c0ffee",
        "gateway": read(ENTRY)["gateway"],
        "server": "github",
        "name": "search",
        "credential": "github-pat",
        "source": "10.0.0.7",
        "session": "s1",
        "request": '"r-1"',
        "version": "2026-07-28",
    }


LIMITS = (LimitRule("calls", "calls", 60), LimitRule("spend", "money", 5_000_000, currency="USD"))


@pytest.mark.parametrize(
    ("more", "counts_in"),
    [
        pytest.param({"taken": Taken(LIMITS, (1, 12_000))}, None, id="it took something of each"),
        pytest.param({"taken": Taken(LIMITS, (1, 0))}, ["calls", "spend"], id="it took nothing of one"),
        pytest.param({"taken": Taken((LIMITS[0],) * 2, (1, 1))}, None, id="two places of one limit"),
        pytest.param({"asked": LIMITS, "limit": "spend"}, ["calls", "spend"], id="one of them refused it"),
        pytest.param({}, None, id="it counts in none"),
    ],
)
def test_all_limits_that_it_counts_in(more: dict[str, Any], counts_in: list[str] | None) -> None:
    assert read(replace(ENTRY, **more)).get("counts_in") == counts_in


def decided(*grants: Grant, decision: Decision | None = None) -> Check:
    """What was decided of a call, by these and by an engine."""
    check = Check(Admission(WHO, "default", Grants(grants).rights(WHO, "default", 0.0), None))
    with suppress(Denied):
        check.admit("tools", Target("github", "search", b""), {"arguments": Raw(b'{"n":1}')})
    check.decision = decision or check.decision
    return check


def test_every_rule_where_there_are_more_than_the_one_that_decided() -> None:
    first, second = (Grant(name, "allow", tools=("*",), when="args.n > 1", line=3) for name in ("first", "second"))
    found = read(replace(ENTRY, check=decided(first, second)))["policy"]
    assert (found["rule"], [one["rule"] for one in found["rules"]]) == ("second", ["first", "second"])
    alone = read(replace(ENTRY, check=decided(first)))["policy"]
    assert (alone["rule"], alone["reason"]) == ("first", "condition_not_met") and "rules" not in alone


def test_of_very_many_rules_it_says_how_many_there_are() -> None:
    many = [Grant(str(number), "allow", tools=("*",), line=number) for number in range(MOST_RULES + 7)]
    found = read(replace(ENTRY, check=decided(*many)))["policy"]
    assert (len(found["rules"]), found["more_rules"]) == (MOST_RULES, 7)


def test_what_a_policy_demanded() -> None:
    duties = (Obligation("redact", ("/a",)), Obligation("rewrite", {"key": "planted"}))
    said = Decision("allow", "allowed_by_policy", obligations=duties, engine="rego", bundle="r1")
    found = read(replace(ENTRY, check=decided(decision=said)))["policy"]
    assert found["obligations"] == ["redact", "rewrite"]
    assert found["duties"] == {"redact": ["/a"], "rewrite": ["/key"]}


def test_what_has_no_value_is_left_out() -> None:
    plain = replace(
        ENTRY, principal=LOCAL, server="", name="", account="", source="", session="", version="", request=b""
    )
    found = read(plain)
    assert not found.keys() & {"server", "name", "credential", "source", "session", "request", "reason", "code"}
    assert found["principal"] == {"issuer": "narthex", "subject": "local", "proof": "none", "kind": "service"}


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_a_decision_stands_in_every_record(outcome: str) -> None:
    refused = replace(ENTRY, outcome=OUTCOME[outcome], reason=outcome, code=-31005, decision_id="d-1")
    found = read(refused)
    assert (found["outcome"], found["reason"], found["code"], found["decision_id"]) == (outcome, outcome, -31005, "d-1")
    allowed = {"ok", "tool_error", "rpc_error", "cancelled", "upstream_unavailable", "upstream_timeout"}
    decisions = {"approval_required": "hold", **dict.fromkeys(allowed, "allow")}
    assert found["decision"] == decisions.get(outcome, "deny")


@pytest.mark.parametrize(
    ("account", "credential"),
    [
        pytest.param("", None, id="none"),
        pytest.param("?", None, id="no row fits"),
        pytest.param("pat", "pat", id="a credential"),
        pytest.param("exchange a b", "exchange", id="made of the caller's token: its scopes are not the name"),
    ],
)
def test_the_credential_by_its_name(account: str, credential: str | None) -> None:
    assert read(replace(ENTRY, account=account)).get("credential") == credential


@pytest.mark.parametrize(
    ("change", "latency"),
    [
        pytest.param({}, {"admission": 0.0}, id="nobody took the time"),
        pytest.param(
            {"admission_seconds": 0.002, "waits": {"approval": 0.009}},
            {"admission": 0.002, "approval": 0.009},
            id="it waited, and was not sent",
        ),
        pytest.param(
            {"admission_seconds": 0.001, "server_seconds": 0.01, "answer_seconds": 0.0003,
             "waits": {"limits": 0.002, "client": 0.004}},
            {"admission": 0.001, "limits": 0.002, "client": 0.004, "upstream": 0.005, "answer": 0.0003},
            id="it waited before and behind: the rest was the server's",
        ),
        pytest.param({"event": "begin", "outcome": 0}, None, id="it has only begun"),
        pytest.param({"event": "refused"}, None, id="it never was a call"),
    ],
)  # fmt: skip
def test_where_the_time_went(change: dict[str, Any], latency: dict[str, float] | None) -> None:
    assert read(replace(ENTRY, **{"seconds": 0.0123, **change})).get("latency") == latency


def test_of_limits_that_took_nothing_nothing_is_said() -> None:
    rules = (LimitRule("calls", "calls", 60), LimitRule("spend", "money", 5, currency="USD"))
    assert read(replace(ENTRY, taken=Taken(rules, (1, 0))))["taken"] == {"calls": 1}
    assert "taken" not in read(replace(ENTRY, taken=Taken(rules, (0, 0))))


@pytest.mark.parametrize(
    ("version", "said"),
    [
        pytest.param("1.2.3", "1.2.3", id="a version"),
        pytest.param("v2026.11.27-rc.1+build7", "v2026.11.27-rc.1+build7", id="a longer one"),
        pytest.param("ghp_16C7e42F292c6912E7710c838347Ae178B4a", None, id="what may be a secret"),
        pytest.param("1" * 40, None, id="too long"),
        pytest.param(7, None, id="no text"),
    ],
)
def test_what_a_server_says_of_its_version(version: Any, said: str | None) -> None:
    dialect = Dialect("legacy", "2025-11-25", server_info={"version": version})
    found = read(replace(ENTRY, dialect=dialect, upstream_status=0))["upstream"]
    assert found == {"protocol": "2025-11-25", **({"version": said} if said else {})}


def test_a_text_of_a_client_is_bounded() -> None:
    found = read(replace(ENTRY, method="m" * 10_000, request=b"9" * 10_000))
    assert len(found["method"]) == 256 and "request" not in found


@given(st.text(st.characters(exclude_categories=["Cs"])), st.binary(max_size=200))
def test_any_text_is_one_line(text: str, request: bytes) -> None:
    found = read(replace(ENTRY, method=text[:256], name=text, request=request, source=text))
    assert (found.get("name", ""), found["method"]) == (text, text[:256])


@given(
    st.integers(0, 2**48 - 2),
    st.integers(0, 4094),
    st.binary(min_size=8, max_size=8),
    st.binary(min_size=8, max_size=8),
)
def test_ids_are_uuids_of_version_7_in_order_of_time(at_ms: int, number: int, one: bytes, two: bytes) -> None:
    first, second = id_of(at_ms, number, one), id_of(at_ms, number + 1, two)
    later = id_of(at_ms + 1, 0, one)
    assert first < second < later
    found = uuid.UUID(first)
    assert (found.version, found.variant) == (7, uuid.RFC_4122)
    assert found.int >> 80 == at_ms


def test_what_is_lost_is_counted_in_a_line() -> None:
    assert json.loads(line_of_lost(3, 1_700_000_000.0, ID)) == {
        "v": 1, "id": ID, "time": "2023-11-14T22:13:20.000000Z", "event": "lost", "count": 3,
    }  # fmt: skip


@given(st.floats(0, 4e9))
def test_stamps_sort_as_times_do(at: float) -> None:
    assert stamp(at) <= stamp(at + 0.01) and len(stamp(at)) == 27


@given(moments=st.lists(st.integers(0, 3), max_size=30), start=st.integers(0, 5000))
def test_ids_rise_whatever_the_clock_does(moments: list[int], start: int) -> None:
    ids = Ids(lambda count: b"\xff" * count)
    found = [ids.next(1_000.0) for _ in range(start)] + [ids.next(1_000.0 + moment / 1000) for moment in moments]
    assert found == sorted(set(found))
    assert all(uuid.UUID(one).version == 7 and uuid.UUID(one).variant == uuid.RFC_4122 for one in found[-30:])


def test_an_id_has_the_chance_that_it_was_given() -> None:
    chance = iter(range(64))
    ids = Ids(lambda count: bytes(byte for number in chance for byte in [0xC0 | number] * 8)[:count])
    assert [ids.next(1.5) for _ in range(3)] == [id_of(1500, number, bytes([0xC0 | number] * 8)) for number in range(3)]
