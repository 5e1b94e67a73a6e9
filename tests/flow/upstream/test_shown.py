"""What a server sees of us, over each transport: with every request, once more after a refusal, apart by account."""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from narthex.errors import CredentialUnavailable, GatewayError
from narthex.flow.upstream.fleet import Viewer
from narthex.flow.upstream.port import Behalf
from narthex.flow.upstream.sse import open_sse
from narthex.testing import Asked, FakeServer
from narthex.types import (
    LOCAL,
    Authority,
    CertificateCredential,
    Egress,
    EndpointSpec,
    EnvCredential,
    HeaderCredential,
    Principal,
    QueryCredential,
    ServerSpec,
    TokenCredential,
    Use,
    Who,
)
from tests.authority.issuer import Holdings, Issuer, Known, everybody, secret, service
from tests.flow.gateway import Running, run, spec, until
from tests.flow.upstream.test_dial import make_authority
from tests.flow.upstream.test_fleet import tools
from tests.flow.upstream.test_sse import Opened, Scripted, ask
from tests.flow.upstream.test_stdio import spec as stdio

HEADER = HeaderCredential("key", "X-Key", secret("key"))
ALICE = Principal("acme", "https://idp", "alice", roles=("support",))
BOB = Principal("acme", "https://idp", "bob", roles=("sales",))


def gateway(server: ServerSpec | Mapping[str, ServerSpec], holdings: Holdings, **settings: Any) -> Running:
    servers = {server.name: server} if isinstance(server, ServerSpec) else server
    return Running(servers, holdings=holdings.credentials, settings=settings)


class Bearers:
    """A guard that takes what it is told to take, and says where its resource's metadata is."""

    def __init__(self, *taken: str, metadata: str = "", scope: str = "") -> None:
        self.taken = set(taken)
        self.refused = 0
        self._challenge = f'Bearer error="invalid_token", scope="{scope}"'
        if metadata:
            self._challenge += f', resource_metadata="{metadata}"'

    def __call__(self, asked: Asked) -> tuple[int, dict[str, str]] | None:
        if asked.headers.get("authorization", "").removeprefix("Bearer ") in self.taken:
            return None
        self.refused += 1
        return 401, {"WWW-Authenticate": self._challenge}


@pytest.mark.parametrize("eras", ["modern", "legacy"])
def test_a_header_goes_with_every_request(eras: Any) -> None:
    async def main() -> None:
        async with FakeServer(tools=tools("x"), eras=eras) as server, Holdings(Known(key="PLANTED-1")) as holdings:
            one = spec("one", server.url, accounts=everybody(HEADER))
            async with gateway(one, holdings) as running:
                client = await running.client(session=True)
                await client.legacy("tools/list")
                answer = await client.legacy("tools/call", {"name": "one__x", "arguments": {}})
                assert answer.text == "{}"
                holdings.secrets.set("key", "PLANTED-2")
                holdings.later(1)
                await client.legacy("tools/call", {"name": "one__x", "arguments": {}})
            shown = [asked.headers.get("x-key") for asked in server.asked]
            first = shown.index("PLANTED-2")
            assert set(shown[:first]) == {"PLANTED-1"} and set(shown[first:]) == {"PLANTED-2"}
            if eras == "legacy":
                assert server.asked[-1].verb == "DELETE" and len(server.requests("initialize")) == 1

    run(main)


def test_a_token_is_fetched_when_the_server_is_first_needed_and_replaced_when_it_is_revoked() -> None:
    async def main() -> None:
        async with Issuer() as issuer, FakeServer(tools=tools("x")) as server, Holdings() as holdings:
            server.guard = guard = Bearers("token-1")
            one = spec("one", server.url, accounts=everybody(service(issuer.authority)))
            async with gateway(one, holdings) as running:
                assert not issuer.heads
                client = await running.client()
                call = ("tools/call", {"name": "one__x", "arguments": {}})
                assert (await client.modern(*call)).text == "{}"
                guard.taken = {"token-2"}
                answers = await asyncio.gather(*[(await running.client()).modern(*call) for _ in range(8)])
                assert {answer.text for answer in answers} == {"{}"}
                assert len(issuer.forms) == 2
                assert guard.refused <= 8
                assert running.settled()

    run(main)


@pytest.mark.parametrize("eras", ["modern", "legacy"])
def test_a_server_that_takes_no_token_is_an_error_and_no_storm(eras: Any) -> None:
    async def main() -> None:
        async with Issuer() as issuer, FakeServer(tools=tools("x"), eras=eras) as server, Holdings() as holdings:
            server.guard = Bearers()
            one = spec("one", server.url, accounts=everybody(service(issuer.authority)))
            async with gateway(one, holdings) as running:
                client = await running.client()
                for _ in range(10):
                    error = (await client.modern("tools/call", {"name": "one__x", "arguments": {}})).error
                    assert error["code"] == -31005
                    assert "token-" not in json.dumps(error)
                assert len(issuer.forms) <= 2
                assert running.fleet.servers["one"].breaker.state == "closed", "the server is well"
                assert running.settled()

    run(main)


@pytest.mark.parametrize("eras", ["modern", "legacy"])
def test_a_server_says_whose_tokens_it_takes(eras: Any) -> None:
    async def main() -> None:
        async with Issuer() as issuer, FakeServer(tools=tools("x"), eras=eras) as server, Holdings() as holdings:
            path = "/.well-known/oauth-protected-resource/mcp"
            server.pages = {path: {"resource": server.url, "authorization_servers": [issuer.url]}}
            server.guard = Bearers("token-1", metadata=server.url.removesuffix("/mcp") + path, scope="a b")
            unknown = TokenCredential("api", "client_credentials", Authority("gateway", client_secret=secret("client")))
            async with gateway(spec("one", server.url, accounts=everybody(unknown)), holdings) as running:
                client = await running.client()
                assert (await client.modern("tools/call", {"name": "one__x", "arguments": {}})).text == "{}"
                assert issuer.forms == [{"grant_type": "client_credentials", "scope": "a b", "resource": server.url}]

    run(main)


@pytest.mark.parametrize("eras", ["modern", "legacy"])
def test_a_call_that_wants_more_scopes_gets_them_and_no_more_than_is_allowed(eras: Any) -> None:
    async def main() -> None:
        async with Issuer() as issuer, FakeServer(tools=tools("x", "y"), eras=eras) as server, Holdings() as holdings:

            def wants(asked: Asked) -> tuple[int, dict[str, str]] | None:
                token = asked.headers.get("authorization", "").removeprefix("Bearer token-")
                scopes = issuer.forms[int(token) - 1]["scope"].split() if token else []
                needed = {"x": "write", "y": "admin"}.get(asked.params.get("name", ""), "read")
                if needed in scopes:
                    return None
                error = f'Bearer error="insufficient_scope", scope="{needed}"'
                return (403, {"WWW-Authenticate": error}) if token else (401, {"WWW-Authenticate": "Bearer"})

            server.guard = wants
            credential = service(issuer.authority, scopes=("read",), step_up=("write",))
            async with gateway(spec("one", server.url, accounts=everybody(credential)), holdings) as running:
                client = await running.client()
                assert (await client.modern("tools/call", {"name": "one__x", "arguments": {}})).text == "{}"
                assert [form["scope"] for form in issuer.forms] == ["read", "read write"]
                for _ in range(3):
                    error = (await client.modern("tools/call", {"name": "one__y", "arguments": {}})).error
                    assert error["code"] == -31005
                assert len(issuer.forms) == 2, "admin is nobody's to ask for"
                assert (await client.modern("tools/call", {"name": "one__x", "arguments": {}})).text == "{}"
                assert running.settled()

    run(main)


def test_accounts_share_neither_sessions_nor_lists() -> None:
    async def main() -> None:
        other = HeaderCredential("other", "X-Key", secret("other"))
        table = (Use(Who(role=("support",)), HEADER), Use(Who(role=("sales",)), other))
        holdings = Holdings(Known(key="PLANTED-1", other="PLANTED-2"))
        async with FakeServer(tools=tools("x"), eras="legacy") as server, holdings:
            one = spec("one", server.url, accounts=table, sharing="tenant")
            async with gateway(one, holdings) as running:
                endpoint, fleet = EndpointSpec("default", ("one",)), running.fleet

                def viewer(who: Principal) -> Viewer:
                    return fleet.viewer(endpoint, who, None)

                assert viewer(ALICE) is not viewer(BOB)
                assert viewer(ALICE) is viewer(Principal("acme", "https://idp", "carol", roles=("support", "x")))
                assert viewer(msgspec.structs.replace(ALICE, roles=("sales",))) is viewer(BOB), "a role has changed"
                for who in (ALICE, BOB):
                    view = await fleet.listing(viewer(who), "tools")
                    assert list(view.index.targets) == ["one__x"]
                nobody = await fleet.listing(viewer(LOCAL), "tools")
                assert not nobody.index.targets and nobody.index.missing, "no row fits: nothing is asked"
            for method in ("initialize", "tools/list"):
                assert [asked.headers["x-key"] for asked in server.requests(method)] == ["PLANTED-1", "PLANTED-2"]

    run(main)


def test_a_missing_secret_fails_its_own_server_alone() -> None:
    async def main() -> None:
        async with (
            FakeServer(tools=tools("x")) as first,
            FakeServer(tools=tools("y")) as second,
            Holdings() as holdings,
        ):
            servers = {"one": spec("one", first.url, accounts=everybody(HEADER)), "two": spec("two", second.url)}
            async with gateway(servers, holdings) as running:
                client = await running.client()
                listed = (await client.modern("tools/list")).result["tools"]
                assert [tool["name"] for tool in listed] == ["two__y"]
                error = (await client.modern("tools/call", {"name": "one__x", "arguments": {}})).error
                assert error["data"]["reason"] == "credential_unavailable" and "server one" in error["message"]
                assert not first.asked, "nothing was sent"
                assert "narthex secrets set key" in (running.fleet.servers["one"].last_error or (0, ""))[1]
                holdings.secrets.set("key", "PLANTED")
                holdings.later(1)
                assert (await client.modern("tools/call", {"name": "one__x", "arguments": {}})).text == "{}"

    run(main)


def test_a_query_goes_with_every_request_of_its_own_connections() -> None:
    async def main() -> None:
        credential = QueryCredential("q", "api_key", secret("key"))
        async with FakeServer(tools=tools("x")) as server, Holdings(Known(key="PLANTED&1")) as holdings:
            table = (Use(Who(role=("support",)), credential), Use(Who(), None))
            async with gateway(spec("one", f"{server.url}?a=b", accounts=table), holdings) as running:
                endpoint = EndpointSpec("default", ("one",))
                await running.fleet.listing(running.fleet.viewer(endpoint, ALICE, None), "tools")
                assert {asked.path for asked in server.asked} == {"/mcp?a=b&api_key=PLANTED%261"}
                server.asked.clear()
                await running.fleet.listing(running.fleet.viewer(endpoint, BOB, None), "tools")
                assert {asked.path for asked in server.asked} == {"/mcp?a=b"}
                server.asked.clear()
                holdings.secrets.set("key", "PLANTED-2")
                running.pass_time(1)
                holdings.later(1)
                running.pass_time(61)
                await running.fleet.servers["one"].open(running.fleet.viewer(endpoint, ALICE, None).scopes["one"])
                assert server.asked and {asked.path for asked in server.asked} == {"/mcp?a=b&api_key=PLANTED-2"}
                pool: Any = running.fleet.servers["one"].pool
                assert len(pool._apart) == 2
                running.pass_time(10)
                running.pass_time(901)
                assert not pool._apart, "nobody uses them: they are looked after no more"

    run(main)


PRINTS = """
import os
while True:
    message = read()
    if message.get("method") == "initialize":
        info = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": {"name": "x"}}
        send(id=message["id"], result=info)
    elif message.get("method") == "tools/list":
        send(id=message["id"], result={"tools": [{"name": os.environ.get("TOKEN", "none"), "inputSchema": {}}]})
    elif "id" in message:
        fail(message)
"""


def test_a_process_has_its_account_in_its_environment_and_another_starts_when_it_changes() -> None:
    async def main() -> None:
        credential = EnvCredential("env", (("TOKEN", secret("key")),))
        async with Holdings() as holdings:
            server = stdio(PRINTS, era="legacy", env={"TOKEN": "theirs"}, accounts=everybody(credential), list_ttl_s=0)
            async with gateway({"scripted": server}, holdings) as running:
                endpoint = EndpointSpec("default", ("scripted",))
                viewer = running.fleet.viewer(endpoint, LOCAL, None)
                one = running.fleet.servers["scripted"]
                for _ in range(5):
                    with pytest.raises(CredentialUnavailable):
                        await one.open(viewer.scopes["scripted"])
                assert one.breaker.state == "closed" and not one.channels, "no process was started"

                async def shown() -> str:
                    (item,) = (await one.fetch(viewer.scopes["scripted"], "tools", recheck=True)).items
                    return str(item[0])

                holdings.secrets.set("key", "value-1")
                holdings.later(1)
                assert await shown() == "value-1"
                channel: Any = one.ready(viewer.scopes["scripted"])
                holdings.secrets.set("key", "value-2")
                holdings.later(1)
                running.pass_time(1)
                assert await shown() == "value-2"
                running.pass_time(1)
                await until(lambda: not channel.alive)

    run(main)


def test_the_old_transport_shows_it_on_its_stream_and_with_each_message() -> None:
    async def main() -> None:
        class Guarded(Scripted):
            taken = "Bearer token-1"

            async def get(self, writer: asyncio.StreamWriter) -> None:
                if self.requests[-1][1].get("authorization") == self.taken:
                    await super().get(writer)
                else:
                    writer.write(b"HTTP/1.1 401 No\r\nContent-Length: 0\r\nWWW-Authenticate: Bearer\r\n\r\n")

            async def post(self, writer: asyncio.StreamWriter, message: Any) -> None:
                if self.requests[-1][1].get("authorization") == self.taken:
                    await super().post(writer, message)
                else:
                    writer.write(b"HTTP/1.1 401 No\r\nContent-Length: 0\r\nWWW-Authenticate: Bearer\r\n\r\n")

        async with Issuer() as issuer, Guarded() as server, Holdings() as holdings:
            opened = Opened(server)
            bare = msgspec.structs.replace(opened.spec.target, headers=())
            old = msgspec.structs.replace(opened.spec, target=bare, accounts=everybody(service(issuer.authority)))
            opened._pool.target = bare
            account = holdings.credentials.shown(old, ("default", "api"))
            server.taken = "Bearer token-2"
            channel = await open_sse(
                old, opened._pool, on_push=lambda *_: None, log=logging.getLogger("test"), deadline_s=10.0,
                behalf=Behalf(shown=account),
            )  # fmt: skip
            assert len(issuer.forms) == 2, "refused on its stream: another token, and another stream"
            sink, _ = ask(channel, name="x")
            assert (await sink.result())["got"]["name"] == "x"
            holdings.clock.advance(60)
            server.taken = "Bearer token-3"
            sink, _ = ask(channel, name="y")
            assert (await sink.result())["got"]["name"] == "y"
            server.taken = "nothing"
            sink, _ = ask(channel, name="z")
            assert isinstance(await sink.error(), GatewayError)
            await channel.close()
            opened._pool.close()

    run(main)


class Tls:
    """An MCP server that wants a certificate of its clients, by the connection."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.context = context
        self.subjects: list[Any] = []
        self.heads: list[str] = []

    async def __aenter__(self) -> Tls:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0, ssl=self.context)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.subjects.append(writer.get_extra_info("peercert"))
        try:
            while head := (await reader.readuntil(b"\r\n\r\n")).decode():
                self.heads.append(head)
                length = int(head.lower().partition("content-length: ")[2].partition("\r\n")[0])
                message = json.loads(await reader.readexactly(length))
                result = {"supportedVersions": ["2026-07-28"], "capabilities": {}, "tools": []}
                body = json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}).encode()
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
                    + body
                )
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            pass
        finally:
            writer.close()


def test_a_client_certificate_is_shown_on_its_own_connections(tmp_path: Path) -> None:
    async def main() -> None:
        authority = make_authority(tmp_path)
        authority.server.verify_mode = ssl.CERT_REQUIRED
        authority.server.load_verify_locations(authority.ca)
        pem = (tmp_path / "server.pem").read_text()
        key, leaf = pem[: pem.index("-----BEGIN CERT")], pem[pem.index("-----BEGIN CERT") :]
        credential = CertificateCredential("mtls", secret("leaf"), secret("key"))
        table = (Use(Who(role=("support",)), credential), Use(Who(), None))
        async with Tls(authority.server) as server, Holdings(Known(leaf=leaf, key=key)) as holdings:
            target = spec("one", f"http://127.0.0.1:{server.port}/mcp").target
            target = msgspec.structs.replace(target, scheme="https", url=f"https://127.0.0.1:{server.port}/mcp")
            one = ServerSpec("one", target, "http", era="modern", accounts=table, list_timeout_s=5.0)
            async with gateway(one, holdings, egress=Egress(proxy=None, ca=authority.ca)) as running:
                fleet, endpoint = running.fleet, EndpointSpec("default", ("one",))
                view = await fleet.listing(fleet.viewer(endpoint, ALICE, None), "tools")
                assert not view.index.missing
                assert all(subject for subject in server.subjects)
                refused = await fleet.listing(fleet.viewer(endpoint, BOB, None), "tools")
                assert refused.index.missing, "without a certificate there is no connection, not even a used one"
                holdings.secrets.set("key", "PLANTED no key")
                holdings.later(1)
                running.pass_time(1)
                with pytest.raises(GatewayError) as error:
                    await fleet.servers["one"].open(fleet.viewer(endpoint, ALICE, None).scopes["one"])
                assert "PLANTED" not in error.value.public + error.value.detail

    run(main)


def test_a_certificate_is_shown_beside_a_header(tmp_path: Path) -> None:
    async def main() -> None:
        authority = make_authority(tmp_path)
        authority.server.verify_mode = ssl.CERT_REQUIRED
        authority.server.load_verify_locations(authority.ca)
        pem = (tmp_path / "server.pem").read_text()
        key, leaf = pem[: pem.index("-----BEGIN CERT")], pem[pem.index("-----BEGIN CERT") :]
        beside = CertificateCredential("mtls", secret("leaf"), secret("key"))
        credential = HeaderCredential("a", "X-Key", secret("pat"), beside)
        async with (
            Tls(authority.server) as server,
            Holdings(Known(leaf=leaf, key=key, pat="one")) as holdings,
        ):
            target = spec("one", f"http://127.0.0.1:{server.port}/mcp").target
            target = msgspec.structs.replace(target, scheme="https", url=f"https://127.0.0.1:{server.port}/mcp")
            one = ServerSpec("one", target, "http", era="modern", accounts=(Use(Who(), credential),))
            async with gateway(one, holdings, egress=Egress(proxy=None, ca=authority.ca)) as running:
                fleet, endpoint = running.fleet, EndpointSpec("default", ("one",))
                view = await fleet.listing(fleet.viewer(endpoint, ALICE, None), "tools")
                assert not view.index.missing
                assert all(server.subjects) and all("X-Key: one" in head for head in server.heads)
                scope = fleet.viewer(endpoint, ALICE, None).scopes["one"]
                shown = holdings.credentials.shown(one, scope)
                assert holdings.credentials.shown(one, scope) is shown, "channels that show the same share connections"
                epoch = shown.epoch
                holdings.secrets.set("pat", "two")
                holdings.later(1)
                assert (shown.lines, shown.epoch) == (b"X-Key: two\r\n", epoch), "the channel goes on"
                holdings.secrets.set("key", None)
                holdings.later(1)
                assert shown.epoch != epoch, "what was opened with the certificate ends"
                with pytest.raises(GatewayError):
                    shown.certificate()
                holdings.later(2000)
                assert not holdings.credentials._both, "who is forgotten is forgotten whole"

    run(main)
