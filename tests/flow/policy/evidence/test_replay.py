"""What is recorded of a decision gives the decision again, whatever the rules, the caller and the call; and what
another policy would change is found."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from datetime import time
from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from narthex.errors import GatewayError
from narthex.flow.codec.jsonrpc import Raw, encode
from narthex.flow.identity.scopes import Scopes
from narthex.flow.policy.admissions import Admissions
from narthex.flow.policy.check import Check
from narthex.flow.policy.decision import Decision
from narthex.flow.policy.evidence.again import NOT_THERE, Again, Asked, Untold
from narthex.flow.policy.evidence.recorded import BadRecord, Reader, Recorded
from narthex.flow.policy.evidence.replay import Replayed, effect_of, name_of
from narthex.flow.policy.evidence.replay import replay as compare
from narthex.flow.policy.grants import Grants
from narthex.flow.route.target import Target
from narthex.telemetry.record import Entry, line_of
from narthex.types import Call, EndpointSpec, Grant, Hours, Kind, Principal, Selection, Session
from tests.flow.policy.test_grants import ARGS, EVERYBODY, GRANTS, KINDS, NAMES, NOW, SUPPORT
from tests.telemetry.test_record import ENTRY

ENDPOINT = EndpointSpec("default", ("a", "b"), scopes=(("a__x", ("a:x",)),), hide_unscoped=False)


def decided(
    grants: Grants | None,
    who: Principal,
    name: str,
    arguments: bytes | None,
    *,
    kind: Kind = "tools",
    at: float = NOW,
    address: str = "10.1.1.1",
    scopes: dict[str, Scopes] | None = None,
) -> tuple[Check, Call]:
    """The check of a call, as its walk leaves it."""
    server, _, own = name.partition("__")
    params = {} if arguments is None else {"arguments": Raw(arguments)}
    call = Call("tools/call", params, {}, b"1", "modern", "2026-07-28", who, "default", name)
    check = Admissions(grants, scopes or {}, lambda: at).check(who, "default", address)
    target = Target(server, own, encode(own))
    if check.sees(kind, target):
        with suppress(GatewayError):
            check.admit(kind, target, params)
    return check, call


def line(check: Check, call: Call, *, full: bool = True) -> bytes:
    entry: Entry = replace(ENTRY, principal=call.principal, check=check, call=call, inputs="full" if full else "digest")
    return line_of(entry, "r-1") + b"\n"


def recorded(check: Check, call: Call, *, full: bool = True) -> Recorded:
    found = Reader().read(line(check, call, full=full))
    assert found is not None
    return found


def again(grants: Grants | None, one: Recorded, **more: Any) -> Decision:
    return asyncio.run(Again(grants, more.pop("scopes", {}), **more).decide(one.asked))


SPACES = st.sampled_from(["", " ", "\n", "\r\n  "])


@given(
    st.lists(GRANTS, max_size=6),
    st.sampled_from(EVERYBODY),
    KINDS,
    NAMES,
    ARGS,
    st.sampled_from(["", "10.1.1.1", "::1"]),
    SPACES,
    st.floats(0, 2e9),
)
def test_a_record_gives_its_decision_again(
    grants: list[Grant],
    who: Principal,
    kind: Kind,
    name: str,
    args: dict[str, Any],
    address: str,
    space: str,
    at: float,
) -> None:
    rules = Grants(tuple(grants)) if grants else None
    scopes = {"default": Scopes(ENDPOINT)}
    arguments = json.dumps(args, indent=1).replace("\n", space).encode()
    check, call = decided(rules, who, name, arguments, kind=kind, at=at, address=address, scopes=scopes)
    found = recorded(check, call)
    assert found.said is not None and check.decision is not None
    said = again(rules, found, scopes=scopes)
    assert said == replace(check.decision, detail=said.detail)
    assert (found.said.effect, found.said.reason, found.said.rule) == (
        check.decision.effect,
        check.decision.reason,
        check.decision.rule,
    )
    assert found.asked.call.principal.key == who.key and found.asked.resource == name
    assert abs(found.asked.at - at) < 0.0011


@pytest.mark.parametrize(
    ("when", "at", "effect"),
    [
        pytest.param({"hours": Hours(time(8), time(18))}, 9 * 3600, "allow", id="in its hours"),
        pytest.param({"hours": Hours(time(8), time(18))}, 19 * 3600, "deny", id="outside"),
        pytest.param({"expires_at": 5.0}, 4.9, "allow", id="before it ended"),
        pytest.param({"expires_at": 5.0}, 5.0, "deny", id="after it ended"),
        pytest.param({"networks": (ip_network("10.0.0.0/8"),)}, 0.0, "allow", id="from its network"),
        pytest.param({"networks": (ip_network("11.0.0.0/8"),)}, 0.0, "deny", id="from another network"),
    ],
)
def test_time_and_place_are_those_of_the_record(when: dict[str, Any], at: float, effect: str) -> None:
    rules = Grants((Grant("all", "allow", tools=("*",), **when),))
    found = recorded(*decided(rules, SUPPORT, "a__x", b"{}", at=at))
    assert found.said is not None and (found.said.effect, again(rules, found).effect) == (effect, effect)


ARGUED = Grants((Grant("small", "allow", tools=("a__x",), when="args.n < 5"), Grant("rest", "allow", tools=("b__x",))))


def test_without_its_arguments_only_what_looks_at_them_cannot_be_told() -> None:
    with pytest.raises(Untold, match="arguments were not recorded"):
        again(ARGUED, recorded(*decided(ARGUED, SUPPORT, "a__x", b'{"n":1}'), full=False))
    assert again(ARGUED, recorded(*decided(ARGUED, SUPPORT, "b__x", b'{"n":1}'), full=False)).effect == "allow"
    assert again(ARGUED, recorded(*decided(ARGUED, SUPPORT, "a__x", None), full=False)).reason == "rule_failed"


def test_arguments_are_payload_and_not_in_a_record_that_has_their_digest() -> None:
    secret = decided(ARGUED, SUPPORT, "a__x", b'{"n":1,"password":"s3cr3t"}')
    found = json.loads(line(*secret, full=False))["input"]["mcp"]
    assert (
        found["arguments"] is None and found["arguments_digest"].startswith("sha256:") and found["arguments_size"] == 27
    )
    assert b"s3cr3t" in line(*secret) and b"s3cr3t" not in line(*secret, full=False)


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(b'{"n":"' + b"x" * 70_000 + b'"}', id="too many"),
        pytest.param(b'{"n":"\xff"}', id="no text"),
    ],
)
def test_arguments_that_cannot_be_kept_are_not(arguments: bytes) -> None:
    found = recorded(*decided(None, SUPPORT, "a__x", arguments))
    assert not found.asked.whole and not found.asked.call.params


def test_what_an_endpoint_does_not_take_is_not_there() -> None:
    found = recorded(*decided(None, SUPPORT, "a__x", b"{}"))
    places = {"default": EndpointSpec("default", ("a",))}
    assert again(None, found, places=places).effect == "allow"
    for other in (
        {"default": EndpointSpec("default", ("b",))},
        {"default": EndpointSpec("default", ("a",), tools=Selection(exclude=("a__*",)))},
        {"another": EndpointSpec("another", ("a",))},
    ):
        assert again(None, found, places=other) is NOT_THERE


# --- differences


def compared(records: list[Recorded], rules: Grants | None, *, by_effect: bool = False) -> Replayed:
    async def main() -> Replayed:
        found, judge = Replayed(), Again(rules, {})
        for one in records:
            await compare(one, judge, found, by_effect=by_effect)
        return found

    return asyncio.run(main())


OLD = Grants((Grant("all", "allow", tools=("*",)),))
NEW = Grants((Grant("a only", "allow", tools=("a__*",)), Grant("no big", "deny", tools=("*__x",), when="args.n > 5")))


def test_what_another_policy_would_change_is_grouped() -> None:
    calls = [("a__x", b'{"n":1}'), ("a__x", b'{"n":9}'), ("a__x", b'{"n":8}'), ("b__x", b"{}")]
    records = [recorded(*decided(OLD, SUPPORT, *one)) for one in calls]
    assert compared(records, OLD).agrees
    found = compared(records, NEW, by_effect=True)
    assert (found.decided, found.agrees) == (4, False)
    shown = {(key.resource, effect_of(key.after), key.after.rule): one.count for key, one in found.differences.items()}
    assert shown == {("a__x", "deny", "no big"): 2, ("b__x", "hidden", ""): 1}
    strict = compared(records, NEW)
    assert sum(one.count for one in strict.differences.values()) == 4, "another rule is another decision"


def test_what_cannot_be_told_is_counted_by_its_reason() -> None:
    without = recorded(*decided(ARGUED, SUPPORT, "a__x", b'{"n":1}'), full=False)
    found = compared([without, without, replace(without, said=None)], ARGUED)
    assert (found.decided, found.agrees) == (0, True)
    assert sorted(found.untold.values()) == [1, 2]


def test_a_principal_by_a_name_for_people() -> None:
    assert name_of(Principal("t", "i", "ada", "ide")) == "ada by ide"
    assert name_of(("t", "i", "ci", "ci")) == "ci"


# --- reading


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param(b"{", "truncated", id="no JSON"),
        pytest.param(b"[]", "array", id="no object"),
        pytest.param(b'{"input":{"v":1}}', "subject", id="half an input"),
    ],
)
def test_what_is_no_record_is_refused(text: bytes, said: str) -> None:
    with pytest.raises(BadRecord, match=said):
        Reader().read(text)


def changed(**more: Any) -> bytes:
    found = json.loads(line(*decided(OLD, SUPPORT, "a__x", b"{}")))
    for path, value in more.items():
        *way, last = path.split("_")
        inner = found
        for key in way:
            inner = inner[key]
        inner[last] = value
    return json.dumps(found).encode()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param({"input_v": 2}, "version 2", id="another version"),
        pytest.param({"input_context_time": "2026-01-01T00:00:00"}, "no zone", id="a time without a zone"),
        pytest.param({"input_context_time": "now"}, "isoformat", id="no time"),
        pytest.param({"input_resource_kind": "person"}, "person", id="another kind of thing"),
        pytest.param({"principal_proof": "magic"}, "magic", id="another proof"),
    ],
)
def test_what_a_record_cannot_say_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(BadRecord, match=said):
        Reader().read(changed(**change))


def test_other_lines_are_none_of_ours() -> None:
    assert Reader().read(line_of(ENTRY, "r-1")) is None
    assert Reader().read(b'{"event":"lost","count":3,"id":"x"}') is None


@pytest.mark.parametrize(
    ("result", "effect"),
    [
        pytest.param(True, "allow", id="true"),
        pytest.param({"allow": True, "reasons": []}, "allow", id="an object that allows"),
        pytest.param({"allow": False}, "deny", id="an object that does not"),
        pytest.param({"allow": "yes"}, "deny", id="nonsense"),
        pytest.param("true", "deny", id="a text"),
    ],
)
def test_a_decision_log_of_an_agent_is_read(result: Any, effect: str) -> None:
    input_ = json.loads(line(*decided(OLD, SUPPORT, "a__x", b"{}")))["input"]
    found = Reader().read(json.dumps({"decision_id": "d-1", "path": "x", "input": input_, "result": result}).encode())
    assert found is not None and found.said is not None
    assert (found.id, found.said.effect, found.said.reason) == ("d-1", effect, "")


def test_a_principal_is_read_once() -> None:
    reader = Reader()
    text = line(*decided(OLD, SUPPORT, "a__x", b"{}"))
    one, two = reader.read(text), reader.read(text)
    assert one is not None and two is not None and one.asked.call.principal is two.asked.call.principal


def test_a_session_is_read() -> None:
    check, call = decided(OLD, SUPPORT, "a__x", b"{}")
    one = recorded(check, call.but(session=Session("s-1", "2025-11-25", 0)))
    assert one.asked.call.session is not None and one.asked.call.session.id == "s-1"


def test_asked_names_its_resource() -> None:
    _, call = decided(None, SUPPORT, "a__x", None)
    assert Asked(call, "tools", Target("a", "x", b'"x"')).resource == "a__x"
