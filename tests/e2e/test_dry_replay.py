"""A recorded run answers an agent in the place of its servers: the same client gets the same, and nothing is sent."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mcp import Client as Sdk
from mcp import MCPError

from narthex.flow.route.names import shown_name
from narthex.testing import FakeServer
from narthex.testing.server import JsonRpcError
from tests.conftest import StartGateway
from tests.e2e.harness import CAPABILITIES, ROOT, Client, Era, Gateway, json_lines, wait_for

pytestmark = pytest.mark.e2e
STARTS_S = 90.0
"""A process that proves a journal before it listens may take so long on a machine that is busy."""
RUN = "trip-7"
HOSTILE = "ev\x1b[31mil\u202e\nname"
SHOWN = shown_name("one", HOSTILE, naming="prefix", max_name=48)
TOOLS = [
    {"name": name, "description": f"does {name}", "inputSchema": {"type": "object"}}
    for name in ("count", "broken", "fails", "delete_all", "secret", "buy", "wire", HOSTILE)
]
ASK: Any = {"_meta": {"io.narthex/run": RUN}}


def broken(params: dict[str, Any]) -> dict[str, Any]:
    raise JsonRpcError(-32050, "out of order", data={"since": "noon"})


class Counting:
    """Each call of it is answered by another number: what is given again is not what is answered anew."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, params: dict[str, Any]) -> dict[str, Any]:
        self.count += 1
        return {"content": [{"type": "text", "text": f"{self.count}: {json.dumps(params.get('arguments'))}"}]}


@pytest.fixture(scope="module")
def server() -> Iterator[FakeServer]:
    counting = Counting()
    failing = {"content": [{"type": "text", "text": "no luck"}], "isError": True}
    with FakeServer(
        tools=TOOLS,
        prompts=[{"name": "greet", "arguments": [{"name": "who"}]}],
        resources=[{"uri": "file:///a b.txt", "name": "a"}],
        answers={
            HOSTILE: {"content": [{"type": "text", "text": "\x1b]0;\u0007\u2028\r\n</script>"}]},
            "count": counting, "buy": counting, "secret": counting, "broken": broken, "fails": failing,
            "greet": {"messages": [{"role": "user", "content": {"type": "text", "text": "hello"}}]},
            "file:///a b.txt": {"contents": [{"uri": "file:///a b.txt", "text": "contents"}]},
        },
    ) as started:  # fmt: skip
        yield started


CONFIG: dict[str, Any] = {
    "version": 1,
    "audit": {
        "dir": "audit",
        "payloads": [{"tools": ["one__secret"], "keep": "none"}, {"keep": "full"}],
    },
    "grants": [
        {"name": "most", "allow": {"tools": ["one__*"], "prompts": ["one__*"], "resources": ["one__*"]}},
        {"name": "nothing dear", "deny": ["one__buy"], "when": "args.amount > 10"},
        {"name": "no deletes", "deny": ["*__delete_*"]},
        {"name": "a person", "hold": ["one__wire"]},
    ],
}
STEPS: list[tuple[str, dict[str, Any]]] = [
    ("tools/call", {"name": "one__count", "arguments": {"a": 1, "b": [1.0, None, "é"]}}),
    ("tools/call", {"name": "one__count", "arguments": {"a": 1, "b": [1.0, None, "é"]}}),
    ("tools/call", {"name": "one__count", "arguments": {"a": 2}}),
    ("tools/call", {"name": "one__count"}),
    ("tools/call", {"name": "one__broken", "arguments": {}}),
    ("tools/call", {"name": "one__fails", "arguments": {}}),
    ("tools/call", {"name": "one__buy", "arguments": {"amount": 11}}),
    ("tools/call", {"name": "one__buy", "arguments": {"amount": 9}}),
    ("tools/call", {"name": "one__delete_all", "arguments": {}}),
    ("tools/call", {"name": "one__wire", "arguments": {"to": "ada"}}),
    ("tools/call", {"name": SHOWN, "arguments": {"\x1b[31m": "\u202e"}}),
    ("prompts/get", {"name": "one__greet", "arguments": {"who": "ada"}}),
    ("resources/read", {"uri": "file:///a b.txt"}),
]


def take(client: Client, steps: list[tuple[str, dict[str, Any]]]) -> list[Any]:
    """What an agent is answered, but for ids."""
    found = []
    for method, params in steps:
        answer = client.ask(method, {**params, **ASK})
        found.append(answer.get("result") or answer["error"])
    return found


def records(gateway: Gateway) -> list[dict[str, Any]]:
    found = json_lines(*sorted((gateway.folder / "audit").glob("calls-*")))
    return [one for one in found if one["event"] == "call"]


class Replay:
    """`narthex replay --serve` as a process."""

    def __init__(self, *words: str, cwd: Path, port: int = 0) -> None:
        program = "import sys; from narthex.cli.main import main; sys.exit(main())"
        self.process = subprocess.Popen(
            [sys.executable, "-c", program, "replay", *words, "--serve", "--port", str(port)],
            env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "HOME": str(cwd), "PYTHONUNBUFFERED": "1"},
            cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            start_new_session=True,
        )  # fmt: skip
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line.rstrip("\n"))

    @property
    def said(self) -> str:
        return "\n".join(self.lines)

    def url(self) -> str:
        def look() -> str:
            found = re.search(r"mcp=(http://127\.0\.0\.1:\d+/\S+)", self.said)
            assert self.process.poll() is None or found, self.said
            return found[1] if found else ""

        return wait_for(look, "the address of the replay", STARTS_S)

    def end(self, *, by_signal: bool = True) -> tuple[int, str]:
        """Exit code and stdout."""
        if by_signal:
            self.process.send_signal(signal.SIGINT)
        return self.process.wait(STARTS_S), self.read()

    def read(self) -> str:
        """Stdout of a process that has ended; all of stderr is in `lines` then."""
        assert self.process.stdout is not None
        with self.process.stdout as out:
            said = out.read()
        self._reader.join(STARTS_S)
        return said

    def report(self) -> dict[str, Any]:
        code, said = self.end()
        found: dict[str, Any] = json.loads(said)
        assert code == (0 if found["is_same"] else 1), self.said
        return found


@pytest.fixture
def replay(tmp_path: Path) -> Iterator[Callable[..., Replay]]:
    started: list[Replay] = []

    def start(*words: str, port: int = 0) -> Replay:
        started.append(Replay(*words, cwd=tmp_path, port=port))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.wait(STARTS_S)


class Recorded:
    """A run that was recorded by a client of one era, and what it was answered."""

    def __init__(self, gateway: Gateway, era: Era, answers: list[Any]) -> None:
        self.folder, self.config = gateway.folder / "audit", gateway.folder / gateway.file
        self.era: Era = era
        self.answers = answers


@pytest.fixture(scope="module", params=["modern", "legacy"])
def recorded(request: pytest.FixtureRequest, module_gateway: StartGateway, server: FakeServer) -> Recorded:
    gateway = module_gateway({**CONFIG, "servers": {"one": {"url": server.url}}})
    client = Client(gateway.mcp, request.param)
    answers = take(client, STEPS)
    client.ask("tools/call", {"name": "one__secret", "arguments": {}})  # of no run
    wait_for(lambda: len(records(gateway)) == len(STEPS) + 1, "the records")
    gateway.signal(signal.SIGTERM)
    gateway.wait()
    return Recorded(gateway, request.param, answers)


def test_the_same_client_gets_the_same_and_nothing_is_sent(
    recorded: Recorded, server: FakeServer, replay: Callable[..., Replay]
) -> None:
    before = len(server.asked)
    running = replay(RUN, "--dir", str(recorded.folder), "--json")
    client = Client(running.url(), recorded.era)
    assert set(client.tools()) == {
        "one__count", "one__broken", "one__fails", "one__buy", "one__wire", SHOWN,
    }  # fmt: skip
    given = take(client, STEPS)
    for (method, params), was, now in zip(STEPS, recorded.answers, given, strict=True):
        if "code" in was and "decisionId" in was.get("data", {}):  # a refusal of the gateway
            assert (now["code"], now["data"]["reason"]) == (was["code"], was["data"]["reason"]), params
        else:
            assert now == was, (method, params)
    assert given[9]["code"] == -31004, "as it was held then"
    assert given[6]["data"]["decisionId"] == recorded.answers[6]["data"]["decisionId"], "as it was denied then"
    report = running.report()
    assert report["is_same"] and report["same"] == report["recorded"] == len(STEPS), report
    assert len(server.asked) == before, "nothing is sent to a server"


def test_what_the_agent_does_otherwise_is_reported(recorded: Recorded, replay: Callable[..., Replay]) -> None:
    running = replay(RUN, "--dir", str(recorded.folder), "--json")
    client = Client(running.url(), recorded.era)
    take(client, STEPS[:3])
    changed = client.call_error("one__buy", {"amount": 10, "note": "x\u001b[31m"})
    assert (changed["code"], changed["data"]["reason"]) == (-31005, "not_recorded")
    assert "decisionId" in changed["data"] and "one__buy" in changed["message"]
    assert client.call_error("one__nothing")["code"] == -32602
    assert client.call("one__count", {"a": 2})["content"], "the last answer, once more"
    report = running.report()
    assert not report["is_same"] and report["same"] == 3
    (change,) = report["changed"]
    assert (change["what"], change["members"]) == ("one__buy", ["amount", "note"])
    assert report["new"] == [{"what": "one__nothing", "count": 1, "why": ""}]
    assert report["again"] == [{"what": "one__count", "count": 1, "why": ""}]
    assert "\x1b" not in running.said
    missing = {row["what"]: row["count"] for row in report["missing"]}
    assert missing == {
        f"one__{HOSTILE}": 1, "one__wire": 1,
        "one__count": 1, "one__broken": 1, "one__fails": 1, "one__buy": 1, "one__delete_all": 1, "one__greet": 1,
        "one__file:///a b.txt": 1,
    }  # fmt: skip


def test_the_same_arguments_in_other_words(recorded: Recorded, replay: Callable[..., Replay]) -> None:
    running = replay(RUN, "--dir", str(recorded.folder), "--spent", "error")
    client = Client(running.url(), recorded.era)
    assert client.call("one__count", {"b": [1, None, "é"], "a": 1.0}) == recorded.answers[0]
    assert client.call("one__count", {"a": 1, "b": [1.0, None, "é"]}) == recorded.answers[1]
    assert client.call_error("one__count", {"a": 1, "b": [1.0, None, "é"]})["data"]["reason"] == "not_recorded"
    code, said = running.end()
    assert code == 1 and "made again       one__count  1" in said, said
    assert "not made" in said and "name  1" in said and not {"\x1b", "\u202e"} & set(said), said


def test_a_client_of_the_other_era_gets_it_in_its_words(recorded: Recorded, replay: Callable[..., Replay]) -> None:
    running = replay(RUN, "--dir", str(recorded.folder), "--json")
    other: Era = "legacy" if recorded.era == "modern" else "modern"
    given = take(Client(running.url(), other), STEPS)
    own = {"resultType", "ttlMs", "cacheScope"}
    for was, now in zip(recorded.answers, given, strict=True):
        if "code" not in was:
            assert {k: v for k, v in now.items() if k not in own} == {k: v for k, v in was.items() if k not in own}
            assert other == "legacy" or now["resultType"] == "complete"
        elif was["code"] > -32020 or was["code"] < -32099:
            assert now["code"] == was["code"]
    assert running.report()["is_same"]


def test_an_answer_that_is_not_there_is_said(recorded: Recorded, replay: Callable[..., Replay]) -> None:
    running = replay(str(recorded.folder), "--principal", "local", "--since", "2026", "--json")
    client = Client(running.url(), recorded.era)
    error = client.call_error("one__secret", {})
    assert error["data"]["reason"] == "not_recorded" and "was not kept" in error["message"]
    wait_for(lambda: "no answer to 1 call: its result was not kept" in running.said, "the warning")
    assert running.report()["unanswered"] == [{"what": "one__secret", "count": 1, "why": "its result was not kept"}]


def test_endpoints_and_lists_are_as_the_configuration_and_a_kept_list_say(
    recorded: Recorded, replay: Callable[..., Replay], tmp_path: Path
) -> None:
    config = json.loads(recorded.config.read_text())
    config["endpoints"] = {"default": {"servers": ["one"], "naming": "none"}}
    path, lists = tmp_path / "named.json", tmp_path / "lists.json"
    path.write_text(json.dumps(config))
    lists.write_text(json.dumps({"tools": [*TOOLS, {"name": "more", "inputSchema": {"type": "object"}}]}))
    running = replay(RUN, "--dir", str(recorded.folder), "--config", str(path), "--lists", str(lists))
    client = Client(running.url(), recorded.era)
    tools = {one["name"]: one["description"] for one in client.result("tools/list")["tools"] if "description" in one}
    assert tools["count"] == "does count" and "more" in client.tools()
    assert client.call("count", {"a": 2}) == recorded.answers[2]
    assert running.end()[0] == 1


def test_a_record_that_is_not_whole_is_refused_unless_told(
    recorded: Recorded, replay: Callable[..., Replay], tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    folder.mkdir()
    for path in recorded.folder.iterdir():
        if path.is_file():
            (folder / path.name).write_bytes(path.read_bytes().replace(b'"seconds":', b'"seconds":1'))
    refused = replay(RUN, "--dir", str(folder))
    assert refused.end(by_signal=False)[0] == 1 and "not whole" in refused.said and "--unproved" in refused.said
    told = replay(RUN, "--dir", str(folder), "--unproved")
    assert Client(told.url(), recorded.era).call("one__count", {"a": 2}) == recorded.answers[2]
    told.end()


def test_only_for_who_shows_the_key(recorded: Recorded, replay: Callable[..., Replay]) -> None:
    running = replay(RUN, "--dir", str(recorded.folder), "--keys")
    url = running.url()
    key = wait_for(lambda: re.search(r"key=(nx_\S+) ", running.said), "the key")[1]

    async def talk(**how: Any) -> str:
        import httpx2

        async with httpx2.AsyncClient() as http:
            body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
            return str((await http.post(url, json=body, headers={"accept": "application/json", **how})).status_code)

    assert asyncio.run(talk()) == "401"
    assert asyncio.run(talk(authorization=f"Bearer {key}")) == "200"
    running.end()


def test_a_port_that_is_taken(recorded: Recorded, replay: Callable[..., Replay]) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        running = replay(RUN, "--dir", str(recorded.folder), port=port)
        assert running.end(by_signal=False)[0] == 1
    assert f"cannot listen on port {port}" in running.said


def test_a_question_of_a_server_is_asked_again(start_gateway: StartGateway, replay: Callable[..., Replay]) -> None:
    """A modern call that is answered in two rounds is recorded as two, and played as two."""
    asks = {
        "resultType": "input_required", "requestState": "of-the-server",
        "inputRequests": {"who": {"method": "elicitation/create", "params": {
            "message": "Who?", "requestedSchema": {"type": "object", "properties": {"name": {"type": "string"}}},
        }}},
    }  # fmt: skip
    done = {"content": [{"type": "text", "text": "for ada"}]}
    answers = {"ask": lambda params: done if "inputResponses" in params else asks}

    def talk(url: str) -> list[Any]:
        client, able = Client(url), {"_meta": {CAPABILITIES: {"elicitation": {"form": {}}}, **ASK["_meta"]}}
        first = client.result("tools/call", {"name": "one__ask", "arguments": {}, **able})
        state = first.pop("requestState")
        assert state != "of-the-server", "it is sealed"
        given = {"who": {"action": "accept", "content": {"name": "ada"}}}
        answer = {"inputResponses": given, "requestState": state}
        return [first, client.result("tools/call", {"name": "one__ask", "arguments": {}, **answer, **able})]

    with FakeServer(
        tools=[{"name": "ask", "inputSchema": {"type": "object"}}], answers=answers, eras="modern"
    ) as server:
        audit = {"dir": "audit", "payloads": [{"keep": "full"}]}
        gateway = start_gateway({"version": 1, "audit": audit, "servers": {"one": {"url": server.url}}})
        was = talk(gateway.mcp)
        wait_for(lambda: len(records(gateway)) == 2, "the records")
        gateway.signal(signal.SIGTERM)
        gateway.wait()
    running = replay(RUN, "--dir", str(gateway.folder / "audit"), "--json")
    assert talk(running.url()) == was
    assert running.report()["is_same"]


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_the_python_sdk_plays_with_the_record(recorded: Recorded, replay: Callable[..., Replay], mode: Any) -> None:
    running = replay(RUN, "--dir", str(recorded.folder), "--json")
    url = running.url()

    async def talk() -> None:
        async with Sdk(url, mode=mode) as client:
            names = {tool.name for tool in (await client.list_tools()).tools}
            assert "one__count" in names
            for step in (0, 1, 2):
                found = await client.call_tool("one__count", STEPS[step][1]["arguments"])
                assert found.content[0].text == recorded.answers[step]["content"][0]["text"]  # type: ignore[union-attr]
            failing = await client.call_tool("one__fails", {})
            assert failing.is_error
            with pytest.raises(MCPError) as denied:
                await client.call_tool("one__buy", {"amount": 11})
            assert denied.value.error.code == -31001
            with pytest.raises(MCPError) as other:
                await client.call_tool("one__buy", {"amount": 12})
            assert other.value.error.data["reason"] == "not_recorded"
            prompt = await client.get_prompt("one__greet", {"who": "ada"})
            assert prompt.messages
            read = await client.read_resource("file:///a b.txt")
            assert read.contents[0].text == "contents"  # type: ignore[union-attr]

    asyncio.run(talk())
    report = running.report()
    assert report["same"] == 7 and report["new"] == [], report
    assert [one["what"] for one in report["changed"]] == ["one__buy"]
