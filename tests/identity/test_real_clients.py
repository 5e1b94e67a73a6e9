"""The official clients sign in by their own OAuth code at a real Keycloak, and call a tool behind the gateway."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import threading
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from cryptography.hazmat.primitives import serialization
from mcp import Client
from mcp.client.auth import AuthorizationCodeResult, OAuthClientProvider
from mcp.client.auth.extensions.client_credentials import (
    ClientCredentialsOAuthProvider,
    PrivateKeyJWTOAuthProvider,
    SignedJWTParameters,
)
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import OAuthClientInformationFull, OAuthClientMetadata, OAuthToken

from tests.conftest import StartGateway
from tests.counterparts.entra import Key
from tests.counterparts.keycloak.server import Keycloak
from tests.counterparts.person import Person
from tests.counterparts.ports import Port
from tests.e2e.harness import PATIENCE_S
from tests.e2e.servers import PACKAGES
from tests.faulty.server import FaultyServer
from tests.identity.rig import Protected, protected

pytestmark = pytest.mark.e2e
ALICE = {"username": "alice", "password": "alice-password"}
CALLBACK = "http://127.0.0.1:9/callback"
KEY = Key()
PEM = KEY.private.private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
).decode()


@pytest.fixture(scope="module")
def place(module_gateway: StartGateway, keycloak: Keycloak, faulty: FaultyServer) -> Protected:
    """An endpoint whose URL the realm knows as a resource: tokens are for it and for nothing else.

    It says which scope it needs: a client that is told none asks for all that the issuer has, which Keycloak refuses.
    """
    realm = keycloak.new_realm()
    endpoints = {"default": {"servers": ["up"], "base_scopes": ["tools:read"]}}
    found = protected(module_gateway, realm, faulty.url(), endpoints=endpoints)
    realm.add_resource(found.url, "agent", "desktop")
    return found


def by_key(place: Protected) -> None:
    """From now on `agent` proves itself by a key instead of its secret."""
    attributes = {"use.jwks.string": "true", "jwks.string": json.dumps({"keys": [{**KEY.jwk, "alg": "RS256"}]})}
    place.realm.change_client("agent", clientAuthenticatorType="client-jwt", attributes=attributes)


@pytest.fixture
def keyed(place: Protected) -> Any:
    by_key(place)
    yield place
    place.realm.change_client("agent", clientAuthenticatorType="client-secret", attributes={"use.jwks.string": "false"})


# --- Python


class Kept:
    """What the SDK keeps of a sign-in."""

    def __init__(self, client: OAuthClientInformationFull | None = None) -> None:
        self.client, self.tokens = client, None

    tokens: OAuthToken | None

    async def get_tokens(self) -> OAuthToken | None:
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self.client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self.client = client_info


def python_secret(place: Protected) -> Any:
    secret = {"client_id": "agent", "client_secret": "agent-secret", "scope": "tools:read"}
    return ClientCredentialsOAuthProvider(place.url, Kept(), **secret, issuer=place.realm.issuer)


def python_key(place: Protected) -> Any:
    signed = SignedJWTParameters(issuer="agent", subject="agent", signing_key=PEM, signing_algorithm="RS256")
    provide = signed.create_assertion_provider()
    return PrivateKeyJWTOAuthProvider(place.url, Kept(), "agent", provide, issuer=place.realm.issuer)


def python_code(place: Protected) -> Any:
    about: dict[str, Any] = {"redirect_uris": [CALLBACK], "token_endpoint_auth_method": "none", "scope": "tools:read"}
    back: list[str] = []

    async def redirect(url: str) -> None:
        back.append(await asyncio.to_thread(Person(ALICE).visit, url))

    async def callback() -> AuthorizationCodeResult:
        said = httpx2.URL(back.pop()).params
        assert "code" in said, said
        return AuthorizationCodeResult(code=said["code"], state=said["state"], iss=said.get("iss"))

    client = OAuthClientInformationFull(client_id="desktop", issuer=place.realm.issuer, **about)
    return OAuthClientProvider(place.url, OAuthClientMetadata(**about), Kept(client), redirect, callback)


def python_call(place: Protected, auth: Any) -> None:
    async def talk() -> None:
        http = httpx2.AsyncClient(auth=auth, timeout=60, trust_env=False)
        async with http, Client(streamable_http_client(place.url, http_client=http)) as client:
            assert [tool.name for tool in (await client.list_tools()).tools] == ["up__echo", "up__slow"]
            result = await client.call_tool("up__echo", {"text": "hello"})
            assert result.content[0].text == "hello"  # type: ignore[union-attr]

    asyncio.run(talk())


@pytest.mark.parametrize("provider", [python_secret, python_code], ids=["client credentials", "code"])
def test_the_python_sdk_signs_in(place: Protected, provider: Callable[[Protected], Any]) -> None:
    python_call(place, provider(place))


def test_the_python_sdk_signs_in_with_a_key(keyed: Protected) -> None:
    python_call(keyed, python_key(keyed))


# --- programs


def run(command: list[str], deliver: Callable[[subprocess.Popen[str], str], None], env: dict[str, str]) -> Any:
    """Run a client; when it names an address to sign in at, alice does, and where that leads is delivered to it."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, env={**os.environ, **env}, **pipes) as process:  # type: ignore[call-overload]
        said: list[str] = []

        def follow() -> None:
            for line in process.stderr:
                said.append(line)
                if found := re.search(r"(?:Open|navigate to): (http\S+)", line):
                    deliver(process, Person(ALICE).visit(found[1]))

        reader = threading.Thread(target=follow)
        reader.start()
        try:
            out = process.stdout.read()
            assert process.wait(PATIENCE_S) == 0, "".join(said)
        finally:
            process.kill()
            reader.join(PATIENCE_S)
    return json.loads(out)


def typescript(place: Protected, node: str, node_modules: Path, kind: str, **env: str) -> None:
    def deliver(process: subprocess.Popen[str], back: str) -> None:
        assert process.stdin
        process.stdin.write(back + "\n")
        process.stdin.flush()

    command = [node, str(node_modules.parent / "oauth.mjs"), kind, place.url, place.realm.issuer]
    assert run(command, deliver, env) == {"tools": ["up__echo", "up__slow"], "echo": "hello"}


@pytest.mark.parametrize("kind", ["secret", "code"])
def test_the_typescript_sdk_signs_in(place: Protected, node: str, node_modules: Path, kind: str) -> None:
    typescript(place, node, node_modules, kind)


def test_the_typescript_sdk_signs_in_with_a_key(keyed: Protected, node: str, node_modules: Path) -> None:
    typescript(keyed, node, node_modules, "assertion", KEY=PEM)


@pytest.mark.parametrize("era", ["legacy", "modern"])
def test_the_inspector_signs_in(place: Protected, node: str, node_modules: Path, era: str, tmp_path: Path) -> None:
    launcher = str(node_modules / PACKAGES / "inspector" / "clients" / "launcher" / "build" / "index.js")
    target = [place.url, "--transport", "http", "--protocol-era", era, "--format", "json"]
    port = Port()
    oauth = ["--client-id", "desktop", "--callback-url", f"http://127.0.0.1:{port.number}/oauth/callback"]
    call = ["--method", "tools/call", "--tool-name", "up__echo", "--tool-arg", "text=hello"]

    def deliver(process: subprocess.Popen[str], back: str) -> None:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(back, timeout=PATIENCE_S) as answer:
            assert answer.status == 200

    # It is made to go on without a terminal, and the browser that it starts then is `true`.
    env = {"HOME": str(tmp_path), "MCP_AUTO_OPEN_ENABLED": "true", "BROWSER": "true"}
    out = run([node, launcher, "--cli", *target, *oauth, *call], deliver, env)
    assert out["result"]["content"][0]["text"] == "hello"
