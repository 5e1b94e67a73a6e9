"""Walks fed from a table: what they ask for, in which order, and how they end. No driver, no server, no clock."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from narthex.errors import (
    GatewayError,
    HeaderMismatch,
    InvalidParams,
    MethodNotFound,
    NotVisible,
    Overloaded,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from narthex.flow.codec.handles import Task
from narthex.flow.codec.inputs import Asked, InputRequired
from narthex.flow.codec.jsonrpc import Raw, RawMap
from narthex.flow.codec.param_headers import Said, read_plan
from narthex.flow.limit.reserve import Reserve
from narthex.flow.route.index import Target
from narthex.flow.upstream.port import Dialect
from narthex.flow.walk import (
    LOST,
    MOST_ROUNDS,
    Ask,
    Begin,
    Find,
    Open,
    Send,
    Walk,
    about_task,
    as_task,
    exchange,
    not_visible,
)
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
        self.alive = True
        self.ids = 0

    def next_id(self) -> int:
        self.ids += 1
        return self.ids


def asks_to_open(need: object, server: str) -> bool:
    return isinstance(need, Open) and need.server == server


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
    """Needs in short: `find tools s__add`, `open s`, `send 1 add` (our id, the name for the header), `ask a b`."""
    said = []
    for need in needs:
        if isinstance(need, Find):
            said.append(f"find {need.kind} {need.name}")
        elif isinstance(need, Open):
            said.append(f"open {need.server}")
        elif isinstance(need, Reserve):
            said.append(f"reserve {need.target.name}")
        elif isinstance(need, Begin):
            said.append(f"begin {need.target.name}")
        elif isinstance(need, Ask):
            said.append(f"ask {' '.join(one.key for one in need.required.asked) or '-'}")
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


# --- what a modern server asks of a legacy client -----------------------------------------------------------------

A = Asked("a", "roots/list", Raw(b"{}"))
B = Asked("b", "elicitation/create", Raw(b"{}"))
STATE = Raw(b'"s\\u0031"')
ROOTS, FORM = Raw(b'{ "roots":[] }'), Raw(b'{"action":"accept"}')


def rounds_of(answers: Sequence[Any], one: Call = CALL) -> tuple[list[str], list[dict[str, Any]], GatewayError | None]:
    """What was asked for in short, what was told of rounds in each sending, and how it ended."""
    needs, error = feed(exchange(one, FOUND), answers)
    told = [json.loads(need.out.body)["params"] for need in needs if isinstance(need, Send)]
    names = ("inputResponses", "requestState")
    return asked(needs), [{key: params[key] for key in names if key in params} for params in told], error


def test_answers_go_back_with_the_state() -> None:
    required = InputRequired((A, B), STATE)
    said, told, error = rounds_of([Line("modern"), required, {"a": ROOTS, "b": FORM}, SENT])
    assert said == ["open s", "send 1 add", "ask a b", "send 2 add"]
    assert told == [{}, {"inputResponses": {"a": {"roots": []}, "b": {"action": "accept"}}, "requestState": "s1"}]
    assert error is None


def test_answers_and_state_go_back_byte_for_byte() -> None:
    needs, _ = feed(exchange(CALL, FOUND), [Line("modern"), InputRequired((A,), STATE), {"a": ROOTS}, SENT])
    assert bytes(ROOTS) in needs[-1].out.body and bytes(STATE) in needs[-1].out.body


def test_each_round_tells_its_own_answers_alone() -> None:
    rounds = [InputRequired((A,), STATE), {"a": ROOTS}, InputRequired((B,), None), {"b": FORM}]
    said, told, error = rounds_of([Line("modern"), *rounds, InputRequired((), Raw(b'"t"')), {}, SENT])
    assert said == ["open s", "send 1 add", "ask a", "send 2 add", "ask b", "send 3 add", "ask -", "send 4 add"]
    assert told == [
        {},
        {"inputResponses": {"a": {"roots": []}}, "requestState": "s1"},
        {"inputResponses": {"b": {"action": "accept"}}},
        {"requestState": "t"},
    ]
    assert error is None


def test_a_server_may_ask_so_often_and_no_more() -> None:
    rounds = [InputRequired((A,), STATE), {"a": ROOTS}] * MOST_ROUNDS
    said, _, error = rounds_of([Line("modern"), *rounds, SENT])
    assert said.count("ask a") == MOST_ROUNDS and error is None
    said, _, error = rounds_of([Line("modern"), *rounds, InputRequired((A,), STATE)])
    assert said.count("ask a") == MOST_ROUNDS
    assert isinstance(error, UpstreamUnavailable) and error.sent


def test_a_channel_that_died_while_the_client_was_asked_is_opened_anew() -> None:
    first, second = Line("modern"), Line("modern")
    walk = exchange(CALL, FOUND)
    next(walk)
    walk.send(first)
    assert isinstance(walk.send(InputRequired((A,), STATE)), Ask)
    first.alive = False
    assert isinstance(walk.send({"a": ROOTS}), Open)
    again = walk.send(second)
    assert isinstance(again, Send) and again.channel is second
    assert json.loads(again.out.body)["params"]["requestState"] == "s1", "its state needs no session"


def test_a_session_lost_behind_an_answer_is_opened_once_with_the_same_answers() -> None:
    required, answers = InputRequired((A,), STATE), {"a": ROOTS}
    said, told, error = rounds_of([Line("modern"), required, answers, LOST, Line("modern"), SENT])
    assert said == ["open s", "send 1 add", "ask a", "send 2 add", "open s", "send 1 add"]
    assert told[1] == told[2] != {} and error is None
    _, _, error = rounds_of([Line("modern"), LOST, Line("modern"), required, answers, LOST])
    assert isinstance(error, UpstreamUnavailable) and not error.sent


def test_a_server_that_has_become_legacy_meanwhile_is_told_of_no_rounds() -> None:
    dead = Line("modern")
    dead.alive = False
    _, told, error = rounds_of([dead, InputRequired((A,), STATE), {"a": ROOTS}, Line("legacy"), SENT])
    assert told == [{}, {}] and error is None


def test_an_error_while_the_client_is_asked_ends_the_walk() -> None:
    thrown = UpstreamTimeout("nobody answered")
    said, _, error = rounds_of([Line("modern"), InputRequired((A,), STATE), thrown])
    assert said[-1] == "ask a" and error is thrown


@pytest.mark.parametrize(
    ("client", "server", "passes"),
    [
        pytest.param("modern", "modern", True, id="a modern client's retry"),
        pytest.param("modern", "legacy", False, id="a legacy server knows no rounds"),
        pytest.param("legacy", "modern", False, id="a legacy client makes none: its state was never sealed"),
        pytest.param("legacy", "legacy", True, id="between those of old they are words like any other"),
    ],
)
def test_who_may_speak_of_rounds(client: Era, server: Era, passes: bool) -> None:
    words: RawMap = {"requestState": Raw(b'"s"'), "inputResponses": Raw(b'{"a":{}}')}
    one = call("tools/call", "s__add", client, name="s__add", requestState="s", inputResponses={"a": {}})
    _, told, error = rounds_of([Line(server), SENT], one)
    assert told == [{key: json.loads(bytes(value)) for key, value in words.items()} if passes else {}]
    assert error is None


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


# --- arguments that are repeated in headers

REGION = read_plan(b'{"properties":{"region":{"type":"string","x-mcp-header":"Region"}}}')
EU = {"region": "eu"}


def repeating(era: Era, server: Era, headers: dict[bytes, bytes], arguments: Any = EU, *, mirrored: bool = True) -> Any:
    """The lines that go out with the call, or the error that it ends with."""
    params = tuple(name for name in headers if name.startswith(b"mcp-param-"))
    where = Target("s", "add", b'"add"', REGION, mirrored)
    one = call("tools/call", "s__add", era, name="s__add", arguments=arguments)
    needs, error = feed(exchange(one, where, None, Said(headers, frozenset(), params)), [Line(server), SENT])
    return error if error is not None else needs[-1].out.lines


SAID = {b"mcp-param-region": b"eu", b"mcp-param-new": b"1"}
LINES = b"Mcp-Param-Region: eu\r\n"


@pytest.mark.parametrize(
    ("client", "server", "headers", "lines"),
    [
        pytest.param("modern", "modern", SAID, LINES + b"mcp-param-new: 1\r\n", id="made anew, and forwarded"),
        pytest.param("modern", "legacy", SAID, b"", id="a legacy server has none"),
        pytest.param("legacy", "modern", {}, LINES, id="a legacy client says none, a modern server gets them"),
        pytest.param("legacy", "modern", SAID, LINES, id="a legacy client's are not looked at"),
        pytest.param("legacy", "legacy", {}, b"", id="legacy on both sides"),
    ],
)
def test_headers_that_repeat_arguments(client: Era, server: Era, headers: dict[bytes, bytes], lines: bytes) -> None:
    assert repeating(client, server, headers) == lines


def test_over_stdio_they_are_checked_and_not_sent() -> None:
    assert repeating("modern", "modern", SAID, mirrored=False) == b""
    assert isinstance(repeating("modern", "modern", {}, mirrored=False), HeaderMismatch)
    huge = {"region": "x" * 100_000}
    assert repeating("legacy", "modern", {}, huge, mirrored=False) == b"", "no header has to say it"
    assert isinstance(repeating("legacy", "modern", {}, huge), InvalidParams)


@pytest.mark.parametrize("server", ["legacy", "modern"])
def test_a_modern_client_must_say_them_whoever_the_server_is(server: Era) -> None:
    for headers in ({}, {b"mcp-param-region": b"us"}):
        error = repeating("modern", server, headers)
        assert isinstance(error, HeaderMismatch) and error.code == -32020


def test_a_tool_found_late_is_checked_before_its_server_is_reached() -> None:
    one = call("tools/call", "s__add", "modern", name="s__add", arguments=EU)
    late = Target("s", "add", b'"add"', REGION)
    needs, error = feed(exchange(one, None, None, Said({}, frozenset(), ())), [late])
    assert asked(needs) == ["find tools s__add"]
    assert isinstance(error, HeaderMismatch)


# --- tasks ------------------------------------------------------------------------------------------------------------

OURS = Task("s", "t1", "modern")


def test_a_request_about_a_task_goes_to_the_server_that_made_it_under_its_own_id() -> None:
    walk = about_task(call("tasks/get", "handle", "modern", taskId="handle"), OURS)
    assert asks_to_open(next(walk), "s")
    need = walk.send(Line("modern"))
    assert isinstance(need, Send)
    assert (need.out.name, json.loads(need.out.body)["params"]["taskId"]) == ("t1", "t1")
    with pytest.raises(StopIteration):
        walk.send(SENT)


def test_a_server_of_another_era_knows_the_task_no_more() -> None:
    walk = about_task(call("tasks/get", "handle", "modern", taskId="handle"), OURS)
    next(walk)
    with pytest.raises(NotVisible):
        walk.send(Line("legacy"))


@pytest.mark.parametrize(
    ("alone", "offered", "expected"),
    [
        pytest.param({"s"}, True, {"ttl": 1}, id="it runs as one"),
        pytest.param(set(), True, MethodNotFound, id="told of tasks: this tool runs as none"),
        pytest.param(set(), False, None, id="not told: it means nothing"),
    ],
)
def test_a_legacy_call_that_is_to_run_as_a_task(alone: set[str], offered: bool, expected: Any) -> None:
    line = Line()
    line.dialect = Dialect("legacy", "2025-11-25", {"tasks": {"requests": {"tools": {"call": {}}}}})
    walk = as_task(call("tools/call", "x", task={"ttl": 1}), target("x"), None, alone, offered=offered)
    assert asks_to_open(next(walk), "s")
    if expected is MethodNotFound:
        with pytest.raises(MethodNotFound):
            walk.send(line)
        return
    need = walk.send(line)
    assert isinstance(need, Send)
    assert json.loads(need.out.body)["params"].get("task") == expected


class Counted:
    """Counts for a call, and refuses nothing."""

    def reserve(self, call: Call, target: Target, params: Any) -> Any:
        return params


COUNTED = Counted()


def test_what_is_limited_is_reserved_once_behind_the_look_up_and_ahead_of_the_server() -> None:
    line = Line()
    needs, error = feed(exchange(CALL, None, limited=COUNTED), [target("add"), CALL.params, line, LOST, line, SENT])
    assert error is None
    assert asked(needs) == ["find tools s__add", "reserve add", "open s", "send 1 add", "open s", "send 2 add"]


def test_what_is_not_there_reserves_nothing() -> None:
    needs, error = feed(exchange(CALL, None, limited=COUNTED), [None])
    assert asked(needs) == ["find tools s__add"]
    assert isinstance(error, NotVisible)


def test_what_is_durable_is_recorded_once_behind_what_it_takes_and_ahead_of_the_server() -> None:
    line = Line()
    walk = exchange(CALL, None, limited=True, durable=True)
    needs, error = feed(walk, [target("add"), CALL.params, None, line, LOST, line, SENT])
    assert error is None
    assert asked(needs) == [
        "find tools s__add", "reserve add", "begin add", "open s", "send 1 add", "open s", "send 2 add",
    ]  # fmt: skip
    needs, error = feed(exchange(CALL, None, durable=True), [None])
    assert asked(needs) == ["find tools s__add"] and isinstance(error, NotVisible)
