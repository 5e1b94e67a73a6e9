"""What is made of secrets alone: headers, queries, environments, certificates; what becomes of it when they change."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from typing import Any

import pytest

from narthex.authority import credentials
from narthex.authority.credentials import IDLE_S, made_of
from narthex.errors import CredentialUnavailable, Overloaded
from narthex.flow.upstream.port import NOTHING_SHOWN, Certificate
from narthex.types import (
    BasicCredential,
    CertificateCredential,
    EnvCredential,
    HeaderCredential,
    QueryCredential,
    SecretName,
    SecretText,
    Use,
    Who,
)
from tests.authority.issuer import Holdings, Known, everybody, secret
from tests.flow.gateway import run, spec

BEARER = SecretText(("Bearer ", SecretName("pat")))


@pytest.mark.parametrize(
    ("credential", "values", "made"),
    [
        pytest.param(
            HeaderCredential("a", "Authorization", BEARER), {"pat": "x"}, b"Authorization: Bearer x\r\n", id="header"
        ),
        pytest.param(
            BasicCredential("a", SecretText(("Aladdin",)), secret("p")),
            {"p": "open sesame"},
            b"Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n",
            id="basic, the example of RFC 7617",
        ),
        pytest.param(
            BasicCredential("a", SecretText(("test",)), secret("p")),
            {"p": "123£"},
            b"Authorization: Basic dGVzdDoxMjPCow==\r\n",
            id="basic in UTF-8, its other example",
        ),
        pytest.param(
            QueryCredential("a", "api key", secret("k")), {"k": "a&b=c d"}, "api%20key=a%26b%3Dc%20d", id="query"
        ),
        pytest.param(EnvCredential("a", (("TOKEN", secret("k")),)), {"k": "a b\n"}, (("TOKEN", "a b\n"),), id="env"),
        pytest.param(
            CertificateCredential("a", secret("c"), secret("k")),
            {"c": "C", "k": "K"},
            Certificate("C", "K"),
            id="certificate",
        ),
    ],
)
def test_what_is_shown(credential: Any, values: dict[str, str], made: Any) -> None:
    assert made_of(credential, Known(**values).get) == made


@pytest.mark.parametrize(
    ("credential", "value", "said"),
    [
        pytest.param(
            HeaderCredential("a", "X-Key", secret("k")),
            "a\r\nX: PLANTED",
            "cannot stand in the header",
            id="two headers",
        ),
        pytest.param(
            HeaderCredential("a", "X-Key", secret("k")), "a\n", "cannot stand in the header", id="a line break behind"
        ),
        pytest.param(HeaderCredential("a", "X-Key", secret("k")), "ä", "cannot stand in the header", id="no ASCII"),
        pytest.param(HeaderCredential("a", "X-Key", secret("k")), "", "cannot stand in the header", id="nothing"),
        pytest.param(BasicCredential("a", secret("k"), secret("k")), "a:b", "no colon", id="a colon in a user name"),
        pytest.param(EnvCredential("a", (("T", secret("k")),)), "a\0PLANTED", "no NUL", id="a NUL in a variable"),
        pytest.param(
            HeaderCredential("a", "X-Key", secret("other")), "", "narthex secrets set other", id="a secret is missing"
        ),
    ],
)
def test_what_cannot_be_shown(credential: Any, value: str, said: str) -> None:
    with pytest.raises(CredentialUnavailable) as error:
        made_of(credential, Known(k=value).get)
    assert said in error.value.detail and "PLANTED" not in error.value.detail


def test_a_changed_secret_is_shown_within_a_second() -> None:
    async def main() -> None:
        async with Holdings(Known(pat="one")) as one:
            server = spec(
                "s", "http://127.0.0.1:9/mcp", accounts=everybody(HeaderCredential("a", "X-Key", secret("pat")))
            )
            account = one.credentials.shown(server, ("default", "a"))
            assert account.lines == b"X-Key: one\r\n"
            one.secrets.set("pat", "two")
            one.later(1)
            assert account.lines == b"X-Key: two\r\n" and account.epoch == 0, "the channel goes on"
            one.secrets.set("pat", None)
            one.later(1)
            assert account.lines is None and account.epoch == 1, "revoked: what was opened with it ends"
            assert [name for name, _ in one.credentials.errors("s")] == ["a"]
            with pytest.raises(CredentialUnavailable, match="no credential for this server at present"):
                await account.obtain()
            one.secrets.set("pat", "three")
            one.later(1)
            assert await account.obtain() == b"X-Key: three\r\n"

    run(main)


@pytest.mark.parametrize(
    "credential",
    [
        EnvCredential("a", (("T", secret("pat")),)),
        QueryCredential("a", "key", secret("pat")),
        CertificateCredential("a", secret("pat"), secret("pat")),
    ],
    ids=lambda one: type(one).__name__,
)
def test_what_a_channel_was_opened_with_cannot_change_under_it(credential: Any) -> None:
    async def main() -> None:
        async with Holdings(Known(pat="one", other="x")) as one:
            account = one.credentials.shown(
                spec("s", "http://127.0.0.1:9/", accounts=everybody(credential)), ("t", "a")
            )
            epoch = account.epoch
            one.secrets.set("other", "y")
            one.later(1)
            assert account.epoch == epoch
            one.secrets.set("pat", "two")
            one.later(1)
            assert account.epoch != epoch and account.lines == b""
            one.secrets.set("pat", None)
            one.later(1)
            assert account.lines is None
            for ask in (account.environment, account.query, account.certificate):
                with pytest.raises(CredentialUnavailable):
                    ask()

    run(main)


def test_whom_nothing_is_for() -> None:
    async def main() -> None:
        async with Holdings(Known(pat="one")) as one:
            table = (Use(Who(role=("a",)), HeaderCredential("a", "X-Key", secret("pat"))),)
            server = spec("s", "http://127.0.0.1:9/", accounts=table)
            assert one.credentials.shown(server, ("default", "")) is NOTHING_SHOWN
            nobody = one.credentials.shown(server, ("default", "?"))
            assert nobody.lines is None
            with pytest.raises(CredentialUnavailable, match="no credential") as error:
                await nobody.obtain()
            assert "no row of `credential`" in error.value.detail
            with pytest.raises(CredentialUnavailable):
                nobody.environment()

    run(main)


def test_idle_accounts_and_those_of_no_table_are_forgotten() -> None:
    async def main() -> None:
        async with Holdings(Known(pat="one")) as one:
            server = spec("s", "http://127.0.0.1:9/", accounts=everybody(HeaderCredential("a", "X-Key", secret("pat"))))
            one.credentials.apply([server])
            account = one.credentials.shown(server, ("default", "a"))
            one.later(IDLE_S - 1)
            account.keep(used=True)
            one.later(2)
            assert one.credentials.shown(server, ("default", "a")) is account
            for _ in range(5):
                one.later(IDLE_S - 1)
                account.keep(used=False)
            assert one.credentials.shown(server, ("default", "a")) is account, "an idle program holds it for a week"
            one.later(IDLE_S + 1)
            assert one.credentials.shown(server, ("default", "a")) is not account
            one.credentials.apply([])
            assert not one.credentials._accounts and not one.credentials._turn

    run(main)


def test_accounts_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        monkeypatch.setattr(credentials, "MOST", 3)
        async with Holdings(Known(pat="one")) as one:
            for number in range(4):
                table = everybody(HeaderCredential("a", "X-Key", SecretText((str(number), SecretName("pat")))))
                server = spec("s", "http://127.0.0.1:9/", accounts=table)
                with nullcontext() if number < 3 else pytest.raises(Overloaded):
                    one.credentials.shown(server, ("default", "a"))

    run(main)


def test_a_million_seconds_leave_nothing_behind() -> None:
    async def main() -> None:
        async with Holdings(Known(pat="one")) as one:
            server = spec("s", "http://127.0.0.1:9/", accounts=everybody(HeaderCredential("a", "X-Key", secret("pat"))))
            for _ in range(1000):
                one.credentials.shown(server, ("default", "a"))
                one.later(1000)
                await asyncio.sleep(0)
            assert len(one.credentials._due) <= 2

    run(main)
