"""Identity as a process has it: client certificates of its own listener, bound tokens, reloads, other machines."""

from __future__ import annotations

import hashlib
import json
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import StartGateway
from tests.e2e.certificates import Authority, Pair
from tests.e2e.harness import ROOT, Client, Gateway, Wire, get, render, text, wait_for
from tests.faulty.server import FaultyServer
from tests.flow.identity.issuer import base64url
from tests.identity.rig import Caller, Issuer, issuing

pytestmark = pytest.mark.e2e
ECHO = {"name": "up__echo", "arguments": {"text": "hello"}}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    with issuing() as one:
        yield one


def config(upstream: FaultyServer, **identity: Any) -> dict[str, Any]:
    return {"version": 1, "servers": {"up": {"url": upstream.url()}}, "identity": identity}


def corp(issuer: Issuer, **more: Any) -> dict[str, Any]:
    return {"corp": {"issuer": issuer.base, "audiences": ["gateway"], **more}}


def keys(gateway: Gateway, *arguments: str) -> Any:
    """`narthex keys` beside the running gateway."""
    program = "import sys; from narthex.cli.main import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", program, "keys", *arguments, "--config", str(gateway.folder / gateway.file), "--json"],
        capture_output=True, text=True, check=True, env={"PYTHONPATH": str(ROOT / "src"), "HOME": str(gateway.folder)},
    )  # fmt: skip
    return json.loads(done.stdout)


def thumbprint(pair: Pair) -> str:
    der = ssl.PEM_cert_to_DER_cert(Path(pair.cert).read_text())
    return base64url(hashlib.sha256(der).digest()).decode()


def test_client_certificates_prove_who_calls_and_hold_bound_tokens(
    start_gateway: StartGateway, faulty: FaultyServer, authority: Authority, issuer: Issuer
) -> None:
    pair, mine, other = (authority.issue(name) for name in ("gateway", "agent", "stranger"))
    settings = config(faulty, issuers=corp(issuer), certificates={"subjects": {"CN=agent": ["robot"]}})
    settings["tls"] = {"cert": pair.cert, "key": pair.key, "client_ca": authority.file}
    gateway = start_gateway(settings, tls=authority.client_context(mine))
    assert text(gateway.client().call("up__echo", {"text": "by certificate"})) == "by certificate"
    stranger = authority.client_context(other)
    assert Caller(gateway.mcp, tls=stranger).try_call().status == 401, "its authority is known, its name is not"
    bound = issuer.token(cnf={"x5t#S256": thumbprint(mine)})
    for _ in range(2):
        assert Caller(gateway.mcp, bound, tls=authority.client_context(mine)).try_call().status == 200
        assert Caller(gateway.mcp, bound, tls=stranger).try_call().status == 401, "stolen"
    assert Caller(gateway.mcp, issuer.token(), tls=stranger).try_call().status == 200, "one that is bound to nothing"


def test_a_reload_changes_who_may_call_and_breaks_off_nothing(start_gateway: StartGateway, issuer: Issuer) -> None:
    with FaultyServer() as upstream:
        gateway = start_gateway(config(upstream, issuers=corp(issuer)))
        caller = Caller(gateway.mcp, issuer.token())
        assert caller.try_call().status == 200
        running = caller.start("tools/call", {"name": "up__slow", "arguments": {"text": "done"}})
        wait_for(
            lambda: any(seen.method == "tools/call" and "slow" in repr(seen.body) for seen in upstream.seen),
            "the call at the server",
        )
        gateway.write(config(upstream, issuers=corp(issuer, audiences=["another"])))
        wait_for(lambda: caller.try_call().status == 401, "the new configuration")
        upstream.release.set()
        assert text(running.answer()["result"]) == "done"
        gateway.write(config(upstream, issuers=corp(issuer)))
        wait_for(lambda: caller.try_call().status == 200, "the old configuration")


def test_keys_come_and_go_while_it_runs(start_gateway: StartGateway, faulty: FaultyServer) -> None:
    gateway = start_gateway(config(faulty, api_keys=True))
    nobody = Caller(gateway.mcp).try_call()
    assert nobody.status == 401 and nobody.header("www-authenticate") == "Bearer", "there is nowhere to sign in"
    assert get(gateway.mcp.replace("/mcp", "/.well-known/oauth-protected-resource/mcp")).status == 404
    made = keys(gateway, "create", "ci")
    caller = Caller(gateway.mcp, made["key"])
    wait_for(lambda: caller.try_call().status == 200, "the key")
    session = Caller(gateway.mcp, made["key"], "legacy")
    with Wire(gateway.mcp) as wire:
        lines = [("accept", "text/event-stream"), ("mcp-session-id", str(session.session))]
        wire.send(render("GET", wire.path, [("host", wire.host), *lines, ("authorization", f"Bearer {made['key']}")]))
        head = wire.read_head()
        assert head.status == 200
        keys(gateway, "revoke", made["id"])
        wait_for(lambda: caller.try_call().status == 401, "the end of the key")
        assert list(wire.read_body(head)), "its stream ends too"
    assert made["key"] not in gateway.log()


@pytest.mark.parametrize("listen", ["0.0.0.0:0", ""], ids=["by the command", "by the file"])
def test_other_machines_are_let_in_only_with_an_identity(
    start_gateway: StartGateway, faulty: FaultyServer, listen: str
) -> None:
    gateway = start_gateway({**config(faulty, api_keys=True), "listen": "0.0.0.0:0"}, listen=listen)
    made = keys(gateway, "create", "ci")
    caller = Caller(gateway.mcp, made["key"])
    wait_for(lambda: caller.try_call().status == 200, "the key")
    without = config(faulty)
    del without["identity"]
    gateway.write(without)  # its address is loopback again, but what listens does not change before the next start
    wait_for(lambda: "configuration refused" in gateway.log(), "the refusal")
    assert Client(gateway.mcp).post("tools/call", ECHO).status == 401


def test_the_admin_side_takes_the_admin_role(start_gateway: StartGateway, faulty: FaultyServer) -> None:
    gateway = start_gateway(config(faulty, api_keys=True))
    made = {role: keys(gateway, "create", role, "--role", role)["key"] for role in ("admin", "reader")}
    wait_for(lambda: Caller(gateway.mcp, made["reader"]).try_call().status == 200, "the keys")
    for role, status in (("admin", 200), ("reader", 403)):
        with Wire(gateway.admin + "/api/v1/reload") as wire:
            assert wire.request("POST", headers=[("authorization", f"Bearer {made[role]}")]).status == status
