"""Tokens for servers, over real sockets: one fetch for many, renewed beside the calls, replaced when refused; and every
way in which a token endpoint can be broken."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import re
from collections.abc import Callable
from typing import Any

import pytest

from narthex.errors import CredentialUnavailable
from narthex.flow.upstream.port import Shown
from narthex.types import LOCAL, Authority, Principal, TokenCredential
from tests.authority.issuer import Holdings, Issuer, Reply, answer, everybody, secret, service
from tests.flow.gateway import run, spec, until

SERVER = "http://127.0.0.1:9/mcp"
SCOPE = ("default", "api")
ALICE = Principal("default", "https://idp", "alice", "agent", scopes=frozenset({"b", "a"}), expires_at=10.0**10)
UNAUTHORIZED = b'Bearer error="invalid_token"'


def shown(one: Holdings, credential: TokenCredential, scope: tuple[str, ...] = SCOPE, url: str = SERVER) -> Shown:
    server = spec("one", url, accounts=everybody(credential))
    one.credentials.apply([server])
    return one.credentials.shown(server, scope)


def request_with(lines: bytes | None) -> bytes:
    return b"POST /mcp HTTP/1.1\r\nHost: x\r\n" + (lines or b"") + b"\r\n{}"


async def why(asked: Any) -> str:
    with pytest.raises(CredentialUnavailable) as error:
        await asked
    assert "PLANTED" not in error.value.public + error.value.detail
    return error.value.detail


def test_one_fetch_serves_everybody_who_waits() -> None:
    async def main() -> None:
        async with Issuer(held=asyncio.Event()) as issuer, Holdings() as one:
            account = shown(one, service(issuer.authority, scopes=("read",)))
            assert account.lines is None
            waiting = [asyncio.ensure_future(account.obtain()) for _ in range(50)]
            await until(lambda: issuer.heads)
            assert issuer.held is not None
            issuer.held.set()
            assert set(await asyncio.gather(*waiting)) == {b"Authorization: Bearer token-1\r\n"}
            assert issuer.forms == [{"grant_type": "client_credentials", "scope": "read", "resource": SERVER}]
            assert account.lines == b"Authorization: Bearer token-1\r\n"
            assert shown(one, service(issuer.authority, scopes=("read",))) is account

    run(main)


def test_who_gives_up_stops_nobody() -> None:
    async def main() -> None:
        async with Issuer(held=asyncio.Event()) as issuer, Holdings() as one:
            account = shown(one, service(issuer.authority))
            first, second = (asyncio.ensure_future(account.obtain()) for _ in range(2))
            await until(lambda: issuer.heads)
            first.cancel()
            assert issuer.held is not None
            issuer.held.set()
            assert b"token-1" in await second

    run(main)


def test_a_used_token_is_renewed_beside_the_calls() -> None:
    async def main() -> None:
        async with Issuer() as issuer, Holdings() as one:
            account = shown(one, service(issuer.authority))
            await account.obtain()
            one.later(3500)
            account.keep(used=True)
            assert len(issuer.forms) == 1
            one.later(50)
            assert account.lines == b"Authorization: Bearer token-1\r\n", "calls go on with the old one"
            await until(lambda: account.lines == b"Authorization: Bearer token-2\r\n")

    run(main)


def test_one_that_nobody_uses_is_let_go() -> None:
    async def main() -> None:
        async with Issuer() as issuer, Holdings() as one:
            account = shown(one, service(issuer.authority))
            await account.obtain()
            one.later(3560)
            one.later(35)
            assert account.lines is None and len(issuer.forms) == 1
            one.later(1000)
            assert shown(one, service(issuer.authority)) is not account, "the account is forgotten too"

    run(main)


def test_a_refused_token_is_fetched_anew_once() -> None:
    async def main() -> None:
        async with Issuer() as issuer, Holdings() as one:
            account = shown(one, service(issuer.authority))
            calls = [request_with(await account.obtain()) for _ in range(10)]
            others = await asyncio.gather(*(account.again(401, UNAUTHORIZED, call) for call in calls))
            assert set(others) == {b"Authorization: Bearer token-2\r\n"}
            assert len(issuer.forms) == 2
            for _ in range(10):  # a server that wants none of them costs no fetch a call
                with contextlib.suppress(CredentialUnavailable):
                    request = request_with(await account.obtain())
                    assert await account.again(401, UNAUTHORIZED, request) is None
            assert len(issuer.forms) == 2
            one.later(31)
            assert b"token-3" in await account.obtain()

    run(main)


def test_another_secret_makes_another_token() -> None:
    async def main() -> None:
        async with Issuer() as issuer, Holdings() as one:
            account = shown(one, service(issuer.authority))
            await account.obtain()
            one.secrets.set("other", "value")
            one.later(1)
            assert account.lines, "not ours"
            one.secrets.set("client", "PLANTED-second")
            one.later(1)
            assert account.lines is None
            assert b"token-2" in await account.obtain()
            one.secrets.set("client", None)
            one.later(1)
            assert account.lines is None
            assert "narthex secrets set client" in await why(account.obtain())
            one.secrets.set("client", "PLANTED-third")
            one.later(1)
            assert b"token-3" in await account.obtain(), "at once: the failure was another secret's"

    run(main)


def test_a_secret_that_changes_during_a_fetch_makes_the_token() -> None:
    async def main() -> None:
        async with Issuer(held=asyncio.Event()) as issuer, Holdings() as one:
            account = shown(one, service(issuer.authority))
            waiting = asyncio.ensure_future(account.obtain())
            await until(lambda: issuer.heads)
            one.secrets.set("client", "PLANTED-second")
            one.later(1)
            assert issuer.held is not None
            issuer.held.set()
            await waiting
            basic = base64.b64encode(b"gateway:PLANTED-second").decode()
            assert basic in issuer.heads[-1], "not one that the old secret was good for"

    run(main)


def test_a_revoked_secret_ends_what_was_opened_with_it() -> None:
    async def main() -> None:
        async with Issuer() as issuer, Holdings() as one:
            account = shown(one, service(issuer.authority))
            await account.obtain()
            epoch = account.epoch
            one.secrets.set("client", "PLANTED-second")
            one.later(1)
            await account.obtain()
            assert account.epoch == epoch
            one.secrets.set("client", None)
            one.later(1)
            assert account.epoch != epoch

    run(main)


# --- whose it is


def test_tokens_of_tenants_and_callers_are_kept_apart() -> None:
    async def main() -> None:
        async with Issuer() as issuer, Holdings() as one:
            credential = service(issuer.authority)
            mine, theirs = shown(one, credential), shown(one, credential, ("other", "api"))
            assert await mine.obtain() != await theirs.obtain()
            exchange = TokenCredential("api", "token_exchange", issuer.authority)
            accounts = []
            for number, caller in enumerate((ALICE, Principal("default", "https://idp", "bob", "agent"))):
                account = shown(one, exchange, ("default", " ".join(("api", *sorted(caller.scopes))), *caller.key[1:]))
                one.subjects.keep(caller, f"PLANTED-{number}")
                accounts.append(account)
            first, second = [await account.obtain() for account in accounts]
            assert first != second
            assert [form["subject_token"] for form in issuer.forms[2:]] == ["PLANTED-0", "PLANTED-1"]

    run(main)


@pytest.mark.parametrize(
    ("grant", "more", "form"),
    [
        pytest.param(
            "token_exchange",
            {"audience": "api", "wanted_type": "access_token"},
            {
                "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
                "subject_token": "PLANTED-subject",
                "subject_token_type": "urn:ietf:params:oauth:token-type:access_token",
                "requested_token_type": "urn:ietf:params:oauth:token-type:access_token",
                "audience": "api",
                "resource": SERVER,
            },
            id="RFC 8693",
        ),
        pytest.param(
            "on_behalf_of",
            {"scopes": ("api://x/.default",), "resource": ""},
            {
                "grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer",
                "assertion": "PLANTED-subject",
                "requested_token_use": "on_behalf_of",
                "scope": "api://x/.default",
            },
            id="Entra",
        ),
    ],
)
def test_what_is_made_of_the_callers_token(grant: Any, more: dict[str, Any], form: dict[str, str]) -> None:
    async def main() -> None:
        async with Issuer() as issuer, Holdings() as one:
            credential = TokenCredential("api", grant, issuer.authority, **more)
            account = shown(one, credential, ("default", "api a b", *ALICE.key[1:]))
            assert "came without one" in await why(account.obtain())
            one.subjects.keep(ALICE, "PLANTED-subject")
            assert b"token-1" in await account.obtain(), "at once: the failure was another caller's token's"
            assert issuer.forms == [form]

    run(main)


def test_a_workloads_own_assertion() -> None:
    async def main() -> None:
        async with Issuer() as issuer, Holdings() as one:
            one.secrets.set("workload", "a.b.c")
            authority = Authority("gateway", "none", issuer=issuer.url)
            account = shown(one, TokenCredential("api", "jwt_bearer", authority, subject=secret("workload")))
            assert b"token-1" in await account.obtain()
            assert issuer.forms == [
                {
                    "grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer",
                    "assertion": "a.b.c",
                    "client_id": "gateway",
                    "resource": SERVER,
                }
            ]

    run(main)


def test_an_id_jag_goes_from_one_issuer_to_the_other() -> None:
    async def main() -> None:
        def jag(form: dict[str, str]) -> Reply:
            type_ = "urn:ietf:params:oauth:token-type:id-jag"
            return 200, {"access_token": "j.a.g", "issued_token_type": type_, "token_type": "N_A"}

        async with Issuer() as issuer, Issuer(reply=jag) as idp, Holdings() as one:
            one.secrets.set("id", "PLANTED.id.token")
            credential = TokenCredential(
                "api", "id_jag", issuer.authority, subject=secret("id"), subject_type="id_token",
                idp=Authority("at-idp", "none", issuer=idp.url),
            )  # fmt: skip
            assert b"token-1" in await shown(one, credential).obtain()
            (exchanged,), (asked,) = idp.forms, issuer.forms
            assert exchanged["audience"] == issuer.url and exchanged["resource"] == SERVER
            assert exchanged["client_id"] == "at-idp"
            assert asked["assertion"] == "j.a.g" and asked["resource"] == SERVER

    run(main)


# --- whose tokens a server takes


def challenge(url: str, scope: str = "") -> bytes:
    return f'Bearer resource_metadata="{url}", scope="{scope}"'.encode()


def test_what_the_server_says_is_learnt_and_kept() -> None:
    async def main() -> None:
        async with Issuer() as issuer, Issuer() as other, Issuer() as upstream, Holdings() as one:
            url, named = f"{upstream.origin}/mcp", issuer

            def prm(path: str) -> Reply:
                return 200, {"resource": upstream.origin, "authorization_servers": [named.url]}

            upstream._answer = lambda verb, path, body: prm(path)  # type: ignore[method-assign]
            unknown = Authority("gateway", client_secret=secret("client"))
            account = shown(one, service(unknown), url=url)
            assert account.lines == b"", "nobody knows yet whose tokens it takes"
            lines = await account.again(401, challenge(f"{upstream.origin}/prm", "a b"), request_with(b""))
            assert lines == b"Authorization: Bearer token-1\r\n"
            assert issuer.forms == [
                {"grant_type": "client_credentials", "scope": "a b", "resource": upstream.origin}
            ], "the scopes of its challenge, the resource of its metadata"
            named = other
            one.later(60)
            text = await why(account.again(401, challenge(f"{upstream.origin}/prm"), request_with(lines)))
            assert "no longer names the issuer" in text
            assert not other.forms, "a secret is one issuer's alone"

    run(main)


def test_metadata_that_cannot_be_had_is_no_harm_where_the_issuer_is_known() -> None:
    async def main() -> None:
        async with Issuer() as issuer, Holdings() as one:
            account = shown(one, service(issuer.authority))
            request = request_with(await account.obtain())
            lines = await account.again(401, challenge("https://nowhere.invalid/prm"), request)
            assert lines == b"Authorization: Bearer token-2\r\n"

    run(main)


def test_a_servers_metadata_about_another_resource_ends_it() -> None:
    async def main() -> None:
        async with Issuer() as issuer, Issuer() as upstream, Holdings() as one:
            document = {"resource": "https://evil.example.com/mcp", "authorization_servers": [issuer.url]}
            upstream._answer = lambda verb, path, body: (200, document)  # type: ignore[method-assign]
            unknown = Authority("gateway", client_secret=secret("client"))
            account = shown(one, service(unknown), url=f"{upstream.origin}/mcp")
            for _ in range(5):
                assert "speaks of" in await why(account.again(401, b"Bearer", request_with(b"")))
            assert not issuer.heads and len(upstream.heads) == 1, "and it is not asked with every call"

    run(main)


@pytest.mark.parametrize("path", ["", "/tenant1"])
def test_another_issuers_metadata_is_not_followed(path: str) -> None:
    async def main() -> None:
        async with Issuer(path=path, metadata={"issuer": "https://evil.example.com"}) as issuer, Holdings() as one:
            account = shown(one, service(issuer.authority))
            assert "says that its issuer is" in await why(account.obtain())
            assert not issuer.forms

    run(main)


# --- scopes


def test_a_call_that_wants_more_gets_it_once_and_within_what_is_allowed() -> None:
    async def main() -> None:
        async with Issuer() as issuer, Holdings() as one:
            account = shown(one, service(issuer.authority, scopes=("read",), step_up=("write",)))
            wants = b'Bearer error="insufficient_scope", scope="read write"'
            request = request_with(await account.obtain())
            assert await account.again(403, wants, request) == b"Authorization: Bearer token-2\r\n"
            assert [form["scope"] for form in issuer.forms] == ["read", "read write"]
            assert await account.again(403, wants, request) == b"Authorization: Bearer token-2\r\n", "sent before"
            assert await account.again(403, wants, request_with(account.lines)) is None, "it has all that there is"
            admin = b'Bearer error="insufficient_scope", scope="admin"'
            assert await account.again(403, admin, request_with(account.lines)) is None
            assert len(issuer.forms) == 2, "admin is not allowed: nobody is asked"

    run(main)


def test_many_calls_that_want_more_cause_one_fetch() -> None:
    async def main() -> None:
        async with Issuer() as issuer, Holdings() as one:
            account = shown(one, service(issuer.authority, scopes=("read",), step_up=("write",)))
            wants = b'Bearer error="insufficient_scope", scope="write"'
            request = request_with(await account.obtain())
            answers = await asyncio.gather(*(account.again(403, wants, request) for _ in range(20)))
            assert set(answers) == {b"Authorization: Bearer token-2\r\n"}
            assert len(issuer.forms) == 2

    run(main)


def test_a_renewal_under_way_is_no_answer_to_a_call_that_wants_more() -> None:
    async def main() -> None:
        async with Issuer() as issuer, Holdings() as one:
            account = shown(one, service(issuer.authority, scopes=("read",), step_up=("write",)))
            wants = b'Bearer error="insufficient_scope", scope="write"'
            request = request_with(await account.obtain())
            issuer.held = asyncio.Event()
            one.later(3500)
            account.keep(used=True)
            one.later(50)
            await until(lambda: len(issuer.heads) == 3)
            waiting = asyncio.ensure_future(account.again(403, wants, request))
            await asyncio.sleep(0)
            issuer.held.set()
            assert await waiting == b"Authorization: Bearer token-3\r\n"
            assert [form["scope"] for form in issuer.forms] == ["read", "read", "read write"]

    run(main)


def test_an_endpoint_that_is_away_is_no_refusal_of_more() -> None:
    async def main() -> None:
        async with Issuer() as issuer, Holdings() as one:
            account = shown(one, service(issuer.authority, scopes=("read",), step_up=("write",)))
            wants = b'Bearer error="insufficient_scope", scope="write"'
            request = request_with(await account.obtain())
            issuer.reply = FAULTS["HTTP 500"][0]
            assert "HTTP 500" in await why(account.again(403, wants, request))
            issuer.reply = None
            one.later(70)
            assert await account.again(403, wants, request) == b"Authorization: Bearer token-2\r\n"

    run(main)


def test_more_that_is_refused_is_not_asked_for_again() -> None:
    async def main() -> None:
        def reply(form: dict[str, str]) -> Reply:
            return (400, {"error": "invalid_scope"}) if "write" in form["scope"] else issuer.grant()

        async with Issuer(reply=reply) as issuer, Holdings() as one:
            account = shown(one, service(issuer.authority, scopes=("read",), step_up=("write",)))
            wants = b'Bearer error="insufficient_scope", scope="write"'
            request = request_with(await account.obtain())
            assert "invalid_scope" in await why(account.again(403, wants, request))
            assert await account.again(403, wants, request) is None
            assert len(issuer.forms) == 2
            assert account.lines == b"Authorization: Bearer token-1\r\n", "the old one goes on"

    run(main)


# --- broken endpoints

HUGE = b'{"access_token":"' + b"a" * 400_000 + b'"}'
FAULTS: dict[str, tuple[Callable[[dict[str, str]], Reply], str]] = {
    "closes": (lambda form: b"", "broke off|closed"),
    "garbage": (lambda form: b"\x00\x01\x02 PLANTED\r\n\r\n", "."),
    "no JSON": (lambda form: answer(200, b"PLANTED"), "something else than JSON"),
    "a web page": (lambda form: answer(200, b"<html>PLANTED", "text/html"), "something else than JSON"),
    "JSON as a web page": (
        lambda form: answer(200, b'{"access_token":"a"}', "text/html"),
        "something else",
    ),
    "huge": (lambda form: answer(200, HUGE), "too large"),
    "expired at once": (lambda form: (200, {"access_token": "a", "token_type": "Bearer", "expires_in": 0}), "expired"),
    "a header inside": (lambda form: (200, {"access_token": "a\r\nX: y", "token_type": "Bearer"}), "no token"),
    "another issuer's": (
        lambda form: (200, {"access_token": "a", "token_type": "Bearer", "iss": "x"}),
        "another issuer",
    ),
    "redirects": (lambda form: answer(302, b"", "text/plain", "Location: http://127.0.0.1:9/"), "redirects"),
    "HTTP 500": (lambda form: (500, {"error_description": "PLANTED"}), "HTTP 500"),
    "HTTP 429": (lambda form: answer(429, b"{}", "application/json", "Retry-After: 5"), "HTTP 429"),
    "refuses": (lambda form: (401, {"error": "invalid_client", "error_description": "PLANTED"}), "invalid_client"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_endpoint_fails_clearly_and_is_left_alone(fault: str) -> None:
    async def main() -> None:
        reply, said = FAULTS[fault]
        async with Issuer(reply=reply) as issuer, Holdings() as one:
            account = shown(one, service(issuer.authority))
            text = await why(account.obtain())
            assert re.search(said, text), text
            asked = len(issuer.forms)  # 2 where it may have been an idle connection that was closed
            for _ in range(20):
                assert await why(account.obtain()) == text
            assert len(issuer.forms) == asked, "nobody asks until the back-off is over"
            assert list(one.credentials.errors("one")) == [("api", text.partition(": ")[2])]
            issuer.reply = None
            one.later(70)
            assert b"token-1" in await account.obtain()
            assert list(one.credentials.errors("one")) == []

    run(main)


def test_a_dead_and_a_silent_endpoint() -> None:
    async def main() -> None:
        async with Issuer(reply=lambda form: None) as silent, Holdings() as one:
            dead = Authority("gateway", token_endpoint="http://127.0.0.1:9/token", client_secret=secret("client"))
            assert "127.0.0.1:9" in await why(shown(one, service(dead)).obtain())
            account = shown(one, service(silent.authority))
            waiting = asyncio.ensure_future(account.obtain())
            await until(lambda: silent.forms)
            assert not waiting.done(), "ten seconds at most; the caller's own deadline comes first"
            waiting.cancel()

    run(main)


def test_a_failed_renewal_leaves_the_old_token_in_use() -> None:
    async def main() -> None:
        async with Issuer() as issuer, Holdings() as one:
            account = shown(one, service(issuer.authority))
            await account.obtain()
            issuer.reply = FAULTS["HTTP 500"][0]
            one.later(3500)
            account.keep(used=True)
            one.later(50)
            await until(lambda: list(one.credentials.errors("one")))
            assert b"token-1" in (account.lines or b"")
            one.later(60)
            assert account.lines is None
            assert "HTTP 500" in await why(account.obtain())

    run(main)


def test_nothing_shows_a_secret() -> None:
    async def main() -> None:
        async with Issuer() as issuer, Holdings() as one:
            account: Any = shown(one, service(issuer.authority))
            await account.obtain()
            assert "PLANTED" not in repr((account.spec, account._lease.token and "", LOCAL, account._place))

    run(main)
