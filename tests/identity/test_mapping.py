"""Roles and groups of a real Keycloak decide which account a caller has with a server; `whoami` and the record tell."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import StartGateway
from tests.counterparts.keycloak.server import Keycloak
from tests.e2e.harness import ROOT, Gateway, check_error, wait_for
from tests.identity.rig import Caller
from tests.identity.upstream import Guarded

pytestmark = pytest.mark.e2e
ISSUER: dict[str, Any] = {
    "preset": "keycloak",
    "audiences": ["gateway"],
    "role_map": {"support": "helper", "reader": ["reader"]},
    "group_map": {"/staff/support": "first-line", "/staff/finance": "accountant"},
    "tenant": "acme",
}
TABLE = [
    {"who": {"role": "accountant"}, "use": "finance"},
    {"who": {"role": ["first-line"], "client": "agent", "tenant": "acme"}, "use": "support"},
]
WHOAMI = "import sys; from narthex.cli.main import main; sys.exit(main())"


@dataclass
class Place:
    gateway: Gateway
    realm: Keycloak
    upstream: Guarded

    def whoami(self, token: str, *more: str, code: int = 0) -> Any:
        """What the command says of a token, which it reads from stdin."""
        path = str(self.gateway.folder / "narthex.yaml")
        command = [sys.executable, "-c", WHOAMI, "whoami", "--token", "-", "--json", "--config", path, *more]
        env = {**os.environ, "PYTHONPATH": str(ROOT / "src"), **self.gateway.env}
        done = subprocess.run(command, input=token, capture_output=True, text=True, timeout=60, env=env)
        assert done.returncode == code, done.stdout + done.stderr
        assert token not in done.stdout + done.stderr
        return json.loads(done.stdout)

    def records(self, server: str = "up") -> list[Any]:
        """The records of calls to a server."""
        lines = [line for path in self.folder.rglob("*.jsonl") for line in path.read_text().splitlines()]
        return [one for one in map(json.loads, lines) if one.get("server") == server and one["method"] == "tools/call"]

    @property
    def folder(self) -> Path:
        return self.gateway.folder / "records"


@pytest.fixture(scope="module")
def place(module_gateway: StartGateway, keycloak: Keycloak) -> Iterator[Place]:
    header = {"kind": "header", "name": "Authorization"}
    with Guarded() as upstream:
        config = {
            "version": 1,
            "servers": {"up": {"url": upstream.url, "credential": TABLE}},
            "identity": {"issuers": {"corp": {**ISSUER, "issuer": keycloak.issuer}}},
            "credentials": {name: {**header, "value": f"Bearer ${{secret:{name}}}"} for name in ("finance", "support")},
            "secrets": {"finance": "env:FINANCE", "support": "env:SUPPORT"},
            "audit": {"dir": "records"},
        }
        env = {"FINANCE": "account-of-finance", "SUPPORT": "account-of-support"}
        yield Place(module_gateway(config, env=env), keycloak, upstream)


def test_whoami_says_who_and_why(place: Place) -> None:
    said = place.whoami(place.realm.token(user="alice"))
    who = said["principal"]
    assert said["accepted"] and who["tenant"] == "acme" and who["kind"] == "human" and who["client"] == "agent"
    assert set(who["roles"]) == {"helper", "reader", "first-line"} and who["groups"] == ["/staff/support"]
    assert all(check["ok"] for check in said["checks"])
    reasons = " ".join(f"{one['what']}: {one['text']}" for one in said["read"])
    assert "first-line" in reasons and "group_map" in reasons and "role_map" in reasons


def test_what_no_rule_names_gives_nothing(place: Place) -> None:
    """`offline_access`, and whatever else Keycloak gives everybody, is no role here."""
    assert place.whoami(place.realm.token(user="bob"))["principal"]["roles"] == ["accountant"]
    service = place.whoami(place.realm.token())["principal"]
    assert (service["kind"], service["roles"], service["groups"]) == ("service", ["helper"], [])


def test_whoami_names_the_check_that_failed(place: Place) -> None:
    said = place.whoami(place.realm.token("stranger"), code=1)
    assert not said["accepted"] and [one["check"] for one in said["checks"] if not one["ok"]] == ["audience"]


@pytest.mark.parametrize(("user", "alias"), [("alice", "support"), ("bob", "finance")])
def test_a_role_decides_which_account_is_used(place: Place, user: str, alias: str) -> None:
    token = place.realm.token(user=user)
    account = place.whoami(token, "--server", "up")["server"]
    assert (account["credential"], account["for_it"]) == (alias, True)
    Caller(place.gateway.mcp, token).call("up__echo", {"text": "hello"})
    assert place.upstream.shown[-1] == f"account-of-{alias}"
    mine = wait_for(lambda: [one for one in place.records() if one.get("credential") == alias], "its record")[-1]
    assert mine["tenant"] == "acme" and mine["principal"]["issuer"] == place.realm.issuer
    assert "account-of" not in json.dumps(place.records()), "the alias, never the secret"


def test_for_who_has_no_account_the_server_is_not_there(place: Place) -> None:
    token = place.realm.token()
    assert place.whoami(token, "--server", "up", code=1)["server"]["for_it"] is False
    before = len(place.upstream.asked)
    check_error(Caller(place.gateway.mcp, token).call_error("up__echo", {"text": "hello"}), -31005)
    assert len(place.upstream.asked) == before
