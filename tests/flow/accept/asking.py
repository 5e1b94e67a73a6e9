"""Servers of both eras that ask their clients, and clients that answer: what the tests of inputs share."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from narthex.testing.server import Asked, FakeServer
from tests.flow.gateway import LEGACY, Answer, Client, Running, spec, until

TOOLS: list[dict[str, Any]] = [{"name": name, "inputSchema": {"type": "object"}} for name in ("ask", "other")]
QUESTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "form": (
        "elicitation/create",
        {"mode": "form", "message": "Who?", "requestedSchema": {"type": "object", "properties": {}}},
    ),
    "url": ("elicitation/create", {"mode": "url", "message": "Open it", "url": "https://example.com/x"}),
    "sampling": ("sampling/createMessage", {"messages": [], "maxTokens": 5}),
    "roots": ("roots/list", {}),
}
ANSWERS: dict[str, dict[str, Any]] = {
    "form": {"action": "accept", "content": {"name": "ä"}},
    "url": {"action": "accept"},
    "sampling": {"role": "assistant", "content": {"type": "text", "text": "Paris"}, "model": "m"},
    "roots": {"roots": [{"uri": "file:///x"}]},
}
CAPABILITIES: dict[str, Any] = {"elicitation": {"form": {}, "url": {}}, "sampling": {}, "roots": {}}
META_ABLE = {"io.modelcontextprotocol/clientCapabilities": CAPABILITIES}
MODERN_HEADERS = {"MCP-Protocol-Version": "2026-07-28"}


class Live:
    """A call that a legacy server is working on: the test says what it does."""

    def __init__(
        self, server: Asker, id_: Any, arguments: Mapping[str, Any], writer: asyncio.StreamWriter, session: str = ""
    ) -> None:
        self.id = id_
        self.arguments = arguments
        self.answers: dict[str, list[dict[str, Any]]] = {}
        """What came back, by the id of the question."""
        self.over = asyncio.Event()
        self._server = server
        self._writer = writer
        self._session = session

    def push(self, kind: str, **extra: Any) -> str:
        """Ask. Returns the question's id, which no other question has."""
        method, params = QUESTIONS[kind]
        id_ = f"q{next(self._server.ids)}"
        self._server.asked_by[id_] = self
        self.answers[id_] = []
        question = {"id": id_, "method": method, "params": {**params, **extra}}
        if not self._server.aside:
            self.send(question)
        elif (stream := self._server.streams.get(self._session)) is not None:
            _write_event(stream, question)
        return id_

    async def ask(self, kinds: Sequence[str]) -> list[Any]:
        """Ask all of it, and wait for every answer."""
        ids = [self.push(kind) for kind in kinds]
        await until(lambda: all(self.answers[id_] for id_ in ids))
        return [self.answers[id_][0].get("result") or self.answers[id_][0]["error"] for id_ in ids]

    def send(self, message: Mapping[str, Any]) -> None:
        """Put a message on the stream of the call."""
        _write_event(self._writer, message)

    def finish(self, result: Any = None) -> None:
        """Answer the call, and end its stream."""
        message = {"id": self.id, "result": text("done") if result is None else result}
        if self._server.aside:
            body = json.dumps({"jsonrpc": "2.0", **message}).encode()
            head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
            self._writer.write(head % len(body) + body)
        else:
            self.send(message)
            self._writer.write(b"0\r\n\r\n")
        self.over.set()

    def die(self) -> None:
        """Break off."""
        self._writer.transport.abort()
        self.over.set()


STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def _write_event(writer: asyncio.StreamWriter, message: Mapping[str, Any]) -> None:
    event = b"data: " + json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n\n"
    writer.write(b"%x\r\n%b\r\n" % (len(event), event))


def text(value: Any) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": value if isinstance(value, str) else json.dumps(value)}]}


@dataclass
class Asker(FakeServer):
    """Its tool `ask` asks by its arguments: `rounds`, lists of questions, each list at a time. It answers with what it
    was answered, round by round. Of a legacy one, `manual` leaves all to the test, `hang` never answers; `aside`: it
    asks on the stream of a GET, into nothing where none is open, and its answers are JSON."""

    tools: list[dict[str, Any]] = field(default_factory=lambda: TOOLS)
    lives: list[Live] = field(default_factory=list)
    asked_by: dict[str, Live] = field(default_factory=dict)
    ids: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    aside: bool = False
    streams: dict[str, asyncio.StreamWriter] = field(default_factory=dict)
    gets: int = 0

    async def __aenter__(self) -> Asker:
        await super().__aenter__()
        return self

    @property
    def cancelled(self) -> list[Any]:
        """Ids of the calls that it was told to give up."""
        return [one.params["requestId"] for one in self.requests("notifications/cancelled")]

    async def _serve(self, asked: Asked, writer: asyncio.StreamWriter) -> None:
        message = asked.message or {}
        if message and "method" not in message:
            live = self.asked_by.get(str(message["id"]))
            if live is not None:
                live.answers[message["id"]].append(message)
            writer.write(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")
            return
        session = asked.headers.get("mcp-session-id", "")
        known = session in self.sessions
        if asked.verb == "GET" and self.aside and known:
            await self._hold(session, writer)
            return
        asking = ("tools/call", "prompts/get", "resources/read", "completion/complete")
        if asked.method in asking and self.eras == "legacy" and known:
            await self._work(message, writer, session)
            return
        if asked.method == "tools/call" and self.eras == "modern" and asked.params["name"] == "ask":
            self.answers["ask"] = self._round(asked.params)
            if asked.params["arguments"].get("lingers") and "requestState" not in asked.params:
                await self._linger(message["id"], writer)
                return
        await super()._serve(asked, writer)

    # --- legacy

    async def _hold(self, session: str, writer: asyncio.StreamWriter) -> None:
        self.gets += 1
        self.streams[session] = writer
        writer.write(STREAM)
        await asyncio.Event().wait()

    async def _work(self, message: dict[str, Any], writer: asyncio.StreamWriter, session: str) -> None:
        arguments = message["params"].get("arguments", {})
        live = Live(self, message["id"], arguments, writer, session)
        if not self.aside:
            writer.write(STREAM)
        self.lives.append(live)
        if "rounds" in arguments:
            said = [await live.ask(kinds) for kinds in arguments["rounds"]]
            if not arguments.get("hang"):
                live.finish(text(said))
        await live.over.wait()

    # --- modern: all it knows stands in its state

    async def _linger(self, id_: Any, writer: asyncio.StreamWriter) -> None:
        """Ask on a stream, and end that only when it is told to."""
        live = Live(self, id_, {}, writer)
        self.lives.append(live)
        writer.write(STREAM)
        live.send({"id": id_, "result": self.answers["ask"]})
        await live.over.wait()
        writer.write(b"0\r\n\r\n")

    def _round(self, params: dict[str, Any]) -> dict[str, Any]:
        rounds: list[list[str]] = params["arguments"].get("rounds", [])
        said = json.loads(params.get("requestState", "[]"))
        if "inputResponses" in params:
            said.append([params["inputResponses"].get(f"{len(said)}-{n}") for n in range(len(rounds[len(said)]))])
        if len(said) == len(rounds):
            return text(said)
        asks = {
            f"{len(said)}-{n}": {"method": QUESTIONS[kind][0], "params": QUESTIONS[kind][1]}
            for n, kind in enumerate(rounds[len(said)])
        }
        return {"resultType": "input_required", "inputRequests": asks, "requestState": json.dumps(said)}


def over(server: Asker, *, sharing: str = "session", **settings: Any) -> Running:
    return Running({"one": spec("one", server.url, sharing=sharing, **settings)})


def nothing_left(gateway: Running) -> bool:
    front = gateway.front
    return gateway.settled() and not (front.calls.held or front.calls.pushes or front.calls.cancellable)


async def legacy_client(
    gateway: Running, capabilities: Mapping[str, Any] = CAPABILITIES, *, path: str = "/mcp", version: str = LEGACY
) -> Client:
    client = await gateway.client()
    params = {"protocolVersion": version, "capabilities": capabilities, "clientInfo": {"name": "t", "version": "1"}}
    client.session = (await client.legacy("initialize", params, path=path)).headers["mcp-session-id"]
    return client


async def beside(gateway: Running, client: Client) -> Client:
    """Another connection of the same client."""
    other = await gateway.client()
    other.session = client.session
    return other


async def event(client: Client) -> dict[str, Any]:
    """The next message on the stream whose head has been read. Each piece of it is made of whole events."""
    while True:
        if not client.events:
            chunk = (await client.read_chunk()).decode()
            assert chunk, "the stream has ended"
            data = [event.partition("data: ")[2].strip() for event in chunk.split("\n\n")]
            client.events += [json.loads(one) for one in data if one]
        if client.events:
            message: dict[str, Any] = client.events.pop(0)
            return message


async def answer(
    client: Client, id_: Any, *, path: str = "/mcp", headers: Mapping[str, str] | None = None, **member: Any
) -> Answer:
    """POST a response, `result=…` or `error=…`."""
    lines = {"MCP-Protocol-Version": LEGACY, **({"Mcp-Session-Id": client.session} if client.session else {})}
    body = json.dumps({"jsonrpc": "2.0", "id": id_, **member}).encode()
    client.http("POST", path, headers or lines, body)
    return await client.read()


def kind_of(method: str, params: Mapping[str, Any]) -> str:
    """Which of `QUESTIONS` it is, as the client sees it."""
    seen = {key: value for key, value in params.items() if key != "elicitationId"}
    return next(kind for kind, one in QUESTIONS.items() if one == (method, seen))


def arguments_of(**arguments: Any) -> dict[str, Any]:
    return {"name": "one__ask", "arguments": arguments}


async def ask_modern(client: Client, params: Mapping[str, Any], **options: Any) -> Answer:
    return await client.modern("tools/call", params, **{"meta": META_ABLE, **options})


def retry_of(params: Mapping[str, Any], asked: Answer, answers: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The retry of a call that asked; with the right answers to all of it, unless others are given."""
    if answers is None:
        answers = {key: ANSWERS[kind_of(**one)] for key, one in asked.result.get("inputRequests", {}).items()}
    state = {"requestState": asked.result["requestState"]} if "requestState" in asked.result else {}
    return {**params, "inputResponses": dict(answers), **state}


# --- a client that was asked

MANUAL = arguments_of(manual=True)


async def call_legacy(gateway: Running, client: Client, params: dict[str, Any], **options: Any) -> list[dict[str, Any]]:
    """Call, and answer all that is asked. Returns every message of the stream."""
    other = await beside(gateway, client)
    client.send("tools/call", params, **options)
    status, headers = await client.read_head()
    assert (status, headers["content-type"]) == (200, "text/event-stream")
    messages: list[dict[str, Any]] = []
    while not messages or "method" in messages[-1]:
        messages.append(await event(client))
        if "id" in messages[-1] and "method" in messages[-1]:
            asked = messages[-1]
            kind = kind_of(asked["method"], asked["params"])
            assert (await answer(other, asked["id"], result=ANSWERS[kind])).status == 202
    assert await client.read_chunk() == b""
    return messages


async def held(
    upstream: Asker, gateway: Running, kind: str = "roots", params: dict[str, Any] = MANUAL, **options: Any
) -> tuple[Client, Live, Any]:
    """A modern client that was asked, and the call that is held for it."""
    client = await gateway.client()
    before = len(upstream.lives)
    client.send("tools/call", params, modern=True, meta=META_ABLE, **options)
    await until(lambda: len(upstream.lives) > before)
    live = upstream.lives[before]
    live.push(kind)
    got = await client.read()
    assert got.result["resultType"] == "input_required"
    return client, live, got


async def pushed(
    upstream: Asker, gateway: Running, kind: str = "roots", params: dict[str, Any] = MANUAL
) -> tuple[Client, Live, dict[str, Any]]:
    """A legacy client that was asked, and what it was asked."""
    client = await legacy_client(gateway)
    before = len(upstream.lives)
    client.send("tools/call", params)
    await until(lambda: len(upstream.lives) > before)
    live = upstream.lives[before]
    live.push(kind)
    await client.read_head()
    return client, live, await event(client)


def exchange_of(gateway: Running) -> Any:
    (one,) = gateway.front.calls.active
    return one
