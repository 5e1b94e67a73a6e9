"""What an approval is for, and what may happen to it: each rule a row."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from narthex.errors import Denied, InvalidParams, ParseError
from narthex.flow.codec.jsonrpc import Raw
from narthex.flow.policy.approvals.approval import (
    GOES_ON_S,
    MOST_BYTES,
    Approval,
    NotOpen,
    approve,
    ask,
    deny,
    digest_of,
    exactly,
    give_back,
    go_on,
    is_own,
    user_says,
)
from narthex.types import Principal

BOUND = ("default", "https://idp", "ann", "bot", "default", "tools", "billing", "refund", "large refunds")
WAITS = Approval(
    "a-1", b"\x01" * 32, "default", "https://idp", "ann", "bot", (), "default", "tools", "billing", "refund",
    "large refunds", "approver", "r1", b"sealed", 6, 100, 700, 300,
)  # fmt: skip
APPROVED = approve(WAITS, "bob", 200)
USED = ask(APPROVED, WAITS, 250)[1]
DENIED = deny(WAITS, "bob", 200)


def params(text: str, **more: str) -> dict[str, Raw]:
    return {"arguments": Raw(text.encode()), **{key: Raw(value.encode()) for key, value in more.items()}}


def digest(text: str, **more: str) -> bytes:
    return digest_of(BOUND, exactly(params(text, **more)))


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        pytest.param('{"a":1,"b":2}', '{ "b": 2,\n"a": 1 }', True, id="spacing and the order of keys do not count"),
        pytest.param('{"a":"\\u00e4"}', '{"a":"ä"}', True, id="nor how a character is written"),
        pytest.param('{"a":1e2}', '{"a":100.0}', True, id="nor a double"),
        pytest.param('{"a":{"x":1,"y":[{"p":1,"q":2}]}}', '{"a":{"y":[{"q":2,"p":1}],"x":1}}', True, id="at any depth"),
        pytest.param('{"a":1}', '{"a":2}', False, id="another value"),
        pytest.param('{"a":1}', '{"a":1,"b":null}', False, id="a member more"),
        pytest.param('{"a":[1,2]}', '{"a":[2,1]}', False, id="the order of a list counts"),
        pytest.param('{"a":1}', '{"a":"1"}', False, id="another type"),
        pytest.param('{"a":1}', '{"a":1.0}', False, id="an integer is no double"),
        pytest.param('{"a":1}', '{"a":true}', False, id="nor true"),
        pytest.param('{"a":9007199254740993}', '{"a":9007199254740992}', False, id="two integers that are one double"),
        pytest.param('{"a":"x"}', '{"a":"x "}', False, id="a blank"),
        pytest.param('{"a":"ä"}', '{"a":"a\\u0308"}', False, id="characters that look alike"),
        pytest.param('{"a":1,"a":2}', '{"a":2}', True, id="of a key that stands twice the last counts, and is sent"),
    ],
)  # fmt: skip
def test_the_same_arguments(one: str, other: str, same: bool) -> None:
    assert (digest(one) == digest(other)) is same


@pytest.mark.parametrize(
    ("more", "same"),
    [
        pytest.param({"_meta": '{"progressToken":7}'}, True, id="what a client says of itself"),
        pytest.param({"requestState": '"x"', "inputResponses": "{}"}, True, id="rounds of questions"),
        pytest.param({"task": '{"ttl":1}'}, False, id="a call that is to run as a task"),
        pytest.param({"x-extra": "1"}, False, id="a parameter that nobody knows"),
    ],
)
def test_every_parameter_counts_but_those_that_differ_each_time(more: dict[str, str], same: bool) -> None:
    assert (digest("{}", **more) == digest("{}")) is same


@pytest.mark.parametrize("part", range(len(BOUND)))
def test_each_part_that_it_is_bound_to_counts(part: int) -> None:
    other = (*BOUND[:part], BOUND[part] + "x", *BOUND[part + 1 :])
    assert digest_of(other, params("{}")) != digest_of(BOUND, params("{}"))
    if part:
        moved = (*BOUND[: part - 1], BOUND[part - 1] + BOUND[part][:1], BOUND[part][1:], *BOUND[part + 1 :])
        assert digest_of(moved, params("{}")) != digest_of(BOUND, params("{}")), "what stands where counts too"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=("Cs",)), max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=2), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(VALUES, VALUES)
def test_two_values_have_one_digest_only_where_they_are_the_same(one: Any, other: Any) -> None:
    def known(value: Any) -> str:  # Python's own text tells 1 from 1.0 and from true
        return json.dumps(value, sort_keys=True)

    assert (digest(json.dumps(one)) == digest(json.dumps(other))) == (known(one) == known(other))


@given(VALUES)
def test_what_is_sent_on_is_what_was_looked_at(value: Any) -> None:
    sent = exactly(params(json.dumps(value)))
    assert json.dumps(json.loads(bytes(sent["arguments"]))) == json.dumps(value)
    assert exactly(sent) == sent
    assert digest_of(BOUND, sent) == digest(json.dumps(value))


def test_what_cannot_be_looked_at_is_not_held_but_refused() -> None:
    with pytest.raises(InvalidParams):
        exactly(params("{nonsense"))
    with pytest.raises(Denied) as refused:
        exactly(params(json.dumps("x" * MOST_BYTES)))
    assert refused.value.reason == "too_large_to_approve"
    with pytest.raises(ParseError):
        exactly(params("{" + ",".join(f'"{n}":1' for n in range(5000)) + "}"))


NEW = replace(WAITS, id="a-2", asked_at=250, ends_at=850)


@pytest.mark.parametrize(
    ("found", "now", "outcome", "id_"),
    [
        pytest.param(None, 250, "asked", "a-2", id="never seen: a person is asked"),
        pytest.param(WAITS, 250, "pending", "a-1", id="nobody has said anything: the same one"),
        pytest.param(WAITS, 699, "pending", "a-1", id="up to its last second"),
        pytest.param(WAITS, 700, "asked", "a-2", id="its time is over: a new one"),
        pytest.param(APPROVED, 250, "passes", "a-1", id="approved: it passes"),
        pytest.param(APPROVED, 499, "passes", "a-1", id="up to the last second to use it"),
        pytest.param(APPROVED, 500, "asked", "a-2", id="not used in time: a new one"),
        pytest.param(USED, 250, "asked", "a-2", id="it has passed: a new one"),
        pytest.param(DENIED, 250, "denied", "a-1", id="denied: it stays so"),
        pytest.param(DENIED, 700, "asked", "a-2", id="for as long as it could have been approved"),
        pytest.param(deny(APPROVED, "bob", 210), 250, "denied", "a-1", id="approved and then denied"),
    ],
)
def test_a_call_that_is_made_again(found: Approval | None, now: int, outcome: str, id_: str) -> None:
    said, then = ask(found, NEW, now)
    assert (said, then.id) == (outcome, id_)
    assert then.state(now) == {"asked": "pending", "pending": "pending", "passes": "used", "denied": "denied"}[outcome]


@pytest.mark.parametrize("decide", [approve, deny])
@pytest.mark.parametrize(
    ("found", "now", "state"),
    [
        pytest.param(WAITS, 700, "expired", id="too late"),
        pytest.param(APPROVED, 500, "expired", id="approved, and not used in time"),
        pytest.param(USED, 260, "used", id="used"),
    ],
)
def test_what_is_over_is_decided_no_more(decide: Any, found: Approval, now: int, state: str) -> None:
    with pytest.raises(NotOpen, match=state):
        decide(found, "eve", now)


def test_a_denial_is_not_taken_back() -> None:
    with pytest.raises(NotOpen, match="denied"):
        approve(DENIED, "eve", 210)
    assert deny(DENIED, "eve", 210) is DENIED


def test_a_second_yes_gives_no_more_time() -> None:
    assert approve(APPROVED, "eve", 400) is APPROVED
    assert (APPROVED.ends_at, APPROVED.approved_by) == (500, "bob")


def test_each_step_is_told_in_order() -> None:
    assert WAITS.steps(200) == [("asked", 100, "")]
    assert WAITS.steps(700) == [("asked", 100, ""), ("expired", 700, "")]
    assert USED.steps(9999) == [("asked", 100, ""), ("approved", 200, "bob"), ("used", 250, "")]
    assert APPROVED.steps(500)[-1] == ("expired", 500, "")
    assert deny(APPROVED, "eve", 210).steps(9999)[1:] == [("approved", 200, "bob"), ("denied", 210, "eve")]


def test_what_has_passed_goes_on_once_a_round() -> None:
    second, late = go_on(USED, USED.digest, 1, 260), 250 + GOES_ON_S
    assert second.rounds == 2
    for found, rounds, now in ((second, 1, 261), (USED, 2, 260), (USED, 1, late), (APPROVED, 0, 210), (WAITS, 0, 210)):
        with pytest.raises(NotOpen):
            go_on(found, found.digest, rounds, now)
    with pytest.raises(NotOpen):
        go_on(USED, b"another call's", 1, 260)


def test_what_was_not_sent_may_pass_again() -> None:
    back = give_back(USED, USED.digest, 1)
    assert (back.state(260), back.rounds) == ("approved", 0)
    assert back.state(500) == "expired", "for as long as is left"
    assert ask(back, NEW, 260)[0] == "passes"
    second = go_on(USED, USED.digest, 1, 260)
    assert give_back(second, USED.digest, 2) == USED, "a round that was not sent"
    for found, digest_, rounds in ((second, USED.digest, 1), (APPROVED, APPROVED.digest, 0), (USED, b"another's", 1)):
        with pytest.raises(NotOpen):
            give_back(found, digest_, rounds)


def test_a_user_decides_what_is_left_to_them() -> None:
    asked = replace(WAITS, by="user")
    assert user_says(asked, asked.digest, "user", 200, yes=True).state(200) == "approved"
    assert user_says(asked, asked.digest, "user", 200, yes=False).state(200) == "denied"
    for found, digest_ in ((WAITS, WAITS.digest), (asked, b"another call's")):
        with pytest.raises(NotOpen):
            user_says(found, digest_, "user", 200, yes=True)


@pytest.mark.parametrize(
    ("who", "own"),
    [
        pytest.param(Principal("default", "https://idp", "ann", "bot"), True, id="the caller"),
        pytest.param(Principal("default", "https://idp", "ann", "console"), True, id="by another client"),
        pytest.param(Principal("acme", "https://idp", "ann"), True, id="in another tenant"),
        pytest.param(Principal("default", "https://idp", "bob", "bot"), True, id="another's token in the same agent"),
        pytest.param(
            Principal("default", "https://other", "bob", "bot"), False, id="another issuer's agent of that name"
        ),
        pytest.param(Principal("default", "https://idp", "bob", "console"), False, id="another, by another client"),
        pytest.param(Principal("default", "https://other", "ann"), False, id="another issuer's of the same name"),
        pytest.param(Principal("default", "https://other", "svc"), True, id="one who acts for the caller"),
        pytest.param(
            Principal("default", "https://idp", "bob", actors=("svc",)), True, id="the same, acting for another now"
        ),
        pytest.param(
            Principal("default", "https://idp", "bob", actors=("x", "ann")), True, id="the caller, acting for another"
        ),
        pytest.param(Principal("default", "https://idp", "bob", actors=("x",)), False, id="another, by another agent"),
    ],
)
def test_whose_call_it_is(who: Principal, own: bool) -> None:
    assert is_own(replace(WAITS, actors=("svc",)), who) is own


def test_callers_without_a_client_are_not_one_client() -> None:
    assert not is_own(replace(WAITS, client=""), Principal("default", "https://idp", "bob"))
