"""Held calls of a gateway in its own process: the command beside it, the admin API, a webhook, a restart between."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import http.server
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from mcp import Client, MCPError
from mcp_types import ElicitResult

from narthex.testing import FakeServer
from tests.conftest import StartGateway
from tests.e2e.harness import ROOT, Gateway, Response, Wire, json_lines, message, wait_for

pytestmark = pytest.mark.e2e
TOOLS = [{"name": "refund", "inputSchema": {"type": "object"}}]
CALL = {"name": "one__refund", "arguments": {"amount": 500, "note": "PLANTED"}}


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer(tools=TOOLS) as started:
        yield started


def command(gateway: Gateway, *words: str, stdin: str = "", code: int = 0) -> str:
    program = "import sys; from narthex.cli.main import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", program, *words, "--config", str(gateway.folder / gateway.file)],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT / "src"), "HOME": str(gateway.folder)},
        input=stdin, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    return done.stdout


def call(gateway: Gateway, key: str | None = None, **arguments: Any) -> dict[str, Any]:
    params = {**CALL, "arguments": {**CALL["arguments"], **arguments}}  # type: ignore[dict-item]
    extra = [("authorization", f"Bearer {key}")] if key is not None else []
    with Wire(gateway.mcp) as wire:
        wire.send(gateway.client().render(message("tools/call", params), extra=extra))
        answer: dict[str, Any] = wire.read().answer
        return answer


def waits(answer: dict[str, Any]) -> str:
    assert answer["error"]["code"] == -31004, answer
    return str(answer["error"]["data"]["approvalId"])


def admin(gateway: Gateway, verb: str, path: str, token: str | None = None) -> Response:
    token = token or (gateway.folder / ".narthex" / "admin.token").read_text().strip()
    with Wire(gateway.admin) as wire:
        head = f"{verb} /api/v1/approvals{path} HTTP/1.1\r\nHost: {wire.host}\r\nAuthorization: Bearer {token}\r\n"
        wire.send(f"{head}Content-Length: 0\r\n\r\n".encode())
        return wire.read()


def config(server: FakeServer, **more: Any) -> dict[str, Any]:
    grant = {"name": "refunds", "hold": ["one__refund"]}
    return {"version": 1, "servers": {"one": {"url": server.url}}, "grants": [grant], "audit": {"dir": "audit"}, **more}


@contextmanager
def receiver() -> Iterator[tuple[str, list[tuple[Any, bytes]]]]:
    """A receiver of webhooks: its address, and what it got."""
    got: list[tuple[Any, bytes]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append((self.headers, self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.server_address[1]}/", got
        listening.shutdown()
        thread.join(60)


def records(gateway: Gateway) -> list[dict[str, Any]]:
    """Of calls and of approvals; a start begins another file."""
    found = json_lines(*sorted((gateway.folder / "audit").glob("calls-*")))
    return sorted((one for one in found if one["event"] in ("call", "approval")), key=lambda one: str(one["id"]))


def steps(gateway: Gateway) -> list[str]:
    return [one["step"] for one in records(gateway) if one["event"] == "approval"]


def test_a_call_that_is_approved_while_nobody_serves_passes_once(
    start_gateway: StartGateway, server: FakeServer
) -> None:
    gateway = start_gateway(config(server))
    id_ = waits(call(gateway))
    assert waits(call(gateway)) == id_
    wait_for(lambda: steps(gateway) == ["asked"], "the record of the question")
    gateway.stop()
    (one,) = json.loads(command(gateway, "approvals", "list", "--json"))["approvals"]
    assert (one["id"], one["params"]["arguments"]) == (id_, CALL["arguments"])
    assert one["principal"]["subject"] == "local"
    command(gateway, "approvals", "approve", id_[:8])
    gateway.lines.clear()
    gateway.start()
    assert "result" in call(gateway)
    second = waits(call(gateway))
    assert second != id_
    assert len([one for one in server.asked if one.method == "tools/call"]) == 1
    wait_for(lambda: steps(gateway) == ["asked", "approved", "used", "asked"], "the record of each step, once")
    gateway.stop()
    found = records(gateway)
    calls = [(one["decision"], one["outcome"], one.get("approval")) for one in found if one["event"] == "call"]
    held = "hold", "approval_required"
    assert calls == [(*held, id_), (*held, id_), ("allow", "ok", id_), (*held, second)]
    approved = next(one for one in found if one.get("step") == "approved")
    assert approved["by"].endswith("at the terminal") and approved["approval"] == id_
    assert "PLANTED" not in gateway.log()
    for path in gateway.folder.rglob("*"):
        assert not path.is_file() or b"PLANTED" not in path.read_bytes(), path


def test_a_command_is_heard_by_a_running_gateway_and_tells_what_it_did(
    start_gateway: StartGateway, server: FakeServer
) -> None:
    gateway = start_gateway(config(server))
    first = waits(call(gateway))
    command(gateway, "approvals", "approve", first)
    wait_for(lambda: "result" in call(gateway), "the call to pass")
    second = waits(call(gateway))
    command(gateway, "approvals", "deny", second)
    wait_for(lambda: call(gateway)["error"]["code"] == -31001, "the denial")
    assert call(gateway)["error"]["data"]["reason"] == "approval_denied"
    command(gateway, "approvals", "approve", second, code=1)
    wait_for(lambda: f"approval {second}" in gateway.log() and "is denied" in gateway.log(), "the log")


def test_the_admin_api_decides_and_nobody_their_own(start_gateway: StartGateway, server: FakeServer) -> None:
    who = {"role": "admin"}
    grant = {"name": "refunds", "who": who, "hold": ["one__refund"]}
    gateway = start_gateway(config(server, identity={"api_keys": True}, grants=[grant]))
    ann, bob = (
        json.loads(command(gateway, "keys", "create", name, "--role", "admin", "--json"))["key"]
        for name in ("ann", "bob")
    )
    for key in (ann, bob):
        wait_for(lambda key=key: call(gateway, key)["error"]["code"] == -31004, "the key")
    id_ = waits(call(gateway, ann))
    assert waits(call(gateway, bob)) != id_, "each caller's is their own"
    assert {one["id"] for one in admin(gateway, "GET", "", bob).json["approvals"]} >= {id_}
    refused = admin(gateway, "POST", f"/{id_}/approve", ann)
    assert (refused.status, refused.json["error"]) == (403, "own_call")
    done = admin(gateway, "POST", f"/{id_}/approve", bob)
    assert (done.status, done.json["approved_by"]) == (200, "bob of narthex/keys")
    assert "result" in call(gateway, ann), "at once: it is the same process"
    assert admin(gateway, "POST", f"/{id_}/deny").status == 409
    gateway.stop()


def test_whoever_is_to_be_told_is_told_each_step_signed(start_gateway: StartGateway, server: FakeServer) -> None:
    with receiver() as (url, got):
        hook = {"url": url, "secret": "${secret:hook}"}
        gateway = start_gateway(config(server, approvals={"webhook": hook}))
        command(gateway, "secrets", "set", "hook", stdin="whsec_" + base64.b64encode(b"k" * 24).decode())
        wait_for(lambda: gateway.ready().json["missing_secrets"] == 0, "the secret")
        id_ = waits(call(gateway))
        wait_for(lambda: len(got) == 1, "the question")
        assert admin(gateway, "POST", f"/{id_}/approve").status == 200
        assert "result" in call(gateway)
        wait_for(lambda: len(got) == 3, "the rest")
        told = [json.loads(body) for _, body in got]
        assert [one["type"] for one in told] == ["approval.asked", "approval.approved", "approval.used"]
        assert {one["data"]["id"] for one in told} == {id_}
        assert told[1]["data"]["approved_by"] == "the admin token"
        for headers, body in got:
            signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
            digest = base64.b64encode(hmac.new(b"k" * 24, signed, hashlib.sha256).digest()).decode()
            assert headers["webhook-signature"] == f"v1,{digest}"
            assert b"PLANTED" not in body


# --- the official client

EACH_MODE = pytest.mark.parametrize("mode", ["legacy", "auto"])


@EACH_MODE
@pytest.mark.parametrize(
    ("answer", "code"),
    [
        pytest.param(ElicitResult(action="accept", content={"approve": True}), None, id="yes"),
        pytest.param(ElicitResult(action="accept", content={"approve": False}), -31001, id="no"),
        pytest.param(ElicitResult(action="decline"), -31001, id="declined"),
        pytest.param(ElicitResult(action="cancel"), -31004, id="closed"),
    ],
)
def test_the_user_of_the_official_client_is_asked(
    start_gateway: StartGateway, server: FakeServer, mode: Any, answer: ElicitResult, code: int | None
) -> None:
    gateway = start_gateway(config(server, approvals={"by": "user"}))
    shown: list[str] = []

    async def ask(context: Any, params: Any) -> ElicitResult:
        shown.append(params.message)
        assert params.requested_schema["required"] == ["approve"]
        return answer

    async def talk() -> None:
        async with Client(gateway.mcp, mode=mode, elicitation_callback=ask) as client:
            if code is None:
                result = await client.call_tool("one__refund", {"amount": 500})
                assert "500" in result.content[0].text  # type: ignore[union-attr]
            else:
                with pytest.raises(MCPError) as refused:
                    await client.call_tool("one__refund", {"amount": 500})
                assert refused.value.error.code == code

    asyncio.run(talk())
    assert len(shown) == 1 and "one__refund" in shown[0] and '"amount":500' in shown[0]
    assert len([one for one in server.asked if one.method == "tools/call"]) == (code is None)


@EACH_MODE
def test_the_official_client_that_cannot_ask_learns_what_to_come_back_with(
    start_gateway: StartGateway, server: FakeServer, mode: Any
) -> None:
    gateway = start_gateway(config(server, approvals={"by": "user"}))

    async def talk() -> None:
        async with Client(gateway.mcp, mode=mode) as client:
            with pytest.raises(MCPError) as refused:
                await client.call_tool("one__refund", {"amount": 500})
            error = refused.value.error
            assert error.code == -31004 and error.data["reason"] == "approval_required"
            done = await asyncio.to_thread(admin, gateway, "POST", f"/{error.data['approvalId']}/approve")
            assert done.status == 200
            result = await client.call_tool("one__refund", {"amount": 500})
            assert "500" in result.content[0].text  # type: ignore[union-attr]

    asyncio.run(talk())
