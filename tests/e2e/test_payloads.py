"""What calls say: kept by rule, apart from the chain, without secrets; and nowhere else, whatever is planted where."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import pytest

from narthex.telemetry.audit.checkpoints import read_keys
from narthex.telemetry.audit.verify import verify
from narthex.telemetry.payloads.reading import Reader, files_in
from narthex.testing import FakeServer
from narthex.testing.server import JsonRpcError
from tests.conftest import StartGateway
from tests.counterparts.otlp import Collector
from tests.counterparts.serving import served
from tests.e2e.harness import ROOT, Gateway, Wire, get, json_lines, message, wait_for
from tests.telemetry.audit.exports.receivers import OtlpServer, SyslogServer, closing, make_certificate

pytestmark = pytest.mark.e2e
LARGE = 200_000
UUID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}")
TOOLS = [{"name": name, "inputSchema": {"type": "object"}} for name in ("echo", "large", "broken", "leak")]


def fail(params: dict[str, Any]) -> dict[str, Any]:
    raise JsonRpcError(
        -32050, f"cannot log in with password: {CANARIES['error']}", data={"token": CANARIES["error data"]}
    )


CANARIES = {
    name: f"kanari-{name.replace(' ', '-')}-7f3a9c2e41d8"
    for name in ("argument", "argument text", "result", "result text", "structured", "error", "error data", "header",
                 "cookie", "credential", "url", "meta", "bearer", "large")
}  # fmt: skip
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJrYW5hcmkifQ.a2FuYXJpLXNpZ25hdHVyZQ"
PLANTED = {*CANARIES.values(), JWT, "4111111111111111", "ghp_kanarikanarikanarikanarikanarikana", "kanari@example.com"}
ARGUMENTS = {
    "password": CANARIES["argument"], "text": f"my token: {CANARIES['argument text']}", "jwt": JWT,
    "url": f"https://ada:{CANARIES['url']}@example.com/x", "card": "4111 1111 1111 1111", "number": 4111111111111111,
    "header": f"Authorization: Bearer {CANARIES['bearer']}", "plain": "what anybody may read",
    "n": {"m": ["kanari@example.com"]},
}  # fmt: skip
LEAK = {
    "content": [{"type": "text", "text": json.dumps({"api_key": CANARIES["result"], "note": "harmless"})},
                {"type": "text", "text": f"secret={CANARIES['result text']} ghp_kanarikanarikanarikanarikanarikana"}],
    "structuredContent": {"access_token": CANARIES["structured"], "rows": [1, 2]},
}  # fmt: skip


@pytest.fixture
def server() -> Iterator[FakeServer]:
    text = f"password: {CANARIES['large']} " + "x" * LARGE
    answers = {"large": {"content": [{"type": "text", "text": text}]}, "broken": fail, "leak": LEAK}
    with FakeServer(tools=TOOLS, answers=answers) as started:
        yield started


def command(gateway: Gateway, *words: str) -> str:
    program = "import sys; from narthex.cli.main import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", program, *words, "--config", str(gateway.folder / gateway.file)],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "HOME": str(gateway.folder)},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    return done.stdout + done.stderr


def records(gateway: Gateway, event: str = "call") -> list[dict[str, Any]]:
    found = json_lines(*sorted((gateway.folder / "audit").glob("calls-*")))
    return [one for one in found if one["event"] == event]


def ask(gateway: Gateway, tool: str, arguments: Any = None, *, extra: Any = (), meta: Any = None) -> bytes:
    with Wire(gateway.mcp) as wire:
        body = message("tools/call", {"name": f"one__{tool}", "arguments": arguments or {}})
        body["params"].setdefault("_meta", {}).update(meta or {})
        wire.send(gateway.client().render(body, extra=extra))
        return wire.read().body


def value_in(body: bytes) -> bytes:
    """The bytes of `result` or `error`, as they stand in an answer."""
    found = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    return bytes(found.get("result") or found["error"])


def shown(gateway: Gateway, path: str) -> Any:
    """What the admin API tells whoever has its token."""
    token = (gateway.folder / ".narthex" / "admin.token").read_text().strip()
    with Wire(gateway.admin.rstrip("/")) as wire:
        answer = wire.request("GET", f"/api/v1/{path}", [("authorization", f"Bearer {token}")])
    return answer.json if answer.status == 200 else {"records": []}


def recorded(gateway: Gateway, calls: int = 6, refused: int = 1) -> list[Any]:
    """The records of so many calls, and of requests that became none; empty until the index has them all."""
    found = {event: shown(gateway, f"audit?event={event}")["records"] for event in ("call", "refused")}
    return found["call"] + found["refused"] if [len(one) for one in found.values()] == [calls, refused] else []


def stop(gateway: Gateway) -> None:
    gateway.process.terminate()
    gateway.process.wait(60)


@pytest.mark.parametrize("durable", ["none", "all"])
def test_a_task_is_kept_by_rule_and_told_to_no_server(
    start_gateway: StartGateway, server: FakeServer, durable: str
) -> None:
    task = f"Find out about {CANARIES['meta']}"
    audit = {"dir": "audit", "durable": durable, "payloads": [{"parts": ["task"], "keep": "full"}]}
    gateway = start_gateway({"version": 1, "servers": {"one": {"url": server.url}}, "audit": audit})
    ask(gateway, "echo", meta={"io.narthex/task": task})
    ask(gateway, "echo")
    wait_for(lambda: len(records(gateway)) == 2, "the records")
    stop(gateway)
    first, second = records(gateway)
    (kept,) = Reader(gateway.folder / "audit").of(first)
    assert (kept.part, json.loads(kept.body)) == ("task", task)
    assert "payload" not in second
    assert all(CANARIES["meta"].encode() not in asked.body for asked in server.asked)
    chain = b"".join(path.read_bytes() for path in (gateway.folder / "audit").glob("calls-*"))
    assert CANARIES["meta"].encode() not in chain
    shown = command(gateway, "audit", "erase", "--id", first["id"], "--reason", "asked for")
    assert "NOT WHOLE" not in command(gateway, "audit", "verify"), shown
    assert Reader(gateway.folder / "audit").of(first)[0].state == "erased"


@pytest.mark.parametrize("durable", ["none", "all"])
@pytest.mark.parametrize("stream", [False, True])
def test_the_digest_is_over_the_bytes_that_the_client_got(
    start_gateway: StartGateway, server: FakeServer, durable: str, stream: bool
) -> None:
    server.stream = stream
    audit = {"dir": "audit", "durable": durable}
    gateway = start_gateway({"version": 1, "servers": {"one": {"url": server.url}}, "audit": audit})
    answers = []
    for era in ("modern", "legacy"):
        client = gateway.client(era=era)  # type: ignore[arg-type]
        for tool in ("echo", "large", "broken"):
            answer = client.post("tools/call", {"name": f"one__{tool}", "arguments": {"a": [1, 2]}})
            answers.append(value_in(answer.body if answer.body.startswith(b"{") else json_in(answer.body)))
        client.close()
    stop(gateway)
    found = [one for one in records(gateway) if one["method"] == "tools/call"]
    assert [one["result_digest"] for one in found] == [f"sha256:{sha256(one).hexdigest()}" for one in answers]
    assert all("payload" not in one for one in found) and not files_in(gateway.folder / "audit")


def json_in(body: bytes) -> bytes:
    """The last message of an event stream."""
    return body.rstrip().rpartition(b"data: ")[2]


@pytest.mark.parametrize("durable", ["none", "all"])
def test_what_a_rule_says_is_kept_and_nothing_else(
    start_gateway: StartGateway, server: FakeServer, durable: str
) -> None:
    rules = [
        {"tools": ["one__broken"], "keep": "none"},
        {"tools": ["one__leak"], "parts": ["result"], "keep": "redacted"},
        {"tools": ["one__e*", "one__large"], "keep": "full"},
    ]
    audit = {"dir": "audit", "durable": durable, "payloads": rules}
    gateway = start_gateway({"version": 1, "servers": {"one": {"url": server.url}}, "audit": audit})
    bodies = {tool: ask(gateway, tool, {"tool": tool}) for tool in ("echo", "large", "broken", "leak")}
    stop(gateway)
    folder = gateway.folder / "audit"
    found = {one["name"]: {each.part: each for each in Reader(folder).of(one)} for one in records(gateway)}
    assert found["broken"] == {} and list(found["leak"]) == ["result"]
    for tool in ("echo", "large"):
        assert {part: one.state for part, one in found[tool].items()} == {"arguments": "here", "result": "here"}
        assert json.loads(found[tool]["arguments"].body) == {"tool": tool}
        assert found[tool]["result"].body == value_in(bodies[tool])
    assert b"harmless" in found["leak"]["result"].body
    assert not verify(folder, read_keys(folder.glob("audit-*.pub"))).faults


def test_a_reload_changes_what_is_kept(start_gateway: StartGateway, server: FakeServer) -> None:
    config: dict[str, Any] = {"version": 1, "servers": {"one": {"url": server.url}}, "audit": {"dir": "audit"}}
    gateway = start_gateway(config)
    ask(gateway, "echo")
    for keep in ("full", "redacted"):
        config["audit"]["payloads"] = [{"keep": keep}]
        config["audit"]["seal"] = keep == "redacted"
        gateway.write(config)
        gateway.signal(signal.SIGHUP)
        wait_for(lambda keep=keep: gateway.log().count("applied (") >= 1 + (keep == "redacted"), "the reload")
        ask(gateway, "echo")
    stop(gateway)
    said = [one.get("payload", {}).get("result", {}).get("kept") for one in records(gateway)]
    assert said == [None, "full", "redacted"]
    acts = records(gateway, "config")
    assert [one["step"] for one in acts] == ["started", "applied", "applied"]
    assert acts[1]["changes"] == ["audit.payloads"] and acts[1]["before"] == acts[0]["revision"]
    assert [one.state for one in Reader(gateway.folder / "audit").of(records(gateway)[2])] == ["sealed", "sealed"]


class Abroad:
    """Where telemetry and records leave the gateway: a collector, a syslog server, a receiver of OTLP logs."""

    def __init__(self, folder: Path, collector: Collector, url: str) -> None:
        self.cert = make_certificate(folder, "siem")
        self.collector, self.url = collector, url
        self.siem, self.logs = SyslogServer(self.cert), OtlpServer()

    def settings(self) -> dict[str, Any]:
        export = {
            "siem": {"url": f"syslog+tls://127.0.0.1:{self.siem.port}", "ca": self.cert[0], "format": "ocsf"},
            "otel": {"url": f"http://127.0.0.1:{self.logs.port}/v1/logs"},
        }
        otlp = {"url": self.url, "every": "100ms", "metrics_every": "1s"}
        return {"telemetry": {"otlp": otlp, "traces": {"ratio": "100%"}}, "export": export}

    def said(self) -> dict[str, str]:
        heard = {
            "traces and metrics": self.collector.bodies,
            "syslog": self.siem.messages,
            "OTLP logs": self.logs.bodies,
        }
        return {name: b"".join(list(bodies)).decode(errors="replace") for name, bodies in heard.items()}


@pytest.fixture
def abroad(tmp_path: Path) -> Iterator[Abroad]:
    collector = Collector()
    with served(collector.app) as url:
        one = Abroad(tmp_path, collector, url)
        with closing(one.siem, one.logs):
            yield one


@pytest.mark.parametrize("durable", ["none", "writes"])
def test_a_secret_that_is_planted_anywhere_appears_nowhere(
    start_gateway: StartGateway, server: FakeServer, abroad: Abroad, durable: str
) -> None:
    away = abroad.settings()
    credential = {"kind": "header", "name": "X-Upstream-Key", "value": CANARIES["credential"]}
    config = {
        "version": 1,
        "servers": {"one": {"url": server.url, "credential": "upstream"}},
        "credentials": {"upstream": credential},
        "grants": [{"name": "all but one", "who": {}, "allow": ["one__*"]},
                   {"name": "not this", "who": {}, "deny": ["one__echo"], "when": "has(args.deny) && args.deny"}],
        "log": {"calls": True, "format": "json"},
        "audit": {"dir": "audit", "durable": durable, "inputs": "digest", "payloads": [{"keep": "redacted"}],
                  "export": away["export"]},
        "telemetry": away["telemetry"],
    }  # fmt: skip
    gateway = start_gateway(config)
    extra = [("x-api-token", CANARIES["header"]), ("cookie", f"session={CANARIES['cookie']}")]
    meta = {"example.com/session-token": CANARIES["meta"]}
    bodies = [ask(gateway, tool, ARGUMENTS, extra=extra, meta=meta) for tool in ("echo", "leak", "broken", "large")]
    assert CANARIES["argument"].encode() in bodies[0] and CANARIES["error"].encode() in bodies[2], "clients do get them"
    refused = [
        ask(gateway, "echo", {**ARGUMENTS, "deny": True}, extra=extra), ask(gateway, "nothing", ARGUMENTS, extra=extra),
    ]  # fmt: skip
    with Wire(gateway.mcp) as wire:  # a body that cannot be read
        headers = [("content-type", "application/json"), *extra]
        refused.append(wire.request("POST", "/mcp", headers, b'{"jsonrpc":' + CANARIES["argument"].encode()).body)
    assert all(b'"error"' in body for body in refused)
    admin = gateway.admin.rstrip("/")
    paths = ("/metrics", "/readyz", "/api/v1/config", "/api/v1/servers", "/api/v1/endpoints", "/api/v1/limits")
    said = {path: get(admin + path).body.decode(errors="replace") for path in paths}
    said["errors of ours"] = b"".join(refused).decode()
    indexed = wait_for(lambda: recorded(gateway), "all of it in the index")
    said["the index"] = json.dumps(indexed)
    said["payloads"] = json.dumps([shown(gateway, f"payloads/{one['id']}") for one in indexed if "payload" in one])
    assert "what anybody may read" in said["payloads"]
    ids = {one["id"] for one in indexed}
    wait_for(lambda: ids <= set(UUID.findall(abroad.said()["syslog"])), "all of them at the syslog server")
    wait_for(lambda: ids <= set(UUID.findall(abroad.said()["OTLP logs"])), "all of them at the receiver of logs")
    spans = abroad.collector.spans
    wait_for(lambda: sum(one.name.startswith("tools/call") for one in spans) >= 2 * 4 + 2, "a span of each call")
    wait_for(lambda: "narthex_agent_tool_calls_total" in abroad.collector.metrics, "metrics of them")
    stop(gateway)
    said |= abroad.said()
    said["the log"] = gateway.log()
    for form in ("jsonl", "csv", "cef", "ocsf"):
        said[form] = command(gateway, "audit", "export", "--format", form)
    said["search"] = command(gateway, "audit", "search", "--json")
    said["verify"] = command(gateway, "audit", "verify", "--json")
    for path in gateway.folder.rglob("*"):
        if path.is_file() and path.name != gateway.file:
            said[str(path.relative_to(gateway.folder))] = path.read_bytes().decode(errors="replace")
    assert any(name.startswith("audit/payloads-") for name in said) and said["jsonl"]
    kept = "".join(text for name, text in said.items() if name.startswith("audit/payloads-"))
    assert "what anybody may read" in kept and "harmless" in kept, "the rest is kept"
    found = [(name, secret) for name, text in said.items() for secret in PLANTED if secret in text]
    assert not found
