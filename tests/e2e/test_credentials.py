"""A running gateway and its accounts with servers: secrets that change under it, and secrets searched for in all that
it leaves behind."""

from __future__ import annotations

import base64
import os
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from narthex.authority.upkeep import LOOK_S
from narthex.testing import Asked, FakeServer
from tests.authority.issuer import Issuer, in_thread
from tests.conftest import StartGateway
from tests.e2e.harness import Gateway, check_error, get, wait_for

pytestmark = pytest.mark.e2e
TOOLS = [{"name": "echo", "inputSchema": {"type": "object"}}]
SWEEP_S = 1.0
assert LOOK_S + SWEEP_S <= 2.0, "a changed secret is seen by one look, and shown by the next sweep"


def replace(path: Path, text: str | None) -> None:
    """Change a file as a whole, or take it away."""
    if text is None:
        path.unlink()
    else:
        new = path.with_suffix(".new")
        new.write_text(text)
        new.replace(path)


def status(gateway: Gateway, server: str) -> Any:
    return get(f"{gateway.admin}/api/v1/servers/{server}").json


def test_a_changed_secret_is_shown_without_a_restart(start_gateway: StartGateway, tmp_path: Path) -> None:
    file = tmp_path / "pat"
    replace(file, "PLANTED-first\n")
    with FakeServer(tools=TOOLS) as server, FakeServer(tools=TOOLS) as other:
        gateway = start_gateway(
            {
                "version": 1,
                "servers": {"one": {"url": server.url, "credential": "pat"}, "two": {"url": other.url}},
                "credentials": {"pat": {"kind": "header", "name": "X-Key", "value": "${secret:pat}"}},
                "secrets": {"pat": f"file:{file}"},
            }
        )
        client = gateway.client()

        def shown() -> str:
            client.ask("tools/call", {"name": "one__echo", "arguments": {}})
            return server.asked[-1].headers.get("x-key", "")

        assert shown() == "PLANTED-first"
        replace(file, "PLANTED-second")
        wait_for(lambda: shown() == "PLANTED-second", "the new value")
        replace(file, None)

        def refused() -> bool:
            return "error" in client.ask("tools/call", {"name": "one__echo", "arguments": {}})

        wait_for(refused, "the end of a revoked value")
        check_error(client.call_error("one__echo", {}), -31005)
        assert client.call("two__echo", {})["content"], "the other server goes on"
        told = status(gateway, "one")
        assert told["health"] == "degraded" and told["credentials"][0]["name"] == "pat"
        assert str(file) in told["credentials"][0]["problem"]
        asked = len(server.asked)
        assert gateway.ready().json["status"] == "degraded"
        for _ in range(20):
            client.call_error("one__echo", {})
        assert len(server.asked) == asked, "and is shown nothing"
        replace(file, "PLANTED-third")
        wait_for(lambda: shown() == "PLANTED-third", "the value that is back")
        told = status(gateway, "one")
        assert (told["credentials"], told["last_error"], told["last_error_at"]) == ([], None, None)
        assert "PLANTED" not in gateway.log()


STDIO = """
import json, os, sys
print("started with", os.environ["TOKEN"], file=sys.stderr, flush=True)
for line in sys.stdin:
    message = json.loads(line)
    if message["method"] == "initialize":
        result = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": {"name": "x"}}
    elif message["method"] == "tools/call":
        result = {"content": [{"type": "text", "text": os.environ["TOKEN"][-6:]}]}
    elif message["method"] == "tools/list":
        result = {"tools": [{"name": "last", "inputSchema": {"type": "object"}}]}
    else:
        continue
    print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}), flush=True)
"""


def test_a_program_is_started_anew_with_the_new_secret(start_gateway: StartGateway, tmp_path: Path) -> None:
    file = tmp_path / "token"
    replace(file, "PLANTED-first")
    server = {"command": sys.executable, "args": ["-c", STDIO], "era": "legacy", "credential": "env"}
    gateway = start_gateway(
        {
            "version": 1,
            "servers": {"one": server},
            "credentials": {"env": {"kind": "env", "env": {"TOKEN": "${secret:token}"}}},
            "secrets": {"token": f"file:{file}"},
        }
    )
    client = gateway.client()

    def said() -> str:
        answer = client.ask("tools/call", {"name": "one__last", "arguments": {}})
        return str(answer["result"]["content"][0]["text"]) if "result" in answer else "error"

    assert said() == "-first"
    first = status(gateway, "one")["pid"]
    replace(file, "PLANTED-second")
    wait_for(lambda: said() == "second", "a program with the new value")
    assert status(gateway, "one")["pid"] != first
    wait_for(lambda: not Path(f"/proc/{first}").exists(), "the end of the old program")
    replace(file, None)
    wait_for(lambda: said() == "error", "the end of a revoked value")
    for _ in range(10):
        assert said() == "error"
    wait_for(lambda: not gateway.descendants("python"), "no program without its secret, and none started again")
    assert "PLANTED" not in gateway.log() + str(status(gateway, "one"))


def written(secret: str) -> set[bytes]:
    """The forms in which a secret travels."""
    raw = secret.encode()
    shifted = [base64.b64encode(b"x" * shift + raw)[4 if shift else 0 : -4] for shift in range(3)]
    return {raw, quote(secret, safe="").encode(), *shifted}


def test_nothing_of_an_account_is_left_anywhere(start_gateway: StartGateway) -> None:
    """Every kind of secret and every token made of one: used well and badly, then searched for."""
    names = ("client", "basic", "query", "assertion", "subject", "user")
    made = {name: f"{name}-{os.urandom(12).hex()}" for name in names}
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    secrets = {**made, "pem": pem}
    tokens: list[str] = []

    def grant(form: dict[str, str]) -> Any:
        if "refuse" in form.get("scope", ""):
            return 400, {"error": "invalid_scope", "error_description": f"no {form.get('client_secret')} {form}"}
        tokens.append(f"token-{os.urandom(16).hex()}")
        return 200, {"access_token": tokens[-1], "token_type": "Bearer", "expires_in": 60}

    def guard(asked: Asked) -> tuple[int, dict[str, str]] | None:
        shown = asked.headers.get("authorization", "") + asked.path
        return (401, {"WWW-Authenticate": f'Bearer error="invalid_token", error_description="{shown}"'})

    with in_thread(Issuer(reply=grant)) as issuer, FakeServer(tools=TOOLS) as good, FakeServer(guard=guard) as bad:
        client = {"client_id": "gateway", "issuer": issuer.url}
        secretly = {**client, "client_secret": "${secret:client}", "client_auth": "client_secret_post"}
        credentials: dict[str, Any] = {
            "service": {"kind": "client_credentials", **secretly},
            "refused": {"kind": "client_credentials", **secretly, "scopes": ["refuse"]},
            "key": {"kind": "client_credentials", **client, "private_key": "${secret:pem}"},
            "workload": {"kind": "jwt_bearer", **client, "assertion": "${secret:assertion}"},
            "exchange": {"kind": "token_exchange", **secretly, "subject_token": "${secret:subject}"},
            "basic": {"kind": "basic", "username": "${secret:user}", "password": "${secret:basic}"},
            "query": {"kind": "query", "name": "key", "value": "${secret:query}"},
        }
        servers = {f"{name}-{kind}": {"url": url, "credential": name} for name in credentials
                   for kind, url in (("good", good.url), ("bad", bad.url))}  # fmt: skip
        gateway = start_gateway(
            {
                "version": 1,
                "servers": servers,
                "credentials": credentials,
                "secrets": {name: f"env:PLANTED_{name.upper()}" for name in secrets},
                "log": {"calls": True, "format": "json"},
            },
            env={f"PLANTED_{name.upper()}": value for name, value in secrets.items()},
        )
        heard: list[bytes] = []
        for era in ("modern", "legacy"):
            one = gateway.client(era=era)  # type: ignore[arg-type]
            for name in servers:
                heard.append(str(one.ask("tools/call", {"name": f"{name}__echo", "arguments": {}})).encode())
            heard.append(str(one.ask("tools/list")).encode())
        for path in ("/readyz", "/metrics", "/api/v1/servers", "/api/v1/config"):
            heard.append(get(gateway.admin + path).body)
        assert len(good.requests("tools/call")) >= 6 and len(bad.asked) >= 6 and tokens
        gateway.stop()
    heard += [gateway.log().encode(), *(path.read_bytes() for path in gateway.folder.rglob("*") if path.is_file())]
    lines = [line for line in pem.splitlines() if "-----" not in line]
    for secret in (*made.values(), *lines, *tokens):
        found = [one[:300] for one in heard if any(form in one for form in written(secret))]
        assert not found, (secret[:12], found)
