"""A running gateway and the commands beside it: keys, secrets, the master key, the record, each in its own process."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from narthex.testing import FakeServer
from tests.conftest import StartGateway
from tests.e2e.harness import ROOT, Gateway, Response, Wire, json_lines, message, wait_for

pytestmark = pytest.mark.e2e
TOOLS = [{"name": "echo", "inputSchema": {"type": "object"}}]
CALL = {"name": "one__echo", "arguments": {"text": "PLANTED-argument"}}


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer(tools=TOOLS) as started:
        yield started


def command(gateway: Gateway, *words: str, stdin: str = "") -> str:
    """What a command of the terminal prints, run beside the gateway."""
    program = "import sys; from narthex.cli.main import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", program, *words, "--config", str(gateway.folder / gateway.file)],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "HOME": str(gateway.folder)},
        input=stdin, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "PLANTED" not in done.stdout + done.stderr
    return done.stdout


def call(gateway: Gateway, key: str | None = None) -> Response:
    extra = [("authorization", f"Bearer {key}")] if key is not None else []
    with Wire(gateway.mcp) as wire:
        wire.send(gateway.client().render(message("tools/call", CALL), extra=extra))
        return wire.read()


def becomes(gateway: Gateway, key: str, status: int) -> None:
    """Sooner or later the key gets this status; that a look is due in time, `tests/authority/test_upkeep.py` says."""
    wait_for(lambda: call(gateway, key).status == status, f"status {status}")


def records(gateway: Gateway) -> list[dict[str, Any]]:
    """Of calls; what is done at the terminal has a chain of its own beside the gateway's."""
    found = json_lines(*sorted((gateway.folder / "audit").glob("calls-*")))
    return [one for one in found if one["event"] == "call"]


def test_a_key_from_its_making_to_its_end(start_gateway: StartGateway, server: FakeServer) -> None:
    servers = {"one": {"url": server.url}}
    config = {"version": 1, "servers": servers, "identity": {"api_keys": True}, "audit": {"dir": "audit"}}
    gateway = start_gateway(config)
    assert call(gateway).status == 401
    made = json.loads(command(gateway, "keys", "create", "ci", "--role", "reader", "--json"))
    becomes(gateway, made["key"], 200)
    rotated = json.loads(command(gateway, "keys", "rotate", "ci", "--grace", "1h", "--json"))
    becomes(gateway, rotated["key"], 200)
    assert call(gateway, made["key"]).status == 200, "the old one works for the time of grace"
    command(gateway, "keys", "revoke", made["id"])
    becomes(gateway, made["key"], 401)
    assert call(gateway, rotated["key"]).status == 200
    command(gateway, "keys", "revoke", "ci")
    becomes(gateway, rotated["key"], 401)
    gateway.stop()
    states = json.loads(command(gateway, "keys", "list", "--all", "--json"))["keys"]
    assert [one["state"] for one in states] == ["revoked", "revoked"]
    assert all(one["used"] for one in states), "written down at the end at the latest"
    for one in records(gateway):
        assert (one["principal"]["subject"], one["principal"]["proof"]) == ("ci", "api_key")
        assert one["principal"]["roles"] == ["reader"] and one["outcome"] == "ok"


def test_a_secret_that_is_set_and_sealed_anew_under_a_running_gateway(
    start_gateway: StartGateway, server: FakeServer
) -> None:
    gateway = start_gateway(
        {
            "version": 1,
            "servers": {"one": {"url": server.url, "credential": "pat"}},
            "credentials": {"pat": {"kind": "header", "name": "X-Key", "value": "${secret:pat}"}},
            "audit": {"dir": "audit"},
        }
    )
    wait_for(lambda: "narthex secrets set pat" in gateway.log(), "what is missing to be said at the start")
    assert gateway.ready().json["missing_secrets"] == 1
    assert call(gateway).answer["error"]["code"] == -31005

    def shown(value: str) -> bool:
        return "result" in call(gateway).answer and server.asked[-1].headers.get("x-key") == value

    for value in ("PLANTED-first", "PLANTED-second"):
        command(gateway, "secrets", "set", "pat", stdin=value)
        wait_for(lambda value=value: shown(value), value)
    key = gateway.folder / ".narthex" / "narthex.key"
    before = key.read_text()
    assert json.loads(command(gateway, "secrets", "rotate-key", "--keep", "0s", "--json"))["secrets"] == 1
    assert before not in key.read_text()
    assert shown("PLANTED-second"), "no call has missed it"
    command(gateway, "secrets", "set", "pat", stdin="PLANTED-third")
    wait_for(lambda: shown("PLANTED-third"), "a value under the new key")
    assert gateway.ready().json["missing_secrets"] == 0
    command(gateway, "secrets", "remove", "pat")
    wait_for(lambda: "error" in call(gateway).answer, "the end of a removed value")
    gateway.stop()
    last = records(gateway)
    assert {one.get("credential") for one in last if one["outcome"] == "ok"} == {"pat"}
    assert (last[-1]["decision"], last[-1]["reason"]) == ("deny", "credential_unavailable")
    assert "PLANTED" not in gateway.log()
    for path in gateway.folder.rglob("*"):
        assert not path.is_file() or b"PLANTED" not in path.read_bytes(), path


@pytest.mark.parametrize("damage", ["newer", "garbage"])
def test_a_store_that_cannot_be_used_ends_the_start_in_words(tmp_path: Path, server: FakeServer, damage: str) -> None:
    config = {"version": 1, "servers": {"one": {"url": server.url}}, "identity": {"api_keys": True}}
    gateway = Gateway(config, tmp_path)
    gateway.write(config)
    command(gateway, "keys", "create", "ci")
    path = tmp_path / ".narthex" / "narthex.db"
    if damage == "newer":
        import sqlite3

        connection = sqlite3.connect(path)
        connection.execute("PRAGMA user_version = 99")
        connection.close()
    else:
        path.write_bytes(b"garbage" * 1000)
    with pytest.raises(AssertionError) as ended:
        gateway.start()
    assert "exit 1 at start" in str(ended.value) and str(path) in gateway.log()
    assert "Traceback" not in gateway.log()


def test_no_core_file_is_left(start_gateway: StartGateway, server: FakeServer) -> None:
    gateway = start_gateway({"version": 1, "servers": {"one": {"url": server.url}}})
    assert resource.prlimit(gateway.process.pid, resource.RLIMIT_CORE)[0] == 0


def test_a_plain_gateway_opens_no_store_and_records_nothing(start_gateway: StartGateway, server: FakeServer) -> None:
    gateway = start_gateway({"version": 1, "servers": {"one": {"url": server.url}}})
    assert call(gateway).status == 200
    assert {path.name for path in (gateway.folder / ".narthex").iterdir()} == {"narthex.key", "admin.token"}
    maps = Path(f"/proc/{gateway.process.pid}/maps").read_text()
    assert "_sqlite3" not in maps, "not even its module"


def test_a_stream_ends_with_the_key_that_opened_it(start_gateway: StartGateway, server: FakeServer) -> None:
    config = {"version": 1, "servers": {"one": {"url": server.url}}, "identity": {"api_keys": True}}
    gateway = start_gateway(config)
    keys = {name: json.loads(command(gateway, "keys", "create", name, "--json"))["key"] for name in ("one", "two")}
    becomes(gateway, keys["two"], 200)
    streams, heads = {}, {}
    for name, key in keys.items():
        body = message("subscriptions/listen", {"notifications": {"toolsListChanged": True}})
        wire = streams[name] = Wire(gateway.mcp)
        wire.send(gateway.client().render(body, extra=[("authorization", f"Bearer {key}")]))
        heads[name] = wire.read_head()
        assert heads[name].status == 200
    command(gateway, "keys", "revoke", "one")
    assert list(streams["one"].read_body(heads["one"])), "it ends in good order"
    streams["two"]._socket.settimeout(0.0)
    with pytest.raises(BlockingIOError):  # and nobody else's: nothing more has come on it
        while streams["two"]._socket.recv(1):
            pass
    for wire in streams.values():
        wire.close()
