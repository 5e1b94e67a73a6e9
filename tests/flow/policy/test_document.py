"""The input document: its members are a contract with whoever writes policies."""

from __future__ import annotations

import json
from typing import Any

import pytest

from narthex.flow.policy.document import Document
from narthex.flow.policy.site import Site
from narthex.types import LOCAL, Call, DataSpec, Principal, Session

NOW = 1_800_000_000.25
ANN = Principal(
    "acme", "https://sso", "ann", "helpdesk-bot", ("support",), ("staff",), frozenset({"b", "a"}), "human", ("bot",),
    "jwt", NOW - 90,
)  # fmt: skip


def call(method: str = "tools/call", principal: Principal = ANN) -> Call:
    session = Session("s1", "2025-11-25", 0)
    return Call(method, {}, {}, b"1", "legacy", "2025-11-25", principal, "support", "x", session)


def test_a_call_is_told_in_version_1() -> None:
    site = Site("production", DataSpec({"crm": ("confidential", "personal")}))
    run = {"labels": ["untrusted"], "calls": {"web__get": 2}}
    made = Document(ANN, "support", "tools", "crm", "refund", NOW, call(), {"amount": 5}, 12, "10.0.0.9", site, run)
    assert made.input() == {
        "v": 1,
        "action": "tools/call",
        "phase": "request",
        "subject": {
            "id": "ann",
            "issuer": "https://sso",
            "type": "user",
            "groups": ["staff"],
            "roles": ["support"],
            "scopes": ["a", "b"],
            "actor": {"client_id": "helpdesk-bot", "chain": ["bot"]},
            "auth": {"method": "oauth", "at": 1_799_999_910, "age_s": 90},
        },
        "resource": {
            "kind": "tool",
            "server": "crm",
            "name": "crm__refund",
            "upstream_name": "refund",
            "classification": "confidential",
            "privacy": "personal",
        },
        "mcp": {
            "version": "2025-11-25",
            "method": "tools/call",
            "session": "s1",
            "arguments": {"amount": 5},
            "arguments_size": 12,
        },
        "run": {"labels": ["untrusted"], "calls": {"web__get": 2}},
        "context": {
            "time": "2027-01-15T08:00:00.250Z",
            "endpoint": "support",
            "tenant": "acme",
            "env": "production",
            "ip": "10.0.0.9",
        },
    }


def test_visibility_is_asked_without_anything_of_a_call() -> None:
    made = Document(ANN, "support", "prompts", "crm", "hello", NOW, run={"labels": ["x"], "calls": {"a": 1}}).input()
    assert made["run"] == {"labels": [], "calls": {}}
    assert (made["action"], made["phase"], made["mcp"]) == ("list", "list", {"method": "prompts/list"})
    assert set(made["context"]) == {"time", "endpoint", "tenant", "env"}


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ("api_key", "key"),
        ("jwt", "oauth"),
        ("introspection", "oauth"),
        ("mtls", "mtls"),
        ("xfcc", "mtls"),
        ("workload", "workload"),
        ("anonymous", "anonymous"),
        ("none", "none"),
    ],
)
def test_how_the_caller_was_proved(method: Any, said: str) -> None:
    principal = Principal("t", "i", "s", method=method)
    assert Document(principal, "e", "tools", "a", "b", NOW).input()["subject"]["auth"]["method"] == said


def test_who_never_proved_anything_has_no_age() -> None:
    assert Document(LOCAL, "e", "tools", "a", "b", NOW).input()["subject"]["auth"]["age_s"] is None


def test_it_is_json() -> None:
    made = Document(ANN, "e", "resources", "s", "file:///ü", NOW, call("resources/read"))
    assert json.loads(json.dumps(made.input())) == made.input()
