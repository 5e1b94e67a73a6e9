"""`narthex list` and `narthex call` as their users run them: processes, against a real server of either era."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from narthex.cli.call import parameter_headers, typed
from narthex.cli.client import Failure, explain, one_line
from narthex.testing import FakeServer, JsonRpcError

SOURCE = str(Path(__file__).parents[2] / "src")
SCHEMA = {
    "type": "object",
    "properties": {
        "count": {"type": "integer"},
        "text": {"type": "string"},
        "maybe": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
        "region": {"type": "string", "x-mcp-header": "Region"},
    },
}
ESCAPE = "\x1b]0;owned\x07"
TOOLS = [
    {"name": "echo", "description": f"Says it again.{ESCAPE}\nAt length.", "inputSchema": SCHEMA},
    {"name": "fails", "inputSchema": {"type": "object"}, "vendor": {"kept": 1.0}},
]
PROMPTS = [{"name": "greet", "title": "A greeting"}]
RESOURCES = [{"uri": "test://one", "name": "one"}]


def refuse(params: dict[str, Any]) -> dict[str, Any]:
    raise JsonRpcError(-31001, "denied", data={"reason": "denied", "decisionId": "d"})


@pytest.fixture(params=["modern", "legacy", "dual"])
def server(request: pytest.FixtureRequest) -> Iterator[FakeServer]:
    answers: Any = {
        "fails": {"content": [{"type": "text", "text": "it broke"}], "isError": True},
        "refused": refuse,
        "parts": {
            "content": [
                {"type": "text", "text": "one\ntwo"},
                {"type": "image", "mimeType": "image/png", "data": "AAAA"},
                {"type": "resource_link", "uri": "test://one"},
                {"type": "resource", "resource": {"uri": "test://two", "text": "inside"}},
            ]
        },
        "structured": {"content": [], "structuredContent": {"a": 1}},
    }
    given: Any = {"tools": TOOLS, "prompts": PROMPTS, "resources": RESOURCES, "answers": answers}
    with FakeServer(**given, eras=request.param, page=1) as server:
        yield server


@pytest.fixture
def modern() -> Iterator[FakeServer]:
    with FakeServer(tools=TOOLS, eras="modern") as server:
        yield server


def narthex(*arguments: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the program as a user does, in a directory of its own."""
    environment = {**os.environ, "PYTHONPATH": SOURCE, "HOME": str(cwd), "NO_COLOR": "1", **env}
    command = [sys.executable, "-m", "narthex.cli.main", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=60)


def test_list_json_is_what_the_server_said(server: FakeServer, tmp_path: Path) -> None:
    done = narthex("list", "--url", server.url, "--json", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == {"tools": TOOLS, "prompts": PROMPTS, "resources": RESOURCES}


@pytest.mark.parametrize("tokenizer", ["estimate", "o200k"])
def test_list_says_what_each_definition_takes_of_a_context(server: FakeServer, tmp_path: Path, tokenizer: str) -> None:
    done = narthex("list", "--url", server.url, "--json", f"--tokens={tokenizer}", cwd=tmp_path)
    found = json.loads(done.stdout)
    assert found["tokenizer"] == tokenizer and {one["name"] for one in found["tools"]} == {"echo", "fails"}
    assert found["total"]["tools"] == sum(one["tokens"] for one in found["tools"])
    echo, fails = found["tools"]
    assert echo["tokens"] > fails["tokens"] > 0, "the largest first"
    if tokenizer == "estimate":
        shown = narthex("list", "--url", server.url, "--tokens", cwd=tmp_path).stdout
        assert f"Tools: {found['total']['tools']} tokens (estimate)" in shown and str(echo["tokens"]) in shown


def test_list_is_a_table_that_no_server_can_steer(server: FakeServer, tmp_path: Path) -> None:
    done = narthex("list", "--url", server.url, cwd=tmp_path, COLUMNS="100")
    assert done.returncode == 0
    assert "\x1b" not in done.stdout and "\x07" not in done.stdout
    lines = done.stdout.splitlines()
    assert lines[0].endswith("2 tools, 1 prompt, 1 resource")
    assert "  echo   Says it again. ]0;owned At length." in lines
    assert "  greet  A greeting" in lines
    assert "  test://one  one" in lines


def test_call_prints_the_text(server: FakeServer, tmp_path: Path) -> None:
    done = narthex("call", "echo", "--arg", "text=5", "--arg", "count=5", "--url", server.url, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, '{"count": 5, "text": "5"}\n')


def test_call_json_prints_the_response(server: FakeServer, tmp_path: Path) -> None:
    done = narthex("call", "echo", "--args", '{"a": [1]}', "--url", server.url, "--json", cwd=tmp_path)
    response = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (0, "")
    assert response["jsonrpc"] == "2.0"
    assert response["result"]["content"] == [{"type": "text", "text": '{"a": [1]}'}]


@pytest.mark.parametrize(
    ("tool", "out", "err"),
    [
        pytest.param("fails", "it broke\n", "", id="a tool that says it failed"),
        pytest.param("refused", "", "error -31001: denied (denied); decisionId d\n", id="an error with a reason"),
        pytest.param(
            "absent", "", "error -32602: unknown: absent\n", id="a tool that is not listed is still asked for"
        ),
    ],
)
def test_call_exits_1(server: FakeServer, tmp_path: Path, tool: str, out: str, err: str) -> None:
    done = narthex("call", tool, "--url", server.url, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (1, out, err)
    done = narthex("call", tool, "--url", server.url, "--json", cwd=tmp_path)
    assert done.returncode == 1
    assert json.loads(done.stdout)["jsonrpc"] == "2.0"


@pytest.mark.parametrize(
    ("data", "line"),
    [
        pytest.param(None, "error 1: no", id="no data"),
        pytest.param("text", "error 1: no", id="data of another kind"),
        pytest.param(
            {"reason": "approval_required", "decisionId": "d", "approvalId": "a", "retryAfterSeconds": 90},
            "error 1: no (approval_required); decisionId d, approvalId a, again in 1m 30s",
            id="all of it",
        ),
        pytest.param({"retryAfterSeconds": 10}, "error 1: no; again in 10s", id="a time alone"),
        pytest.param({"decisionId": 7, "approvalId": [], "retryAfterSeconds": True}, "error 1: no", id="other types"),
        pytest.param({"retryAfterSeconds": 1e300}, "error 1: no", id="no time that anybody waits"),
        pytest.param({"retryAfterSeconds": -1}, "error 1: no", id="a time that was"),
        pytest.param({"decisionId": f"d{ESCAPE}"}, "error 1: no; decisionId d ]0;owned", id="an escape"),
    ],
)  # fmt: skip
def test_an_error_in_one_line(data: Any, line: str) -> None:
    assert explain(Failure(1, "no", data)) == line


@pytest.mark.parametrize(
    ("tool", "lines"),
    [
        pytest.param(
            "parts", ["one", "two", "[image image/png, about 3 bytes]", "test://one", "inside"], id="each kind"
        ),
        pytest.param("structured", ["{", '  "a": 1', "}"], id="structured content alone"),
    ],
)
def test_content_is_shown_by_kind(server: FakeServer, tmp_path: Path, tool: str, lines: list[str]) -> None:
    assert narthex("call", tool, "--url", server.url, cwd=tmp_path).stdout.splitlines() == lines


def test_an_event_stream_is_read_up_to_the_answer(tmp_path: Path) -> None:
    note = {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "x"}}
    with FakeServer(tools=TOOLS, stream=True, events=[note, note]) as server:
        done = narthex("call", "echo", "--args", "{}", "--url", server.url, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "{}\n")


def test_a_legacy_session_is_ended(tmp_path: Path) -> None:
    with FakeServer(tools=TOOLS, eras="legacy") as server:
        narthex("call", "echo", "--url", server.url, cwd=tmp_path)
        verbs = [(asked.verb, asked.method) for asked in server.asked]
    assert verbs[-4:] == [
        ("POST", "initialize"),
        ("POST", "notifications/initialized"),
        ("POST", "tools/call"),
        ("DELETE", ""),
    ]
    assert server.sessions == set()


def test_an_era_that_is_named_is_not_looked_for(modern: FakeServer, tmp_path: Path) -> None:
    narthex("call", "echo", "--era", "modern", "--url", modern.url, cwd=tmp_path)
    assert [asked.method for asked in modern.asked] == ["tools/call"]
    (asked,) = modern.asked
    assert (asked.headers["mcp-method"], asked.headers["mcp-name"]) == ("tools/call", "echo")


def test_a_server_that_speaks_only_the_other_era_is_a_clear_error(modern: FakeServer, tmp_path: Path) -> None:
    done = narthex("call", "echo", "--era", "legacy", "--url", modern.url, cwd=tmp_path)
    assert done.returncode == 1
    assert "error -32022: unsupported version" in done.stderr


def test_headers_that_a_schema_asks_for_are_sent(modern: FakeServer, tmp_path: Path) -> None:
    narthex("call", "echo", "--arg", "region=eu-1", "--url", modern.url, cwd=tmp_path)
    assert modern.requests("tools/call")[0].headers["mcp-param-region"] == "eu-1"


def test_headers_are_looked_up_when_the_server_misses_them(tmp_path: Path) -> None:
    def strict(params: dict[str, Any]) -> dict[str, Any]:
        if "mcp-param-region" not in server.asked[-1].headers:
            raise JsonRpcError(-32020, "header missing", status=400)
        return {"content": [{"type": "text", "text": "ok"}]}

    with FakeServer(tools=TOOLS, eras="modern", answers={"echo": strict}) as server:
        done = narthex("call", "echo", "--args", '{"region": "eu"}', "--url", server.url, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "ok\n")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        pytest.param(["call"], "Missing argument", id="no tool"),
        pytest.param(["call", "x", "--arg", "novalue"], "is not NAME=VALUE", id="an argument without a value"),
        pytest.param(["call", "x", "--args", "[1]"], "not a JSON object", id="arguments that are no object"),
        pytest.param(["call", "x", "--args", "{"], "not a JSON object", id="arguments that are no JSON"),
        pytest.param(["call", "x", "--era", "old"], "not one of", id="no such era"),
        pytest.param(["list", "--url", "ftp://x"], "--url", id="no web URL"),
        pytest.param(["list", "--url", "http://x", "--endpoint", "y"], "leave --config and --endpoint out", id="both"),
        pytest.param(["list", "--config", "absent.yaml"], "does not exist", id="no such file"),
    ],
)
def test_misuse_exits_2(tmp_path: Path, arguments: list[str], says: str) -> None:
    done = narthex(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert says in done.stderr


def test_nobody_there_is_one_clear_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: nobody else gets it
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/mcp?key=secret"
        done = narthex("list", "--url", url, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == f"narthex: nothing answers at {url.partition('?')[0]}: is `narthex serve` running?\n"


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        pytest.param(b"SSH-2.0-\x1b[31mhello\r\n", "no answer from", id="no HTTP"),
        pytest.param(b"", "no answer from", id="closed at once"),
        pytest.param(b"HTTP/1.1 404 No\r\nContent-Length: 2\r\n\r\nno", "(HTTP 404)", id="a web server"),
        pytest.param(b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n", "does not let this client in", id="a login"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", "no answer from", id="half an answer"),
        pytest.param(b"HTTP/1.1 302 Go\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n", "(HTTP 302)", id="a redirect"),
    ],
)
def test_something_else_there_is_one_clear_line(tmp_path: Path, answer: bytes, says: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"http://127.0.0.1:{mute.getsockname()[1]}/mcp"
        process = subprocess.Popen(
            [sys.executable, "-m", "narthex.cli.main", "list", "--era", "modern", "--url", url],
            env={**os.environ, "PYTHONPATH": SOURCE}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path,
        )  # fmt: skip
        accepted, _ = mute.accept()
        with accepted, accepted.makefile("rb") as request:
            length = 0
            while (line := request.readline()).strip():
                length = int(line[15:]) if line.lower().startswith(b"content-length:") else length
            request.read(length)  # all of it: closing with bytes unread would reset the connection
            accepted.sendall(answer)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert says in err.decode()
    assert err.startswith(b"narthex: ") and err.count(b"\n") == 1 and b"\x1b" not in err


@pytest.mark.parametrize("name", ["narthex.yaml", "mine.yaml"])
def test_the_url_comes_from_the_configuration(modern: FakeServer, tmp_path: Path, name: str) -> None:
    address = modern.url.removeprefix("http://").removesuffix("/mcp")
    (tmp_path / name).write_text(f"version: 1\nlisten: {address}\nservers:\n  a: {{url: 'http://127.0.0.1:1/mcp'}}\n")
    given = [] if name == "narthex.yaml" else ["--config", name]
    assert narthex("call", "echo", *given, cwd=tmp_path).returncode == 0
    done = narthex("list", *given, "--endpoint", "absent", cwd=tmp_path)
    assert (done.returncode, "no endpoint 'absent'" in done.stderr) == (2, True)


def test_a_configuration_that_cannot_be_used_exits_1(tmp_path: Path) -> None:
    (tmp_path / "narthex.yaml").write_text("version: 1\nserverz: {}\n")
    done = narthex("list", cwd=tmp_path)
    assert done.returncode == 1
    assert "narthex.yaml:2:1" in done.stderr


def test_servers_missing_from_a_list_are_named(tmp_path: Path) -> None:
    class Degraded(FakeServer):
        def _page(self, member: str, params: dict[str, Any]) -> dict[str, Any]:
            lost = [{"server": "dead", "reason": "unavailable"}]
            return {**super()._page(member, params), "_meta": {"narthex/missing": lost}}

    with Degraded(tools=TOOLS, eras="modern") as server:
        done = narthex("list", "--url", server.url, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "missing: dead (unavailable)\n")


@pytest.mark.parametrize(
    ("text", "schema", "value"),
    [
        pytest.param("5", {"type": "integer"}, 5, id="a number"),
        pytest.param("5", {"type": "string"}, "5", id="text that looks like a number"),
        pytest.param("true", {"type": "string"}, "true", id="text that looks like a boolean"),
        pytest.param('"x"', {"type": "string"}, '"x"', id="text keeps its quotes"),
        pytest.param("null", {"type": ["string", "null"]}, None, id="another named type fits"),
        pytest.param("5", {"type": ["string", "null"]}, "5", id="no other named type fits"),
        pytest.param("5", {"anyOf": [{"type": "integer"}, {"type": "null"}]}, 5, id="an optional number"),
        pytest.param("[1, 2]", {"type": "array"}, [1, 2], id="a list"),
        pytest.param("abc", {"type": "integer"}, "abc", id="what does not fit is sent: the server decides"),
        pytest.param('{"a": 1}', {}, {"a": 1}, id="nothing said: JSON"),
        pytest.param("Europe/Lisbon", {}, "Europe/Lisbon", id="nothing said, no JSON: text"),
        pytest.param("", {}, "", id="empty"),
        pytest.param("5", {"type": 7, "anyOf": "x"}, 5, id="a schema that is none"),
    ],
)
def test_typed(text: str, schema: dict[str, Any], value: Any) -> None:
    assert typed(text, schema) == value


def test_parameter_headers_go_down_plain_properties() -> None:
    schema = {
        "properties": {
            "a": {"type": "object", "properties": {"b": {"x-mcp-header": "Deep"}, "c": {"x-mcp-header": "Flag"}}},
            "bad": {"x-mcp-header": "no\r\nheader"},
            "absent": {"x-mcp-header": "Absent"},
        }
    }
    arguments = {"a": {"b": "ü", "c": True}, "bad": "x"}
    assert parameter_headers(schema, arguments) == {"Mcp-Param-Deep": "=?base64?w7w=?=", "Mcp-Param-Flag": "true"}


def test_one_line() -> None:
    assert one_line("a\x1b[31m\n\tb") == "a [31m b"
    assert len(one_line("x" * 10_000)) == 500
