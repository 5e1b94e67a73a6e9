"""`narthex whoami`: every check by its name, the principal, exit codes; `--key` and `--token` of other commands."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pty
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from narthex.cli.main import cli
from narthex.testing import FakeServer
from tests.authority.issuing import LiveIssuer, issuing
from tests.flow.identity.issuer import AUDIENCE, base64url, claims, token


@pytest.fixture(scope="module")
def live() -> Iterator[LiveIssuer]:
    """An issuer in a thread: the command has a loop of its own."""
    ready, done = threading.Event(), threading.Event()
    found: list[LiveIssuer] = []

    async def main() -> None:
        async with issuing() as one:
            found.append(one)
            ready.set()
            while not done.is_set():
                await asyncio.sleep(0.01)

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    assert ready.wait(60)
    yield found[0]
    done.set()
    thread.join(60)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, live: LiveIssuer) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "narthex.yaml").write_text(
        "version: 1\nservers: {one: {url: 'http://127.0.0.1:1/mcp'}}\n"
        "endpoints: {default: {base_scopes: [mcp]}, plain: {}}\n"
        "identity:\n  api_keys: true\n  issuers:\n"
        f"    corp: {{preset: keycloak, issuer: '{live.url}', audiences: ['{AUDIENCE}'],"
        " group_map: {/support: support}, introspection: {client_id: gw, client_secret: s3cret}}\n"
    )
    live.tokens.clear()
    return tmp_path


def bearer(live: LiveIssuer, **more: Any) -> str:
    now = time.time()
    said: dict[str, Any] = {"iss": live.url, "exp": now + 300, "iat": now, "scope": "mcp", "groups": ["/support"]}
    return token(claims(**(said | more))).decode()


def whoami(*arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(cli, ["whoami", *arguments], input=stdin)


def test_a_good_token(here: Path, live: LiveIssuer) -> None:
    done = whoami("--token", bearer(live))
    assert done.exit_code == 0, done.output
    for said in ("jwt, issuer 'corp'", "signature", "support (group_map: /support)", "A call with it is let in."):
        assert said in done.stdout


def with_table(here: Path) -> None:
    path = here / "narthex.yaml"
    path.write_text(
        path.read_text().replace(
            "{url: 'http://127.0.0.1:1/mcp'}",
            "{url: 'http://127.0.0.1:1/mcp', credential: [{who: {role: support}, use: desk},"
            " {who: {subject: carol}, use: hers}, {who: {subject: bob}, use: none}]}",
        )
        + "credentials:\n  desk: {kind: header, name: X-Key, value: '${secret:never-looked-up}'}\n"
        "  hers: {kind: token_exchange, issuer: 'https://as.example.com', client_id: gw}\n"
    )


@pytest.mark.parametrize(
    ("who", "account", "shown"),
    [
        pytest.param({}, ("desk", 1, True), "it is shown       desk", id="by role"),
        pytest.param(
            {"sub": "carol", "groups": []}, ("hers", 2, True), "made of the caller's own token", id="by subject"
        ),
        pytest.param({"sub": "bob", "groups": []}, (None, 3, True), "it is shown       nothing", id="use: none"),
        pytest.param({"sub": "dave", "groups": []}, (None, None, False), "not for this caller", id="no row"),
    ],
)
def test_which_account_a_caller_has(here: Path, live: LiveIssuer, who: Any, account: Any, shown: str) -> None:
    with_table(here)
    done = whoami("--token", bearer(live, **who), "--server", "one", "--json")
    found = json.loads(done.stdout)["server"]
    assert (found["credential"], found["row"], found["for_it"]) == account
    assert done.exit_code == (0 if account[2] else 1)
    assert shown in whoami("--token", bearer(live, **who), "--server", "one").stdout


def test_accounts_without_an_identity(here: Path, live: LiveIssuer) -> None:
    (here / "narthex.yaml").write_text(
        "version: 1\nservers: {one: {url: 'http://127.0.0.1:1/mcp', credential: key}}\n"
        "credentials: {key: {kind: header, name: X-Key, value: '${secret:s}'}}\n"
    )
    done = whoami("--server", "one", "--json")
    assert done.exit_code == 0 and json.loads(done.stdout)["server"]["credential"] == "key"
    assert "it is shown       key" in whoami("--server", "one").stdout
    misspelt = whoami("--server", "oen")
    assert misspelt.exit_code == 2 and "did you mean 'one'" in misspelt.output


def test_a_caller_must_be_named_where_callers_differ(here: Path, live: LiveIssuer) -> None:
    assert whoami("--server", "one").exit_code == 2


def test_as_one_document(here: Path, live: LiveIssuer) -> None:
    text = bearer(live, exp=2_000_000_000)
    first, second = whoami("--token", text, "--json"), whoami("--token", "-", "--json", stdin=text + "\n")
    assert first.stdout == second.stdout, "without timings"
    document = json.loads(first.stdout)
    assert document["accepted"] and document["issuer"] == "corp"
    assert document["principal"]["roles"] == ["support"] and document["principal"]["subject"] == "alice"
    assert document["principal"]["expires_at"] == "2033-05-18T03:33:20Z"
    assert all(check["ok"] for check in document["checks"])


def test_everything_that_is_wrong_is_told_at_once(here: Path, live: LiveIssuer) -> None:
    done = whoami("--token", bearer(live, aud="other", exp=1000, scope="x"), "--json")
    assert done.exit_code == 1
    document = json.loads(done.stdout)
    assert {check["check"] for check in document["checks"] if not check["ok"]} == {"audience", "times", "base scopes"}
    assert document["principal"]["roles"] == ["support"], "what it would be"


@pytest.mark.parametrize(
    ("given", "failed"),
    [
        pytest.param("not-a-token", "introspection", id="opaque, and not active"),
        pytest.param(token(claims(iss="https://other.example")).decode(), "issuer", id="another issuer"),
        pytest.param((b"x" * 20_000).decode(), "size", id="huge"),
        pytest.param("nx_abcdefgh_x", "keys", id="an unknown key"),
    ],
)
def test_refused(here: Path, given: str, failed: str) -> None:
    done = whoami("--token", given, "--json")
    assert done.exit_code == 1
    assert failed in [check["check"] for check in json.loads(done.stdout)["checks"] if not check["ok"]]


def test_a_forged_signature(here: Path, live: LiveIssuer) -> None:
    head, body, _ = bearer(live).split(".")
    done = whoami("--token", f"{head}.{body}.{base64url(bytes(256)).decode()}", "--json")
    assert [check["check"] for check in json.loads(done.stdout)["checks"] if not check["ok"]] == ["signature"]


def test_an_opaque_token(here: Path, live: LiveIssuer) -> None:
    live.tokens["opaque"] = {"active": True, "sub": "alice", "aud": AUDIENCE, "scope": "mcp"}
    done = whoami("--token", "opaque", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["principal"]["method"] == "introspection"


def test_a_key(here: Path) -> None:
    made = CliRunner().invoke(cli, ["keys", "create", "robot", "--role", "reader", "--scope", "mcp", "--json"])
    key = json.loads(made.stdout)["key"]
    done = whoami("--key", key)
    assert done.exit_code == 0 and "robot" in done.stdout and "reader" in done.stdout
    assert key not in done.output


def test_an_issuer_that_is_dead(here: Path, live: LiveIssuer) -> None:
    live.broken = 500
    try:
        done = whoami("--token", bearer(live))
    finally:
        live.broken = 0
    assert done.exit_code == 1 and "HTTP 500" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        pytest.param([], 2, "--token or --key", id="nothing"),
        pytest.param(["--token", "a", "--key", "b"], 2, "not both", id="both"),
        pytest.param(["--token", "a b"], 2, "one word", id="two words"),
        pytest.param(["--token", ""], 2, "one word", id="empty"),
        pytest.param(["--token", "a", "--endpoint", "plian"], 2, "did you mean", id="a misspelt endpoint"),
    ],
)
def test_misused(here: Path, arguments: list[str], code: int, said: str) -> None:
    done = whoami(*arguments)
    assert done.exit_code == code and said in done.output


def test_without_an_identity(here: Path) -> None:
    (here / "narthex.yaml").write_text("version: 1\nservers: {one: {url: 'http://127.0.0.1:1/mcp'}}\n")
    done = whoami("--token", "a")
    assert done.exit_code == 1 and "principal 'local'" in done.stderr


def test_on_a_terminal_a_key_is_asked_for_and_not_shown(here: Path) -> None:
    terminal, ours = pty.openpty()
    with os.fdopen(terminal, "r+b", buffering=0) as screen, subprocess.Popen(
        [sys.executable, "-m", "narthex.cli.main", "whoami", "--key", "-"],
        stdin=ours, stdout=ours, stderr=ours, start_new_session=True,
    ) as process:  # fmt: skip
        os.close(ours)
        shown = b""
        while not shown.endswith(b"Key: "):
            shown += screen.read(1)
        screen.write(b"nx_hidden\n")
        with contextlib.suppress(OSError):  # Linux says so that nobody holds the other end
            while piece := screen.read(4096):
                shown += piece
    assert process.returncode == 1 and b"key" in shown and b"nx_hidden" not in shown


@pytest.mark.parametrize(
    ("arguments", "help_"),
    [
        pytest.param([], "give --key or --token", id="without one"),
        pytest.param(["--key", "nx_wrong"], "what is wrong with this credential", id="with a wrong one"),
    ],
)
def test_what_to_do_when_not_let_in(here: Path, arguments: list[str], help_: str) -> None:
    with FakeServer(guard=lambda asked: (401, {})) as server:
        done = CliRunner().invoke(cli, ["list", "--url", server.url, *arguments])
    assert done.exit_code == 1 and help_ in done.stderr


@pytest.mark.parametrize("command", [["list"], ["call", "echo"]], ids=["list", "call"])
def test_list_and_call_send_a_credential(here: Path, command: list[str]) -> None:
    with FakeServer(tools=[{"name": "echo", "inputSchema": {}}]) as server:
        done = CliRunner().invoke(cli, [*command, "--url", server.url, "--token", "-"], input="t0ken\n")
        assert done.exit_code == 0, done.output
        sent = server.requests("tools/call" if command[0] == "call" else "tools/list")
        assert {request.headers.get("authorization") for request in sent} == {"Bearer t0ken"}
