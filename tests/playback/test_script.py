"""The record answers each call as it was answered, in order; and tells what an agent did otherwise."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narthex.errors import NotRecorded
from narthex.playback.arguments import NONE, digest
from narthex.playback.recorded import REDACTED, Recorded, recorded_in
from narthex.playback.script import MOST_OTHERS, Change, Given, Script, Told
from narthex.playback.staging import Naming
from narthex.telemetry.payloads.lines import Note
from narthex.telemetry.payloads.reading import Payload

TOOL = ("tools", "one", "find")


def made(number: int, said: Any = None, name: str = "find", **more: Any) -> Recorded:
    raw = json.dumps(said or {}).encode()
    values = {
        "id": f"r{number}", "at": f"{number:04}", "endpoint": "default", "method": "tools/call", "kind": "tools",
        "version": "", "server": "one", "name": name, "keys": frozenset((digest(raw),)), "arguments": raw,
        "answer": b'{"n":%d}' % number,
    } | more  # fmt: skip
    return Recorded(**values)


def script(*calls: Recorded, **how: Any) -> Script:
    return Script(calls, lambda raw: raw.replace(b"4111", b"*"), **how)


def ask(one: Script, arguments: Any = None, name: str = "find") -> Any:
    try:
        given = one.answer("tools", "one", name, json.dumps(arguments or {}).encode())
    except NotRecorded as error:
        return error.public
    return json.loads(given.body).get("n", given.body)


def test_the_same_call_gets_successive_answers_and_the_last_once_more() -> None:
    one = script(made(1), made(2, {"a": 1}), made(3))
    assert [ask(one), ask(one), ask(one), ask(one, {"a": 1})] == [1, 3, 3, 2]
    report = one.report()
    assert report.again == (Told("one__find", 1),) and not report.is_same and report.same == 3


def test_where_spent_calls_are_errors() -> None:
    one = script(made(1), repeats=False)
    assert ask(one) == 1 and "has no more of these calls" in ask(one)


def test_what_is_recorded_with_its_digest_alone_is_found_by_its_bytes() -> None:
    one = script(made(1, {"b": 1, "a": 2}, arguments=b""))
    assert ask(one, {"b": 1, "a": 2}) == 1
    assert "no such call" in ask(one, {"a": 2, "b": 1})
    assert one.report().new == (Told("one__find", 1),)


def test_redacted_arguments_are_found_by_what_is_left_of_them() -> None:
    loose = REDACTED + digest(b'{"card":"*","n":1}')
    one = script(made(1, {"card": "x"}, arguments=b'{"card":"*","n":1}', loose=loose))
    assert "no such call" in ask(one, {"n": 2, "card": "4111"})
    assert ask(one, {"n": 1, "card": "4111"}) == 1
    assert ask(one, {"card": "x"}) == 1, "the bytes themselves are found, too"


def test_what_was_done_otherwise() -> None:
    one = script(made(1, {"a": 1}), made(2, name="send"), made(3, name="gone", why="its result was erased"))
    assert "no such call: one__find" in ask(one, {"a": 2, "b": 1})
    assert "no such call" in ask(one, {"a": 3})
    assert "its result was erased" in ask(one, name="gone")
    one.refused("tools/call", "one__never")
    report = one.report()
    assert report.changed == (Change("one__find", "r1", ("a", "b")),)
    assert report.new == (Told("one__find", 1), Told("one__never", 1))
    assert report.missing == (Told("one__send", 1),)
    assert report.unanswered == (Told("one__gone", 1, "its result was erased"),)
    assert report.same == 0 and not report.is_same


def test_what_was_hidden_then_is_called_as_recorded() -> None:
    hidden = made(1, server="", name="", shown="one__secret", listed=False, is_error=True)
    one = script(hidden)
    one.refused("tools/call", "one__secret")
    assert one.report().is_same


def test_calls_without_end_do_not_fill_the_memory() -> None:
    one = script(made(1, name="other"))
    for number in range(MOST_OTHERS + 5):
        one.refused("tools/call", f"n{number % 7}")
    assert sum(told.count for told in one.report().new) == MOST_OTHERS + 5
    assert len(one._others) == MOST_OTHERS


def test_large_calls_that_are_not_recorded_are_counted_and_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("narthex.playback.script.MOST_BYTES", 10_000)
    one = script(made(1))
    for number in range(50):
        assert "no such call" in ask(one, {"text": "x" * 1000, "n": number})
    assert sum(len(other.arguments) for other in one._others) <= 10_000
    report = one.report()
    assert len(report.changed) + sum(told.count for told in report.new) == 50


steps = st.lists(
    st.tuples(st.sampled_from("abc"), st.dictionaries(st.sampled_from("xyz"), st.integers(0, 2) | st.text(max_size=2))),
    max_size=20,
)


def written(at: int, name: str, arguments: dict[str, Any], kept: bool) -> tuple[dict[str, Any], list[Payload]]:
    raw = json.dumps(arguments).encode()
    record = {
        "id": f"r{at}", "time": f"2026-11-27T09:00:{at:02}.000000Z", "event": "call", "endpoint": "default",
        "method": "tools/call", "server": "one", "name": name, "outcome": "ok", "arguments_digest": digest(raw),
    }  # fmt: skip
    payloads = [Payload("result", "here", Note("full"), b'{"n":%d}' % at)]
    return record, [*payloads, Payload("arguments", "here", Note("full"), raw)] if kept else payloads


@given(steps, st.booleans())
def test_the_same_agent_gets_the_same_answers(calls: list[tuple[str, dict[str, Any]]], kept: bool) -> None:
    rows = [written(at, name, arguments, kept) for at, (name, arguments) in enumerate(calls)]
    payloads = {record["id"]: said for record, said in rows}
    recorded = recorded_in([one for one, _ in rows], lambda one: payloads[one["id"]], Naming({}).shows)
    one = script(*recorded)
    assert [ask(one, arguments, name) for name, arguments in calls] == list(range(len(calls)))
    assert one.report().is_same


@given(steps, st.randoms())
def test_in_another_order_each_call_gets_an_answer_of_its_own(
    calls: list[tuple[str, dict[str, Any]]], random: Any
) -> None:
    recorded = [made(at, arguments, name) for at, (name, arguments) in enumerate(calls)]
    one, shuffled = script(*recorded), list(calls)
    random.shuffle(shuffled)
    given_ = [ask(one, arguments, name) for name, arguments in shuffled]
    assert sorted(given_) == list(range(len(calls))) and one.report().is_same
    for (name, arguments), answer in zip(shuffled, given_, strict=True):
        assert calls[answer] == (name, arguments)


@pytest.mark.parametrize("body", [b'{"n":1}', b'{"isError":true}'])
def test_an_answer_is_byte_for_byte(body: bytes) -> None:
    assert script(made(1, answer=body)).answer("tools", "one", "find", NONE) == Given(body, False)
