"""Walks fed from a table: what they ask for, in which order, and how they end. No driver, no server, no clock."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from narthex.errors import GatewayError, InvalidParams, NotVisible, Overloaded, UpstreamTimeout, UpstreamUnavailable
from narthex.flow.codec.jsonrpc import Raw
from narthex.flow.route.index import Target
from narthex.flow.upstream.port import Dialect
from narthex.flow.walk import LOST, Find, Open, Send, Walk, exchange, not_visible
from narthex.types import LOCAL, Call, Era

SENT = None
"""The driver's answer to `Send` when the client has its answer."""
VERSIONS: dict[Era, str] = {"legacy": "2025-11-25", "modern": "2026-07-28"}
META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}


class Line:
    """A channel as far as a walk looks at it: what was negotiated, and ids counted from 1."""

    def __init__(self, era: Era = "legacy") -> None:
        self.dialect = Dialect(era, VERSIONS[era])
        self.ids = 0

    def next_id(self) -> int:
        self.ids += 1
        return self.ids


def target(name: str, server: str = "s") -> Target:
    return Target(server, name, json.dumps(name).encode())


def call(method: str, name: str = "", era: Era = "legacy", /, **params: Any) -> Call:
    meta = META if era == "modern" else {}
    members = {**params, "_meta": meta} if meta else params
    raws = {key: Raw(json.dumps(value).encode()) for key, value in members.items()}
    metas = {key: Raw(json.dumps(value).encode()) for key, value in meta.items()}
    return Call(method, raws, metas, b'"c"', era, VERSIONS[era], LOCAL, "default", name)


def feed(walk: Walk, answers: Sequence[Any]) -> tuple[list[Any], GatewayError | None]:
    """All that the walk asked for, each answered from the list (an error is thrown in), and how it ended."""
    needs: list[Any] = []
    try:
        needs.append(next(walk))
        for answer in answers:
            needs.append(walk.throw(answer) if isinstance(answer, GatewayError) else walk.send(answer))
    except StopIteration:
        return needs, None
    except GatewayError as error:
        return needs, error
    raise AssertionError(f"the walk still asks: {needs[-1]}")


def asked(needs: Sequence[Any]) -> list[str]:
    """Needs in short: `find tools s__add`, `open s`, `send 1 add` (our id, the name for the header)."""
    said = []
    for need in needs:
        if isinstance(need, Find):
            said.append(f"find {need.kind} {need.name}")
        elif isinstance(need, Open):
            said.append(f"open {need.server}")
        else:
            assert isinstance(need, Send)
            said.append(f"send {need.out.id} {need.out.name or '-'}")
    return said


CALL = call("tools/call", "s__add", name="s__add", arguments={"a": 1})
GET = call("prompts/get", "s__ask", name="s__ask")
READ = call("resources/read", "f:1", uri="f:1")
PROMPT = call("completion/complete", ref={"type": "ref/prompt", "name": "s__ask"}, argument={"name": "a", "value": ""})
TEMPLATE = call("completion/complete", ref={"type": "ref/resource", "uri": "f:{x}"}, argument={})
FOUND = target("add")


@pytest.mark.parametrize(
    ("one", "found", "answers", "said"),
    [
        pytest.param(CALL, FOUND, [Line(), SENT], ["open s", "send 1 add"], id="found in memory: two steps"),
        pytest.param(
            CALL,
            None,
            [FOUND, Line(), SENT],
            ["find tools s__add", "open s", "send 1 add"],
            id="not in memory: it asks",
        ),
        pytest.param(
            GET, None, [target("ask"), Line(), SENT], ["find prompts s__ask", "open s", "send 1 ask"], id="a prompt"
        ),
        pytest.param(
            READ, None, [target("f:1"), Line(), SENT], ["find resources f:1", "open s", "send 1 f:1"], id="a resource"
        ),
        pytest.param(
            PROMPT, None, [target("ask"), Line(), SENT], ["find prompts s__ask", "open s", "send 1 -"], id="completion"
        ),
        pytest.param(
            TEMPLATE,
            None,
            [target("f:{x}"), Line(), SENT],
            ["find templates f:{x}", "open s", "send 1 -"],
            id="completion of a template",
        ),
        pytest.param(
            TEMPLATE,
            None,
            [None, target("f:{x}"), Line(), SENT],
            ["find templates f:{x}", "find resources f:{x}", "open s", "send 1 -"],
            id="completion of a resource that is no template",
        ),
        pytest.param(
            CALL,
            FOUND,
            [Line(), LOST, Line(), SENT],
            ["open s", "send 1 add", "open s", "send 1 add"],
            id="session lost once: a new channel, once more",
        ),
    ],
)
def test_a_walk_that_arrives(one: Call, found: Target | None, answers: Sequence[Any], said: list[str]) -> None:
    needs, error = feed(exchange(one, found), answers)
    assert (asked(needs), error) == (said, None)


@pytest.mark.parametrize(
    ("one", "found", "answers", "said", "kind", "code"),
    [
        pytest.param(CALL, None, [None], ["find tools s__add"], NotVisible, -32602, id="no such tool"),
        pytest.param(GET, None, [None], ["find prompts s__ask"], NotVisible, -32602, id="no such prompt"),
        pytest.param(READ, None, [None], ["find resources f:1"], NotVisible, -32002, id="no such resource, legacy"),
        pytest.param(
            call("resources/read", "f:1", "modern", uri="f:1"),
            None,
            [None],
            ["find resources f:1"],
            NotVisible,
            -32602,
            id="no such resource, modern",
        ),
        pytest.param(
            PROMPT, None, [None], ["find prompts s__ask"], NotVisible, -32602, id="completion: no such prompt"
        ),
        pytest.param(
            TEMPLATE,
            None,
            [None, None],
            ["find templates f:{x}", "find resources f:{x}"],
            NotVisible,
            -32602,
            id="completion: neither template nor resource",
        ),
        pytest.param(
            CALL,
            FOUND,
            [Line(), LOST, Line(), LOST],
            ["open s", "send 1 add", "open s", "send 1 add"],
            UpstreamUnavailable,
            -31005,
            id="session lost twice",
        ),
        pytest.param(
            CALL, None, [Overloaded("full")], ["find tools s__add"], Overloaded, -31009, id="thrown in while it looks"
        ),
        pytest.param(
            CALL, FOUND, [UpstreamUnavailable("down")], ["open s"], UpstreamUnavailable, -31005, id="cannot be opened"
        ),
        pytest.param(
            CALL,
            FOUND,
            [Line(), UpstreamTimeout("late")],
            ["open s", "send 1 add"],
            UpstreamTimeout,
            -31006,
            id="the deadline passes while it waits",
        ),
        pytest.param(
            CALL,
            FOUND,
            [Line(), LOST, UpstreamUnavailable("down")],
            ["open s", "send 1 add", "open s"],
            UpstreamUnavailable,
            -31005,
            id="session lost, and then the server",
        ),
    ],
)
def test_a_walk_that_ends_in_an_error(
    one: Call, found: Target | None, answers: Sequence[Any], said: list[str], kind: type[GatewayError], code: int
) -> None:
    needs, error = feed(exchange(one, found), answers)
    assert asked(needs) == said
    assert type(error) is kind and error.code == code
    assert not (error.data or {}).get("sent"), "nothing of it was done"


@pytest.mark.parametrize("at", range(3), ids=["while it looks", "while it opens", "while it waits"])
def test_a_walk_that_is_closed_asks_for_nothing_more(at: int) -> None:
    walk = exchange(CALL, None)
    next(walk)
    for answer in [FOUND, Line()][:at]:
        walk.send(answer)
    walk.close()
    with pytest.raises(StopIteration):
        next(walk)


def test_an_error_of_the_driver_is_not_swallowed() -> None:
    walk = exchange(CALL, FOUND)
    next(walk)
    thrown = UpstreamUnavailable("down", sent=True)
    with pytest.raises(UpstreamUnavailable) as raised:
        walk.throw(thrown)
    assert raised.value is thrown


# --- what is sent -------------------------------------------------------------------------------------------------


def body_of(one: Call, found: Target, line: Line) -> dict[str, Any]:
    """What goes upstream, by another reader."""
    answers = [found, line, SENT]
    needs, error = feed(exchange(one, None), answers)
    assert error is None
    send = needs[-1]
    assert send.channel is line and send.target is found
    assert (send.out.method, send.out.resend) == (one.method, False)
    body: dict[str, Any] = json.loads(send.out.body)
    assert body["id"] == send.out.id
    return body


@pytest.mark.parametrize("server", ["legacy", "modern"])
@pytest.mark.parametrize(
    ("one", "found", "expected"),
    [
        pytest.param(CALL, target("add"), {"name": "add", "arguments": {"a": 1}}, id="a tool by its own name"),
        pytest.param(GET, target("ask"), {"name": "ask"}, id="a prompt by its own name"),
        pytest.param(READ, target("f:1"), {"uri": "f:1"}, id="a resource by its own URI"),
        pytest.param(
            PROMPT,
            target('a"sk\n'),
            {"ref": {"type": "ref/prompt", "name": 'a"sk\n'}, "argument": {"name": "a", "value": ""}},
            id="completion: the name in ref",
        ),
        pytest.param(
            TEMPLATE,
            target("g:{x}"),
            {"ref": {"type": "ref/resource", "uri": "g:{x}"}, "argument": {}},
            id="the URI in ref",
        ),
    ],
)
def test_the_server_gets_its_own_name(one: Call, found: Target, expected: dict[str, Any], server: Era) -> None:
    body = body_of(one, found, Line(server))
    assert ("_meta" in body["params"]) is (server == "modern")
    body["params"].pop("_meta", None)
    assert (body["method"], body["params"]) == (one.method, expected)


def test_unknown_members_of_a_reference_pass() -> None:
    one = call("completion/complete", ref={"type": "ref/prompt", "name": "p", "title": "T"}, argument={})
    assert body_of(one, target("q"), Line())["params"]["ref"] == {"type": "ref/prompt", "name": "q", "title": "T"}


def test_a_second_sending_is_in_the_dialect_of_the_new_channel() -> None:
    needs, _ = feed(exchange(CALL, FOUND), [Line("legacy"), LOST, Line("modern"), SENT])
    first, second = (json.loads(need.out.body)["params"] for need in needs if isinstance(need, Send))
    assert "_meta" not in first and "_meta" in second


def test_ids_of_one_channel_are_not_used_again() -> None:
    line = Line()
    needs, _ = feed(exchange(CALL, FOUND), [line, LOST, line, SENT])
    assert [need.out.id for need in needs if isinstance(need, Send)] == [1, 2]


@pytest.mark.parametrize(
    "ref",
    [
        pytest.param(None, id="null"),
        pytest.param("f:1", id="a string"),
        pytest.param([], id="a list"),
        pytest.param({}, id="no type"),
        pytest.param({"type": "ref/tool", "name": "x"}, id="a type that is none"),
        pytest.param({"type": 1, "name": "x"}, id="a type that is no string"),
        pytest.param({"type": "ref/prompt"}, id="no name"),
        pytest.param({"type": "ref/prompt", "name": 1}, id="a name that is no string"),
        pytest.param({"type": "ref/prompt", "uri": "f:1"}, id="a URI for a name"),
        pytest.param({"type": "ref/resource", "name": "x"}, id="a name for a URI"),
    ],
)
def test_a_malformed_reference_asks_for_nothing(ref: Any) -> None:
    needs, error = feed(exchange(call("completion/complete", ref=ref), None), [])
    assert needs == [] and isinstance(error, InvalidParams)


def test_a_missing_reference_asks_for_nothing() -> None:
    needs, error = feed(exchange(call("completion/complete"), None), [])
    assert needs == [] and isinstance(error, InvalidParams)


# --- not found ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "era", "code", "data"),
    [
        pytest.param("tools/call", "legacy", -32602, None, id="a tool"),
        pytest.param("tools/call", "modern", -32602, None, id="a tool, modern"),
        pytest.param("prompts/get", "legacy", -32602, None, id="a prompt"),
        pytest.param("completion/complete", "modern", -32602, None, id="a reference"),
        pytest.param("resources/read", "legacy", -32002, {"uri": "n"}, id="a resource, legacy"),
        pytest.param("resources/read", "modern", -32602, {"uri": "n"}, id="a resource, modern"),
    ],
)
def test_not_visible(method: str, era: Era, code: int, data: dict[str, Any] | None) -> None:
    error = not_visible(call(method, "n", era), "n")
    assert (error.code, error.status, error.reason, error.data) == (code, 200, "not_found", data)
    assert NotVisible.code == -32602, "one answer says nothing about the next"


@pytest.mark.parametrize("method", ["tools/call", "prompts/get", "resources/read", "completion/complete"])
def test_a_long_name_does_not_make_a_long_answer(method: str) -> None:
    error = not_visible(call(method), "x" * 100_000)
    assert len(error.public) + len(json.dumps(error.data)) < 1200
