"""Which calls are equal. A key that two different calls had would give one the other's answer."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from narthex.flow.cache.plans import Plan, Plans
from narthex.flow.cache.requests import MOST_ARGUMENTS, Audiences, Wanted, canonical_arguments, wanted
from narthex.flow.codec.revisions import META_CAPABILITIES, META_CLIENT, META_LOG_LEVEL, META_VERSION
from narthex.types import LOCAL, CacheRule, CacheSpec, Call, ClearRule, Principal

RULE = CacheRule("r", 60.0, tools=("*",))
ADA = Principal("t", "iss", "ada", "agent", scopes=frozenset({"read"}), method="jwt")
CAPABILITIES = {META_CAPABILITIES: Raw(b"{}"), META_VERSION: Raw(b'"2026-07-28"')}


AUDIENCES = Audiences()


def plan(
    shared: bool = False, name: str = "get", listed: bytes = b"{}", server: str = "one", at: str = "default"
) -> Plan:
    rule = RULE if not shared else msgspec.structs.replace(RULE, shared=True)
    found = Plans(CacheSpec((rule,)), {}).of("tools", at, server, name, Raw(listed))
    assert found is not None
    return found


def asked(
    arguments: bytes | None = b'{"a":1}', *, who: Principal = ADA, scope: tuple[str, ...] | None = None,
    meta: dict[str, Any] | None = None, more: dict[str, Raw] | None = None, by: Plan | None = None,
    endpoint: str = "default", log_level: str = "",
) -> Wanted | None:  # fmt: skip
    given = {"name": Raw(b'"get"'), **({} if arguments is None else {"arguments": Raw(arguments)}), **(more or {})}
    seen = {**CAPABILITIES, **{key: Raw(json.dumps(value).encode()) for key, value in (meta or {}).items()}}
    call = Call("tools/call", given, seen, b"1", "modern", "2026-07-28", who, endpoint, "one__get", None, log_level)
    scope = scope or (who.tenant, "account", *who.key[1:])
    return wanted(by or plan(at=endpoint), call, given, scope, AUDIENCES)


def key(*args: Any, **settings: Any) -> Any:
    found = asked(*args, **settings)
    assert found is not None
    return found.key


SAME = key()


@pytest.mark.parametrize(
    ("settings", "same"),
    [
        pytest.param({}, True, id="the same call"),
        pytest.param({"arguments": b'{ "a" : 1 }'}, True, id="white space"),
        pytest.param({"arguments": b'{"\\u0061":1}'}, True, id="an escape"),
        pytest.param({"arguments": b'{"a":1.0}'}, False, id="a number written otherwise"),
        pytest.param({"arguments": b'{"a":"1"}'}, False, id="a text"),
        pytest.param({"arguments": b'{"a":true}'}, False, id="true is not 1"),
        pytest.param({"arguments": b'{"a":1,"b":null}'}, False, id="a null more"),
        pytest.param({"arguments": None}, False, id="no arguments"),
        pytest.param({"meta": {"progressToken": 9}}, True, id="who wants to hear of progress"),
        pytest.param(
            {"meta": {"traceparent": "00-1", META_CLIENT: {"name": "x"}}}, True, id="another trace and client"
        ),
        pytest.param({"meta": {META_CAPABILITIES: {"elicitation": {}}}}, False, id="a client that can be asked"),
        pytest.param({"who": Principal("t", "iss", "bob", "agent")}, False, id="another subject"),
        pytest.param({"who": Principal("t", "iss2", "ada", "agent")}, False, id="another issuer"),
        pytest.param({"who": Principal("t", "iss", "ada", "agent2")}, False, id="another agent"),
        pytest.param({"who": Principal("u", "iss", "ada", "agent")}, False, id="another tenant"),
        pytest.param({"who": msgspec.structs.replace(ADA, scopes=frozenset())}, False, id="a token with other scopes"),
        pytest.param({"who": msgspec.structs.replace(ADA, roles=("admin",))}, False, id="another role"),
        pytest.param({"who": msgspec.structs.replace(ADA, actors=("bot",))}, False, id="another actor"),
        pytest.param({"who": msgspec.structs.replace(ADA, expires_at=9.0)}, True, id="a renewed token"),
        pytest.param({"scope": ("t", "another account", *ADA.key[1:])}, False, id="another account with the server"),
        pytest.param({"scope": ("t", "account", *ADA.key[1:], "session", "0")}, False, id="another session there"),
        pytest.param({"by": plan(listed=b"[]")}, False, id="another definition of the tool"),
        pytest.param({"by": plan(name="put")}, False, id="another tool"),
        pytest.param({"by": plan(server="two")}, False, id="another server"),
        pytest.param({"endpoint": "other"}, False, id="another endpoint"),
        pytest.param({"by": plan(shared=True)}, False, id="what is shared stands apart"),
    ],
)
def test_which_calls_are_equal(settings: dict[str, Any], same: bool) -> None:
    assert (key(**settings) == SAME) is same


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"more": {"task": Raw(b"{}")}}, id="it is to run as a task"),
        pytest.param({"more": {"requestState": Raw(b'"s"')}}, id="it goes on with a state"),
        pytest.param({"more": {"inputResponses": Raw(b"{}")}}, id="it brings answers"),
        pytest.param({"more": {"vendor": Raw(b"1")}}, id="a parameter that nobody knows"),
        pytest.param({"meta": {"vendor/x": 1}}, id="a member of _meta that nobody knows"),
        pytest.param({"meta": {"baggage": "user=eve"}}, id="baggage, which servers may read"),
        pytest.param({"meta": {META_LOG_LEVEL: "info"}}, id="it asks for log messages"),
        pytest.param({"log_level": "info"}, id="its session has asked for log messages"),
        pytest.param({"arguments": b'{"a":"' + b"x" * MOST_ARGUMENTS + b'"}'}, id="large arguments"),
        pytest.param({"arguments": b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}"}, id="arguments nested too deep"),
        pytest.param({"arguments": b'{"a":"\\ud800"}'}, id="half a surrogate pair"),
    ],
)
def test_what_has_an_answer_of_its_own(settings: dict[str, Any]) -> None:
    assert asked(**settings) is None


def test_shared_is_for_all_of_a_tenant_with_the_same_account() -> None:
    shared = plan(shared=True)
    bob = Principal("t", "iss", "bob", "other")
    assert key(by=shared) == key(by=shared, who=bob)
    assert key(by=shared) != key(by=shared, who=Principal("u", "iss", "bob"))
    assert key(by=shared) != key(by=shared, who=bob, scope=("t", "bob's account", "iss", "bob", "other"))


def test_what_is_sent_is_what_the_key_was_made_of() -> None:
    twice = asked(b'{"id":"secret","id":"public"}')
    once = asked(b'{"id":"public"}')
    assert twice is not None and once is not None and twice.key == once.key
    assert bytes(twice.params["arguments"]) == bytes(once.params["arguments"]) == b'{"id":"public"}'


@pytest.mark.parametrize("item", [b"1e400", b"-1E9999"])
def test_what_cannot_be_compared_may_be_meant_by_any_write(item: bytes) -> None:
    clear = ClearRule(("one__put",), tools=("one__get",), same=(("/id", "/id"),))
    found = asked(b'{"id":%b}' % item, by=Plans(CacheSpec((RULE,), (clear,)), {}).of("tools", "default", "one", "get"))
    assert found is not None and ("t", 0, None) in found.lots


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


@given(JSON, JSON, st.booleans(), st.booleans())
def test_equal_texts_are_equal_values_and_nothing_else(one: Any, other: Any, spaced: bool, escaped: bool) -> None:
    def text(value: Any) -> bytes:
        return json.dumps(value, indent=1 if spaced else None, ensure_ascii=escaped).encode("utf-8", "replace")

    first, second = canonical_arguments(Raw(text(one))), canonical_arguments(Raw(text(other)))
    if first is not None:
        assert json.loads(first) == json.loads(text(one)), "what is sent says what was said"
    if first == second and first is not None:
        assert json.dumps(json.loads(text(one)), sort_keys=True) == json.dumps(json.loads(text(other)), sort_keys=True)


PRINCIPALS = st.builds(
    Principal,
    st.sampled_from(["t", "u"]), st.sampled_from(["iss", "other"]), st.sampled_from(["ada", "bob"]),
    st.sampled_from(["", "agent"]), st.sampled_from([(), ("admin",)]), st.sampled_from([(), ("staff",)]),
    st.sampled_from([frozenset[str](), frozenset({"read"})]),
)  # fmt: skip


@given(PRINCIPALS, PRINCIPALS, JSON)
def test_never_another_principals_answer(one: Principal, other: Principal, arguments: Any) -> None:
    raw = json.dumps({"a": arguments}).encode()
    first, second = asked(raw, who=one), asked(raw, who=other)
    if first is not None and second is not None and first.key == second.key:
        assert one == other


def test_the_principal_without_identity_has_a_key() -> None:
    assert asked(who=LOCAL) is not None
