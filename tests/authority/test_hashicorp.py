"""Secrets of a Vault, with the emulator of `tests/counterparts/vault.py`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from narthex.authority.fetch import Fetcher
from narthex.authority.hashicorp import VaultReader
from narthex.authority.secrets import SecretBook
from narthex.errors import SecretMissing
from narthex.types import Egress, SecretSource, VaultSpec
from tests.counterparts.serving import served
from tests.counterparts.vault import Token, Vault

PAT = SecretSource("vault", "secret/team/github", "token")
BY_TOKEN = VaultSpec("", token=SecretSource("env", "VAULT_TOKEN"), refresh_s=3600.0)
ENV = {"VAULT_TOKEN": "root"}
Case = Callable[[VaultReader, SecretBook], Awaitable[None]]


def run(
    vault: Vault,
    case: Case,
    spec: VaultSpec = BY_TOKEN,
    wanted: dict[str, SecretSource] | None = None,
    env: dict[str, str] | None = None,
) -> None:
    async def main() -> None:
        with served(vault.app) as url:
            fetcher, book = Fetcher(Egress()), SecretBook()
            used = VaultSpec(url, *[getattr(spec, name) for name in spec.__struct_fields__[1:]])
            reader = VaultReader(
                used, wanted or {"pat": PAT}, book, env=ENV if env is None else env, fetch=fetcher.fetch
            )
            try:
                await case(reader, book)
            finally:
                reader.close()
                fetcher.close()

    asyncio.run(main())


def missing(book: SecretBook, name: str = "pat") -> str:
    with pytest.raises(SecretMissing) as refused:
        book.get(name)
    return refused.value.detail


def vault_with(**fields: object) -> Vault:
    vault = Vault()
    vault.write("secret/team/github", **(fields or {"token": "ghp_0123456789"}))
    return vault


def test_a_path_is_read_once_for_all_its_fields() -> None:
    vault = vault_with(token="ghp_0123456789", user="bot", port=5432)
    wanted = {name: SecretSource("vault", "secret/team/github", name) for name in ("token", "user", "port")}

    async def case(reader: VaultReader, book: SecretBook) -> None:
        await reader.start(60.0)
        assert [book.get(name) for name in wanted] == ["ghp_0123456789", "bot", "5432"]
        assert vault.asked == ["GET auth/token/lookup-self", "GET secret/data/team/github"]

    run(vault, case, wanted=wanted)


def test_a_new_version_is_taken_up_and_a_deleted_one_is_gone() -> None:
    vault = vault_with()

    async def case(reader: VaultReader, book: SecretBook) -> None:
        assert await reader.look()
        before = book.version
        vault.write("secret/team/github", token="ghp_new")
        assert await reader.look() and book.get("pat") == "ghp_new" and book.version > before
        vault.delete("secret/team/github")
        assert await reader.look(), "the Vault is there"
        assert "secret/team/github#token is not there, or was deleted" in missing(book)

    run(vault, case)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        pytest.param({"other": "x"}, "#token is not there in the vault", id="another field"),
        pytest.param({"token": {"a": 1}}, "#token is no text", id="no text"),
        pytest.param({"token": True}, "#token is no text", id="true"),
        pytest.param({"token": ""}, "#token is no text", id="empty"),
    ],
)
def test_a_field_that_gives_no_value(fields: dict[str, object], says: str) -> None:
    async def case(reader: VaultReader, book: SecretBook) -> None:
        await reader.look()
        assert says in missing(book)

    run(vault_with(**fields), case)


@pytest.mark.parametrize("status", [503, 429, 473, 500])
def test_what_was_read_stays_while_the_vault_is_away(status: int) -> None:
    vault = vault_with()

    async def case(reader: VaultReader, book: SecretBook) -> None:
        vault.status = status
        assert not await reader.look()
        assert f"HTTP {status}" in missing(book), "what was never read is missing"
        vault.status = 0
        assert await reader.look()
        vault.status = status
        assert not await reader.look()
        assert book.get("pat") == "ghp_0123456789"

    run(vault, case)


def test_a_vault_that_nobody_reaches() -> None:
    async def case(reader: VaultReader, book: SecretBook) -> None:
        reader.spec = VaultSpec("http://127.0.0.1:1", token=BY_TOKEN.token)
        assert not await reader.look()
        assert "http://127.0.0.1:1" in missing(book)

    run(vault_with(), case)


def test_what_is_no_vault() -> None:
    async def app(scope: object, receive: object, send: Callable[[object], Awaitable[None]]) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"<html>hello</html>"})

    vault = vault_with()
    vault.app = app  # type: ignore[assignment]

    async def case(reader: VaultReader, book: SecretBook) -> None:
        assert not await reader.look()
        assert "no Vault gives" in missing(book)

    run(vault, case)


def test_a_token_that_may_not_read_says_which_policy_is_missing() -> None:
    vault = vault_with()
    vault.tokens["root"].paths = ("secret/other",)

    async def case(reader: VaultReader, book: SecretBook) -> None:
        assert not await reader.look()
        assert "`read` on secret/data/team/github" in missing(book)

    run(vault, case)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        pytest.param(SecretSource("env", "NOT_SET"), "NOT_SET is not set", id="variable"),
        pytest.param(SecretSource("file", "/nowhere/token"), "/nowhere/token: No such file", id="file"),
    ],
)
def test_without_a_token_it_says_where_one_is_looked_for(source: SecretSource, says: str) -> None:
    async def case(reader: VaultReader, book: SecretBook) -> None:
        assert not await reader.look()
        assert says in missing(book)

    run(vault_with(), case, VaultSpec("", token=source))


def test_a_token_in_a_file_is_read_again_when_it_was_replaced(tmp_path: Path) -> None:
    """As a Vault Agent does it with its sink."""
    vault, file = vault_with(), tmp_path / "token"
    file.write_text("root\n")

    async def case(reader: VaultReader, book: SecretBook) -> None:
        assert await reader.look()
        vault.tokens = {"second": Token()}
        file.write_text("second\n")
        vault.write("secret/team/github", token="ghp_new")
        assert await reader.look() and book.get("pat") == "ghp_new"

    run(vault, case, VaultSpec("", token=SecretSource("file", str(file))))


def test_a_token_is_renewed_before_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    vault = vault_with()
    vault.tokens["root"] = Token(ttl_s=60)

    async def case(reader: VaultReader, book: SecretBook) -> None:
        await reader.look()
        now = asyncio.get_running_loop().time()
        assert 30 < reader._renew_at - now <= 40, "two thirds of its life"
        reader._renew_at = now
        assert await reader.look()
        assert vault.tokens["root"].renewed == 1 and reader._renew_at > now + 30

    run(vault, case)


def test_the_reader_comes_back_by_itself_for_a_short_token() -> None:
    vault = vault_with()
    vault.tokens["root"] = Token(ttl_s=2)

    async def case(reader: VaultReader, book: SecretBook) -> None:
        await reader.start(60.0)
        while not vault.tokens["root"].renewed:  # the interval of an hour does not hold it back
            await asyncio.sleep(0.02)

    run(vault, case)


def kubernetes(tmp_path: Path, role: str = "narthex") -> VaultSpec:
    (tmp_path / "jwt").write_text("jwt-of-the-pod")
    return VaultSpec("", "team", None, role, "k8s", str(tmp_path / "jwt"), 3600.0)


def test_signing_in_by_kubernetes(tmp_path: Path) -> None:
    vault = vault_with()
    vault.namespace = "team"
    vault.roles["narthex", "jwt-of-the-pod"] = Token(ttl_s=3600, renewable=False, paths=("secret/team/",))

    async def case(reader: VaultReader, book: SecretBook) -> None:
        assert await reader.look() and book.get("pat") == "ghp_0123456789"
        assert vault.asked[0] == "POST auth/k8s/login"
        vault.tokens.clear()  # revoked before its time
        assert await reader.look()
        assert vault.asked.count("POST auth/k8s/login") == 2

    run(vault, case, kubernetes(tmp_path), env={})


@pytest.mark.parametrize("role", ["other", "narthex"])
def test_a_sign_in_that_is_refused(tmp_path: Path, role: str) -> None:
    vault = vault_with()
    vault.namespace = "team"
    spec = kubernetes(tmp_path, role)
    (tmp_path / "jwt").unlink() if role == "narthex" else None

    async def case(reader: VaultReader, book: SecretBook) -> None:
        assert not await reader.look()
        said = missing(book)
        assert ("refuses to sign in the role 'other'" if role == "other" else "signs in by Kubernetes") in said
        assert "jwt-of-the-pod" not in said

    run(vault, case, spec, env={})


def test_an_answer_that_nobody_thought_of_ends_no_looking(caplog: pytest.LogCaptureFixture) -> None:
    vault = vault_with()

    async def case(reader: VaultReader, book: SecretBook) -> None:
        fetch, reader._fetch = reader._fetch, broken
        await reader.start(60.0)
        assert "could not read its answer" in missing(book)
        reader._fetch = fetch
        async with asyncio.timeout(60):
            while book.problems != {}:
                await asyncio.sleep(0.01)
        assert book.get("pat") == "ghp_0123456789"

    async def broken(*args: Any, **more: Any) -> Any:
        raise RuntimeError("PLANTED")

    run(vault, case)
    assert "reading the vault" in caplog.text


def test_a_start_does_not_wait_for_a_vault_that_hangs() -> None:
    async def case(reader: VaultReader, book: SecretBook) -> None:
        async def hangs(*_: object, **__: object) -> None:
            await asyncio.Event().wait()

        reader._fetch = hangs  # type: ignore[assignment]
        await reader.start(0.0)
        assert "has not answered yet" in missing(book)

    run(vault_with(), case)
