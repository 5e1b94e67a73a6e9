"""Secrets are looked for in everything that a run of the gateway leaves behind or says.

One gateway is given a secret of every kind, is used well and badly, is asked for all that it tells, and dies. Then
every file below its folder, every line that it wrote and every byte that it answered is searched for each of them, in
the forms in which a secret travels.
"""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pytest

from tests.conftest import StartGateway
from tests.counterparts.otlp import Collector
from tests.counterparts.serving import served
from tests.e2e.harness import ROOT, Gateway, Wire, get, message, routing_headers, wait_for
from tests.identity.rig import Caller, Issuer, issuing
from tests.identity.upstream import Guarded

pytestmark = pytest.mark.e2e
# The server says its secret on stderr and dies, as careless programs do.
CARELESS = "import os, sys; sys.exit('cannot log in with ' + os.environ['TOKEN'])"
CALLS = ("static__echo", "basic__echo", "query__echo", "machine__echo", "vaulted__echo", "careless__any", "nobody__any")


def canary(name: str) -> str:
    """A secret that is found nowhere by chance, with characters that are written otherwise in URLs."""
    return f"{name}-{os.urandom(9).hex()}+/=%"


def forms(secret: str) -> set[bytes]:
    """The ways in which a secret is written: as it is, in a URL, a form, JSON, in base64 alone and behind a user."""
    raw = secret.encode()
    found = {raw, quote(secret, safe="").encode(), quote_plus(secret).encode(), json.dumps(secret)[1:-1].encode()}
    # Base64 of a longer text holds that of its middle, at one of three shifts.
    for shift in range(3):
        text = base64.b64encode(b"x" * shift + raw)
        found |= {text[4 if shift else 0 : -4], text[4 if shift else 0 : -4].replace(b"+", b"-").replace(b"/", b"_")}
    return found


@dataclass
class Run:
    """A gateway with its secrets, and all that was heard of it."""

    gateway: Gateway
    secrets: dict[str, str]
    collector: Collector
    heard: list[bytes] = field(default_factory=list)

    def hear(self, *said: str | bytes) -> None:
        self.heard += [one.encode() if isinstance(one, str) else one for one in said]

    def cli(self, *arguments: str, stdin: str = "") -> str:
        """Run a command on the gateway's configuration."""
        program = "import sys; from narthex.cli.main import main; sys.exit(main())"
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), **self.gateway.env}
        command = [sys.executable, "-c", program, *arguments, "--config", str(self.gateway.folder / "narthex.yaml")]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, env=environment, timeout=60)
        self.hear(done.stderr)
        return done.stdout


@pytest.fixture
def run(start_gateway: StartGateway) -> Iterator[tuple[Run, Issuer, list[Guarded]]]:
    names = ("static", "basic", "query", "client", "careless", "vaulted", "introspection", "wrong", "otlp")
    collector = Collector()
    secrets = {name: canary(name) for name in names}
    with (
        issuing() as issuer, Guarded() as open_one, Guarded(accepts=lambda token: False) as closed,
        served(collector.app) as otlp,
    ):  # fmt: skip
        issuer.pages["/token"] = (401, {}, json.dumps({"error": "invalid_client", "error_description": "no"}))
        bearer = {"kind": "header", "name": "Authorization"}
        credentials: dict[str, Any] = {
            "static": {**bearer, "value": "Bearer ${secret:static}"},
            "basic": {"kind": "basic", "username": "narthex", "password": "${secret:basic}"},
            "query": {"kind": "query", "name": "key", "value": "${secret:query}"},
            "machine": {
                "kind": "client_credentials",
                "token_endpoint": issuer.base + "/token",
                "client_id": "narthex",
                "client_secret": "${secret:client}",
                "resource": "none",
            },
            "careless": {"kind": "env", "env": {"TOKEN": "${secret:careless}"}},
            "vaulted": {**bearer, "value": "Bearer ${secret:vaulted}"},
        }
        servers: dict[str, Any] = {name: {"url": open_one.url, "credential": name} for name in ("static", "vaulted")}
        servers |= {name: {"url": closed.url, "credential": name} for name in ("basic", "query", "machine")}
        servers["careless"] = {"command": sys.executable, "args": ["-c", CARELESS], "credential": "careless"}
        corp = {"issuer": issuer.base, "audiences": ["gateway"]}
        asks = {"client_id": "narthex", "client_secret": "${secret:introspection}", "url": issuer.base + "/introspect"}
        config = {
            "version": 1,
            "servers": servers,
            "credentials": credentials,
            "secrets": {name: f"env:CANARY_{name.upper()}" for name in names if name != "vaulted"},
            "identity": {"api_keys": True, "issuers": {"corp": {**corp, "introspection": asks}}},
            "log": {"calls": True, "format": "json"},
            "telemetry": {
                "otlp": {"url": otlp, "headers": {"X-Key": "${secret:otlp}"}, "every": "100ms", "metrics_every": "1s"},
                "traces": {"ratio": "100%"},
            },
        }
        env = {f"CANARY_{name.upper()}": value for name, value in secrets.items() if name != "vaulted"}
        gateway = start_gateway(config, env=env)
        found = Run(gateway, secrets, collector)
        yield found, issuer, [open_one, closed]


def test_no_secret_is_left_anywhere(run: tuple[Run, Issuer, list[Guarded]]) -> None:
    one, issuer, (upstream, closed) = run
    gateway = one.gateway
    one.hear(one.cli("secrets", "set", "vaulted", stdin=one.secrets["vaulted"]))
    made = json.loads(one.cli("keys", "create", "robot", "--json"))
    one.secrets["API key"] = made["key"]
    one.secrets["token"] = issuer.token()
    one.secrets["refused token"] = issuer.token(aud="somebody else")
    one.secrets["forged token"] = issuer.token(by="rsa2")
    one.secrets["opaque token"] = "opaque-" + os.urandom(16).hex()
    wait_for(lambda: Caller(gateway.mcp, made["key"]).post("tools/list").status == 200, "the key to be known")
    wait_for(lambda: arrived(one, upstream) >= {"static", "vaulted"}, "both secrets, where they belong")

    for bearer in (made["key"], *(one.secrets[name] for name in one.secrets if "token" in name)):
        for name in CALLS:
            answer = Caller(gateway.mcp, bearer).try_call(name)
            one.hear(answer.body, repr(answer.headers))
    seen = repr([(asked.path, asked.headers) for asked in closed.asked])
    assert "Basic " in seen and "key=query-" in seen and "/token" in issuer.asked, "they did go where they belong"
    wait_for(lambda: "cannot log in with [hidden]" in gateway.log(), "the words of the careless server")
    with Wire(gateway.mcp) as wire:
        body = message("ping")
        headers = [*routing_headers(body), ("authorization", f"Basic {one.secrets['wrong']}")]
        answer = wire.request("POST", f"/mcp?access_token={one.secrets['token']}", headers, json.dumps(body).encode())
        one.hear(answer.body, repr(answer.headers))
    wait_for(lambda: one.collector.spans and one.collector.metrics, "traces and metrics")
    assert {asked["x-key"] for asked in one.collector.asked} == {one.secrets["otlp"]}, "it went where it belongs"
    one.hear(*one.collector.bodies)
    pages(one)
    one.hear(one.cli("secrets", "list", "--json"), one.cli("keys", "list", "--json"), one.cli("check"))
    one.hear(
        one.cli("whoami", "--token", one.secrets["token"]), one.cli("whoami", "--token", one.secrets["forged token"])
    )
    broken = (gateway.folder / "narthex.yaml").read_text().replace('"version": 1', '"version": 2')
    gateway.write(broken)
    wait_for(lambda: "version 1" in gateway.log(), "the refusal of a broken configuration")
    limits = Path(f"/proc/{gateway.process.pid}/limits").read_text()
    assert re.search(r"Max core file size +0 ", limits), "a crash leaves no picture of the memory"
    gateway.signal(signal.SIGABRT)
    gateway.wait()
    search(one)


def arrived(one: Run, upstream: Guarded) -> set[str]:
    """Call with both kinds of stored secret; which of them the upstream has seen."""
    for name in ("static__echo", "vaulted__echo"):
        one.hear(Caller(one.gateway.mcp, one.secrets["token"]).try_call(name).body)
    return {shown.partition("-")[0] for shown in upstream.shown}


def pages(one: Run) -> None:
    """Everything that the admin side tells, asked with its token."""
    admin = one.gateway.admin.rstrip("/")
    token = (one.gateway.folder / ".narthex" / "admin.token").read_text().strip()
    for path in ("/healthz", "/readyz", "/metrics"):
        one.hear(get(admin + path).body)
    with Wire(admin) as wire:
        for path in ("servers", "endpoints", "config", "keys", "secrets", "credentials", "identity"):
            answer = wire.request("GET", f"/api/v1/{path}", [("authorization", f"Bearer {token}")])
            one.hear(answer.body)


def search(one: Run) -> None:
    one.hear(one.gateway.log())
    found = []
    for name, secret in one.secrets.items():
        for form in forms(secret):
            found += [f"{name}: in what was said: {said[:300]!r}" for said in one.heard if form in said]
            found += [f"{name}: {path}" for path in files(one.gateway.folder) if form in path.read_bytes()]
    assert not found, "\n".join(sorted(set(found)))


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_the_search_finds_what_it_looks_for(tmp_path: Path) -> None:
    """In a file, in a database, in a form, in JSON, and in base64 behind a user name of any length."""
    secret = canary("found")
    for at, text in enumerate([secret, quote(secret, safe=""), json.dumps({"a": secret})]):
        assert any(form in f"before {text} after".encode() for form in forms(secret)), at
    for user in ("", "a", "ab", "abc"):
        assert any(form in base64.b64encode(f"{user}:{secret}".encode()) for form in forms(secret)), user
    with sqlite3.connect(tmp_path / "db") as database:
        database.execute("CREATE TABLE t (x TEXT)")
        database.execute("INSERT INTO t VALUES (?)", (secret,))
    assert any(form in path.read_bytes() for path in files(tmp_path) for form in forms(secret))
