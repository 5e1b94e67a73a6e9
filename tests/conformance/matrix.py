"""What a client can do with a server, feature by feature, whatever era each is of: the rows of the matrix test.

In: a `Talker`, a client of one era at an endpoint behind which the fixture is, in one era over one transport. A feature
does its thing, looks at all of it, and returns; a JSON-RPC error raises `Refused`. `matrix.yml` says where a feature is
refused, and which sentence of the specification wants it so; `test_matrix.py` runs them all.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.conformance.fixture.call import TASKS
from tests.conformance.fixture.tools import EXACT, PAGE, PIXEL, TOOLS
from tests.e2e.harness import CAPABILITIES, LEGACY, Era, Wire, message, render, routing_headers, text, wait_for

ABLE: dict[str, Any] = {"elicitation": {"form": {}, "url": {}}, "sampling": {}, "roots": {"listChanged": True}}
LEVEL = "io.modelcontextprotocol/logLevel"
STAMP = "io.modelcontextprotocol/subscriptionId"
CONTENT = {"username": "ada", "email": "ada@example.com", "name": "ada", "color": "red", "ok": True, "confirm": True}
COMPLETED = {"values": ["paris", "park", "party"], "total": 3, "hasMore": False}
Json = dict[str, Any]


class Refused(Exception):
    """Answered with a JSON-RPC error."""

    def __init__(self, error: Json) -> None:
        super().__init__(str(error))
        self.error, self.code = error, int(error["code"])


class Otherwise(Exception):
    """Answered well, by other means than the feature's own; says what came instead."""


@dataclass
class Heard:
    """All that came of one call: notifications in order, what was asked, the response with its bytes."""

    notes: list[Json] = field(default_factory=list)
    asked: list[Json] = field(default_factory=list)
    response: Json = field(default_factory=dict)
    raw: bytes = b""

    @property
    def result(self) -> Json:
        if "error" in self.response:
            raise Refused(self.response["error"])
        return dict(self.response["result"])

    def told(self, method: str) -> list[Json]:
        return [one["params"] for one in self.notes if one["method"] == method]


class Talker:
    """A client of one era. It answers what it is asked, and keeps its session. What is in `able` it can be asked."""

    def __init__(self, url: str, era: Era, able: Mapping[str, Any] = ABLE) -> None:
        self.url, self.era = url, era
        self.session: str | None = None
        self._id = 0
        if era == "legacy":
            info = {"name": "matrix", "version": "1"}
            params = {"protocolVersion": LEGACY, "capabilities": able, "clientInfo": info}
            with Wire(url) as wire:
                wire.send(self._post(message("initialize", params, self.next_id(), era=era)))
                response = wire.read()
            self.greeting = response.answer["result"]
            self.session = response.header("mcp-session-id")
            self._deliver(message("notifications/initialized", None, None, era=era))
        else:
            self.greeting = self.call("server/discover")

    def next_id(self) -> int:
        self._id += 1
        return self._id

    def _post(self, body: Mapping[str, Any]) -> bytes:
        host, _, path = self.url.removeprefix("http://").partition("/")
        headers = [("host", host), *routing_headers({"method": "", **body}, era=self.era, session=self.session)]
        return render("POST", f"/{path}", headers, json.dumps(body).encode())

    def _deliver(self, body: Mapping[str, Any]) -> None:
        with Wire(self.url) as wire:
            wire.send(self._post(body))
            assert wire.read().status == 202

    # --- calls

    def message(self, method: str, params: Mapping[str, Any], able: Mapping[str, Any]) -> Json:
        meta = {**({CAPABILITIES: able} if self.era == "modern" else {}), **params.get("_meta", {})}
        return message(method, {**params, **({"_meta": meta} if meta else {})}, self.next_id(), era=self.era)

    def hear(
        self,
        method: str,
        params: Mapping[str, Any] | None = None,
        *,
        able: Mapping[str, Any] = ABLE,
        agree: bool = True,
    ) -> Heard:
        """Send a request and answer what is asked, until its response is there."""
        heard, given = Heard(), dict(params or {})
        while True:
            self._once(self.message(method, given, able), heard, agree)
            result = heard.response.get("result", {})
            if result.get("resultType") != "input_required":
                return heard
            asked = result.get("inputRequests", {})
            heard.asked += asked.values()
            answers = {key: answer_to(one, agree) for key, one in asked.items()}
            state = {"requestState": result["requestState"]} if "requestState" in result else {}
            given = {**(params or {}), "inputResponses": answers, **state}

    def _once(self, body: Json, heard: Heard, agree: bool) -> None:
        with Wire(self.url) as wire:
            wire.send(self._post(body))
            head = wire.read_head()
            if not (head.header("content-type") or "").startswith("text/event-stream"):
                heard.raw = b"".join(wire.read_body(head))
                heard.response = json.loads(heard.raw)
                return
            for one, raw in wire.raw_events(head):
                if "method" not in one:
                    heard.response, heard.raw = one, raw
                elif "id" in one:
                    heard.asked.append(one)
                    self._deliver({"jsonrpc": "2.0", "id": one["id"], "result": answer_to(one, agree)})
                else:
                    heard.notes.append(one)

    def call(self, method: str, params: Mapping[str, Any] | None = None, **options: Any) -> Json:
        return self.hear(method, params, **options).result

    def tool(self, name: str, arguments: Json | None = None, **params: Any) -> Json:
        return self.call("tools/call", {"name": name, "arguments": arguments or {}, **params})

    def hear_tool(self, name: str, arguments: Json | None = None, *, agree: bool = True, **params: Any) -> Heard:
        return self.hear("tools/call", {"name": name, "arguments": arguments or {}, **params}, agree=agree)

    # --- changes

    @contextmanager
    def listening(self, *, uri: str = "", **lists: bool) -> Iterator[Iterator[Json]]:
        """What the client is told beside its calls. Its own subscription is in force when the block begins."""
        with Wire(self.url) as wire:
            if self.era == "modern":
                wanted = {**lists, **({"resourceSubscriptions": [uri]} if uri else {})}
                body = self.message("subscriptions/listen", {"notifications": wanted}, ABLE)
                wire.send(self._post(body))
                notes = wire.events(wire.read_head())
                agreed = next(notes)
                assert agreed["method"] == "notifications/subscriptions/acknowledged"
                assert agreed["params"]["notifications"] == wanted, agreed
                yield (self._stamped(one, body["id"]) for one in notes)
                return
            if uri:
                self.call("resources/subscribe", {"uri": uri})
            headers = [("accept", "text/event-stream"), ("mcp-session-id", str(self.session))]
            host, _, path = self.url.removeprefix("http://").partition("/")
            wire.send(render("GET", f"/{path}", [("host", host), *headers, ("mcp-protocol-version", LEGACY)]))
            yield wire.events(wire.read_head())
        if uri:
            self.call("resources/unsubscribe", {"uri": uri})

    @staticmethod
    def _stamped(note: Json, id_: int) -> Json:
        assert note["params"]["_meta"][STAMP] == id_, note
        return note


def answer_to(asked: Json, agree: bool) -> Json:
    """What the user, the model or the client says to a question."""
    if asked["method"] == "sampling/createMessage":
        return {
            "role": "assistant",
            "content": {"type": "text", "text": "Paris"},
            "model": "m",
            "stopReason": "endTurn",
        }
    if asked["method"] == "roots/list":
        return {"roots": [{"uri": "file:///srv/matrix", "name": "matrix"}]}
    if not agree:
        return {"action": "decline"}
    return {"action": "accept"} if asked["params"].get("mode") == "url" else {"action": "accept", "content": CONTENT}


def until(notes: Iterator[Json], method: str, so: Callable[[], bool] = lambda: True) -> Json:
    """The next notification of that kind behind which it is `so`: of what others changed we may still be told first."""
    return next(one for one in notes if one["method"] == method and so())


Feature = Callable[[Talker], None]
FEATURES: dict[str, Feature] = {}


def feature(run: Feature) -> Feature:
    """A row of the matrix; its name is what stands there."""
    FEATURES[run.__name__.replace("_", " ")] = run
    return run


# --- what is there


@feature
def a_greeting_tells_what_the_server_offers(one: Talker) -> None:
    offered = one.greeting["capabilities"]
    for name in ("tools", "prompts", "resources"):
        assert offered[name]["listChanged"] is True, offered
    assert offered["resources"]["subscribe"] is True and {"completions", "logging"} <= offered.keys()
    assert "A fixture for tests." in one.greeting["instructions"]


@feature
def tools_are_listed_whole(one: Talker) -> None:
    listed = {tool["name"]: tool for tool in one.call("tools/list")["tools"]}
    for name, tool in TOOLS.items():
        assert {key: value for key, value in listed[name].items() if key != "execution"} == tool.spec


@feature
def every_page_of_a_servers_list_is_there(one: Talker) -> None:
    assert {tool["name"] for tool in one.call("tools/list")["tools"]} >= TOOLS.keys()
    assert "test_input_required_result_prompt" in str(one.call("prompts/list"))
    assert "ui://fixture/panel" in str(one.call("resources/list"))
    assert [each["name"] for each in one.call("resources/templates/list")["resourceTemplates"]] == ["template"]


@feature
def a_cursor_that_nobody_gave_is_refused(one: Talker) -> None:
    one.call("tools/list", {"cursor": "8"})


@feature
def every_kind_of_content_passes(one: Talker) -> None:
    assert text(one.tool("test_simple_text")) == "This is a simple text response for testing."
    assert one.tool("test_image_content")["content"][0]["data"] == PIXEL
    assert one.tool("test_audio_content")["content"][0]["type"] == "audio"
    assert [part["type"] for part in one.tool("test_multiple_content_types")["content"]] == [
        "text",
        "image",
        "resource",
    ]


@feature
def links_icons_annotations_and_foreign_meta_pass_whole(one: Talker) -> None:
    link, noted = (result := one.tool("rich_content"))["content"]
    assert (link["type"], link["icons"][0]["sizes"]) == ("resource_link", ["1x1"])
    assert noted["annotations"]["priority"] == 0.5 and noted["_meta"] == {"example.com/kept": [1, {"a": None}]}
    assert result["_meta"]["example.com/result"] is True
    assert one.call("resources/read", {"uri": link["uri"]})["contents"][0]["text"]


@feature
def bytes_and_unknown_members_of_a_result_pass(one: Talker) -> None:
    assert one.hear_tool("exact_bytes").raw.count(EXACT.encode()) == 2


@feature
def foreign_meta_of_a_call_reaches_the_server(one: Talker) -> None:
    told = {"example.com/run": {"id": 7}, "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    assert json.loads(text(one.tool("seen_meta", _meta=told))) == told


@feature
def the_failure_of_a_tool_is_a_result(one: Talker) -> None:
    assert one.tool("test_error_handling")["isError"] is True


@feature
def an_unknown_tool_is_refused(one: Talker) -> None:
    one.tool("no_such_tool")


@feature
def arguments_that_travel_in_headers_reach_the_tool(one: Talker) -> None:
    """A client of this test sends no such headers: one whose argument is left out needs none."""
    assert text(one.tool("test_x_mcp_header")) == "region None"


@feature
def prompts_are_got(one: Talker) -> None:
    params = {"name": "test_prompt_with_arguments", "arguments": {"arg1": "x", "arg2": "y"}}
    assert "arg1='x', arg2='y'" in one.call("prompts/get", params)["messages"][0]["content"]["text"]


@feature
def an_unknown_prompt_is_refused(one: Talker) -> None:
    one.call("prompts/get", {"name": "no_such_prompt"})


@feature
def resources_are_read(one: Talker) -> None:
    assert "static text" in one.call("resources/read", {"uri": "test://static-text"})["contents"][0]["text"]
    assert one.call("resources/read", {"uri": "test://static-binary"})["contents"][0]["blob"] == PIXEL


@feature
def a_template_leads_to_its_server(one: Talker) -> None:
    assert '"7"' in one.call("resources/read", {"uri": "test://template/7/data"})["contents"][0]["text"]


@feature
def panels_of_mcp_apps_are_read(one: Talker) -> None:
    (panel,) = one.call("resources/read", {"uri": "ui://fixture/panel"})["contents"]
    assert panel["mimeType"] == "text/html;profile=mcp-app" and "panel" in panel["text"]
    assert one.tool("show_panel")["structuredContent"] == {"value": 1}


@feature
def a_resource_that_is_not_there_is_refused(one: Talker) -> None:
    one.call("resources/read", {"uri": "test://nothing"})


@feature
def arguments_are_completed(one: Talker) -> None:
    for ref in (
        {"type": "ref/prompt", "name": "test_prompt_with_arguments"},
        {"type": "ref/resource", "uri": "test://template/{id}/data"},
    ):
        params = {"ref": ref, "argument": {"name": "arg1", "value": "par"}}
        assert one.call("completion/complete", params)["completion"] == COMPLETED


@feature
def a_ping_is_answered(one: Talker) -> None:
    one.call("ping")


@feature
def a_method_that_nobody_knows_is_refused(one: Talker) -> None:
    one.call("no/such/method")


# --- while a call runs


@feature
def progress_has_the_clients_token(one: Talker) -> None:
    told = one.hear_tool("test_tool_with_progress", _meta={"progressToken": "mine"}).told("notifications/progress")
    assert [(each["progressToken"], each["progress"], each["total"]) for each in told] == [
        ("mine", step, 100) for step in (0, 50, 100)
    ]


@feature
def progress_is_told_to_who_asked_alone(one: Talker) -> None:
    assert not one.hear_tool("test_tool_with_progress").told("notifications/progress")


def logged(one: Talker, level: str) -> list[str]:
    if one.era == "legacy":
        one.call("logging/setLevel", {"level": level})
    meta = {"_meta": {LEVEL: level}} if one.era == "modern" else {}
    return [each["data"] for each in one.hear_tool("test_tool_with_logging", **meta).told("notifications/message")]


@feature
def log_messages_come_on_the_stream_of_the_call(one: Talker) -> None:
    assert logged(one, "info") == [f"Tool execution {each}" for each in ("started", "processing data", "completed")]


@feature
def log_messages_below_the_clients_level_stay_away(one: Talker) -> None:
    assert logged(one, "error") == []


@feature
def a_call_that_is_given_up_ends_at_the_server(one: Talker) -> None:
    label = str(uuid.uuid4())
    body = one.message("tools/call", {"name": "slow_compute", "arguments": {"seconds": 60, "label": label}}, ABLE)

    def knows(state: str) -> bool:
        return label in json.loads(text(one.tool("computations")))[state]

    with Wire(one.url) as wire:
        wire.send(one._post(body))
        wait_for(lambda: knows("begun"), "the call at the server")
        if one.era == "legacy":
            one._deliver({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": body["id"]}})
    wait_for(lambda: knows("given up"), "the end of the call at the server")


# --- what the server asks


def kinds(heard: Heard) -> list[str]:
    return [each["method"] for each in heard.asked]


@feature
def a_form_is_filled_in(one: Talker) -> None:
    heard = one.hear_tool("test_elicitation", {"message": "Who is it?"})
    assert kinds(heard) == ["elicitation/create"] and heard.asked[0]["params"]["message"] == "Who is it?"
    assert heard.asked[0]["params"]["requestedSchema"]["required"] == ["username", "email"]
    assert "action=accept" in text(heard.result) and "ada@example.com" in text(heard.result)


@feature
def a_form_is_declined(one: Talker) -> None:
    heard = one.hear_tool("test_elicitation", {"message": "Who is it?"}, agree=False)
    assert "action=decline" in text(heard.result)


@feature
def a_page_is_opened(one: Talker) -> None:
    heard = one.hear_tool("open_page")
    assert kinds(heard) == ["elicitation/create"]
    asked = heard.asked[0]["params"]
    assert (asked["mode"], asked["url"]) == ("url", PAGE)
    assert ("elicitationId" in asked) == (one.era == "legacy"), "2026-07-28 has none"
    assert text(heard.result) == "action=accept"


@feature
def the_clients_model_is_asked(one: Talker) -> None:
    heard = one.hear_tool("test_sampling", {"prompt": "The capital of France?"})
    assert kinds(heard) == ["sampling/createMessage"]
    assert heard.asked[0]["params"]["messages"][0]["content"]["text"] == "The capital of France?"
    assert "Paris" in text(heard.result)


@feature
def the_clients_roots_are_asked(one: Talker) -> None:
    heard = one.hear_tool("test_input_required_result_list_roots")
    assert (kinds(heard), text(heard.result)) == (["roots/list"], "file:///srv/matrix")


@feature
def several_things_are_asked_at_once(one: Talker) -> None:
    heard = one.hear_tool("test_input_required_result_multiple_inputs")
    assert set(kinds(heard)) == {"elicitation/create", "sampling/createMessage", "roots/list"}
    assert text(heard.result) == "3 answers"


@feature
def several_things_are_asked_one_after_the_other(one: Talker) -> None:
    heard = one.hear_tool("test_input_required_result_multi_round")
    assert [each["params"]["message"][:6] for each in heard.asked] == ["Step 1", "Step 2"]
    assert text(heard.result).count("action=accept") == 2


@feature
def a_prompt_asks_too(one: Talker) -> None:
    heard = one.hear("prompts/get", {"name": "test_input_required_result_prompt"})
    assert kinds(heard) == ["elicitation/create"] and "ada" in str(heard.result["messages"])


@feature
def nobody_is_asked_what_he_did_not_declare(one: Talker) -> None:
    """A session says once what its client can be asked, so another one speaks here."""
    able = {"elicitation": {}}
    params = {"name": "test_sampling", "arguments": {"prompt": "x"}}
    heard = Talker(one.url, one.era, able).hear("tools/call", params, able=able)
    assert not heard.asked
    assert heard.result["isError"] is True, "it says so in words of its own"


# --- changes


@feature
def a_change_of_the_tools_is_told(one: Talker) -> None:
    with one.listening(toolsListChanged=True) as notes:
        before = one.call("tools/list")["tools"]
        one.tool("test_trigger_tool_change")
        until(notes, "notifications/tools/list_changed", lambda: one.call("tools/list")["tools"] != before)


@feature
def a_change_of_the_prompts_is_told(one: Talker) -> None:
    with one.listening(promptsListChanged=True) as notes:
        before = one.call("prompts/list")["prompts"]
        one.tool("test_trigger_prompt_change")
        until(notes, "notifications/prompts/list_changed", lambda: one.call("prompts/list")["prompts"] != before)


@feature
def a_resource_is_followed(one: Talker) -> None:
    with one.listening(uri="test://watched-resource") as notes:
        before = one.call("resources/read", {"uri": "test://watched-resource"})["contents"][0]["text"]
        one.tool("test_trigger_resource_update")
        told = until(notes, "notifications/resources/updated")["params"]
        assert told["uri"] == "test://watched-resource"
        assert one.call("resources/read", {"uri": told["uri"]})["contents"][0]["text"] != before


# --- tasks


@feature
def a_task_is_made_watched_and_ended(one: Talker) -> None:
    """Each era in its own way; where the eras differ, the tool runs plainly, or is refused."""
    able = {**ABLE, "extensions": {TASKS: {}}}
    params: Json = {"name": "slow_compute", "arguments": {"seconds": 0.1, "label": "x"}}
    result = one.call("tools/call", params if one.era == "modern" else {**params, "task": {"ttl": 60000}}, able=able)
    if "content" in result:
        assert text(result) == "computed x"
        raise Otherwise("runs plainly")
    if one.era == "modern":
        assert result["resultType"] == "task", result
        id_ = {"taskId": result["taskId"]}
        wait_for(lambda: one.call("tasks/get", id_, able=able)["status"] == "completed", "the end of the task")
        assert text(one.call("tasks/get", id_, able=able)["result"]) == "computed x"
        params["arguments"]["seconds"] = 60
        id_ = {"taskId": one.call("tools/call", params, able=able)["taskId"]}
        one.call("tasks/cancel", id_, able=able)
        assert one.call("tasks/get", id_, able=able)["status"] == "cancelled"
    else:
        id_ = {"taskId": result["task"]["taskId"]}
        assert text(one.call("tasks/result", id_)) == "computed x"
        assert one.call("tasks/get", id_)["status"] == "completed"
        params["arguments"]["seconds"] = 60
        id_ = {"taskId": one.call("tools/call", {**params, "task": {}})["task"]["taskId"]}
        assert one.call("tasks/cancel", id_)["status"] == one.call("tasks/get", id_)["status"] == "cancelled"


@feature
def a_task_of_nobody_is_refused(one: Talker) -> None:
    one.call("tasks/get", {"taskId": "no-such-task"}, able={**ABLE, "extensions": {TASKS: {}}})
