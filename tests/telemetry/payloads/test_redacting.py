"""What is kept of a payload: all but what pointers, names and detectors take out."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narthex.telemetry.payloads.lines import Part
from narthex.telemetry.payloads.redacting import Redactor, Unreadable

CARD = "4111111111111111"


def kept(value: Any, *pointers: str, part: Part = "arguments", **options: Any) -> tuple[Any, tuple[str, ...]]:
    body, marks = Redactor(pointers, **options).applied(json.dumps(value).encode(), part)
    assert b"\n" not in body
    return json.loads(body), marks


def test_a_pointer_takes_out_what_it_leads_to() -> None:
    value = {"who": {"name": "Ada", "born": 1815}, "all": [{"id": 1}, {"id": 2}], "a/b": 1}
    found, marks = kept(value, "/arguments/who/name", "/arguments/all/*/id", "/arguments/a~1b", "/result/who/born")
    out = "[redacted: pointer]"
    assert found == {"who": {"name": out, "born": 1815}, "all": [{"id": out}, {"id": out}], "a/b": out}
    assert marks == ("pointer",)


def test_a_pointer_that_leads_nowhere_takes_out_nothing() -> None:
    assert kept({"a": [1]}, "/arguments/b", "/arguments/a/7", "/arguments/a/x/y") == ({"a": [1]}, ())


def test_what_a_tool_says_twice_is_taken_out_twice() -> None:
    data = {"name": "Ada", "born": 1815}
    result = {"structuredContent": data, "content": [{"type": "text", "text": json.dumps(data)}, {"type": "image"}, 7]}
    found, _ = kept(result, "/result/structuredContent/name", part="result")
    assert "Ada" not in json.dumps(found)
    assert json.loads(found["content"][0]["text"]) == {"name": "[redacted: pointer]", "born": 1815}


@pytest.mark.parametrize(
    ("value", "marks"),
    [
        pytest.param({"text": f"card {CARD}"}, ("cards",), id="in a text"),
        pytest.param({"card": int(CARD)}, ("cards",), id="a number"),
        pytest.param({f"card {CARD}": 1}, ("cards",), id="a name"),
        pytest.param([[{"deep": [CARD]}]], ("cards",), id="anywhere"),
        pytest.param({"text": json.dumps({"inner": json.dumps([CARD])})}, ("cards",), id="in JSON in a text of JSON"),
        pytest.param({"apiKey": CARD}, ("name",), id="under a name that says so"),
        pytest.param({"credentials": {"user": "ada", "value": CARD}}, ("name",), id="all under such a name"),
        pytest.param({"text": json.dumps({"password": CARD})}, ("name",), id="such a name in a text of JSON"),
        pytest.param(f"card {CARD}", ("cards",), id="a text alone"),
    ],
)
def test_is_taken_out(value: Any, marks: tuple[str, ...]) -> None:
    found, said = kept(value)
    assert CARD not in json.dumps(found) and said == marks


def test_what_says_nothing_stays() -> None:
    value = {"token": None, "password": "", "pin": False, "n": 1.5, "big": 2**62, "text": '{"a":  1}', "list": [True]}
    assert kept(value) == (value, ())


def test_nothing_is_looked_for_that_was_not_asked_for() -> None:
    value = {"password": "x", "card": CARD}
    assert kept(value, detectors=()) == (value, ())
    assert kept(value, detectors=("cards",))[1] == ("cards",)


@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b'{"a":\xff}', b"[" * 100_000 + b"]" * 100_000, b'{"a":' * 900 + b'"a@b.cd"' + b"}" * 900, b"{} {}"],
)
def test_of_what_cannot_be_read_nothing_is_kept(raw: bytes) -> None:
    with pytest.raises(Unreadable):
        Redactor().applied(raw, "result")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=10,
)


@given(JSON, st.integers(0, 3))
def test_a_secret_is_found_wherever_it_stands(value: Any, depth: int) -> None:
    for _ in range(depth):
        value = {"in": json.dumps([value, f"x {CARD}"])}
    found, _ = kept([value, CARD])
    assert CARD not in json.dumps(found)
