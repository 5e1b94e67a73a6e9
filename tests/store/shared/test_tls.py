"""Counters over TLS, at a real server: whom a gateway trusts, whom the server lets in, and what becomes of calls else.

With Redis: the Valkey that comes in a wheel is built without TLS.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from narthex.errors import LimitsUnavailable
from narthex.types import LimitRule, SharedSpec
from tests.conftest import missing
from tests.counterparts import keeper
from tests.counterparts.keeper import Keeper
from tests.e2e.certificates import Authority, Pair
from tests.store.shared.rig import Gateway

CALLS = LimitRule("calls", "calls", 4, window=3_600_000_000)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if keeper.program("redis") is None:
        missing("redis", keeper.INSTALLED_BY["redis"])
    return tmp_path_factory.mktemp("tls")


@pytest.fixture(scope="module")
def authority(folder: Path) -> Authority:
    return Authority(folder)


@pytest.fixture(scope="module")
def server(folder: Path, authority: Authority) -> Iterator[Keeper]:
    with serving(folder, authority, authority.issue("server")) as one:
        yield one


@pytest.fixture
def spec(server: Keeper, authority: Authority) -> SharedSpec:
    return SharedSpec("127.0.0.1", server.port, tls=True, ca=authority.file, timeout_s=10.0)


def serving(folder: Path, authority: Authority, pair: Pair, clients: str = "no") -> Any:
    """A server that speaks nothing but TLS. `clients`: must they show a certificate of that authority?"""
    return keeper.serving(
        "redis", folder, "--tls-cert-file", pair.cert, "--tls-key-file", pair.key,
        "--tls-ca-cert-file", authority.file, "--tls-auth-clients", clients, port_option="--tls-port",
    )  # fmt: skip


def problem(spec: SharedSpec) -> str:
    """Why calls are not counted there, and are refused; empty where they are counted."""

    async def main() -> str:
        async with Gateway(replace(spec, when_down="refuse"), (CALLS,)) as one:
            if one.counters.problem:
                with pytest.raises(LimitsUnavailable):
                    await one.take()
            else:
                assert await one.granted(times=6) == 4
            return one.counters.problem

    return asyncio.run(main())


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_server_of_the_right_authority_counts(spec: SharedSpec, host: str) -> None:
    assert problem(replace(spec, host=host, prefix=host)) == ""


def test_a_server_of_another_authority_is_refused(spec: SharedSpec, folder: Path) -> None:
    for ca in (Authority(folder, "other").file, ""):
        assert problem(replace(spec, ca=ca)).startswith("TLS: its certificate is not trusted: ")


def test_a_server_of_another_name_is_refused(spec: SharedSpec, folder: Path, authority: Authority) -> None:
    with serving(folder, authority, authority.issue("elsewhere", "elsewhere.example.com")) as server:
        why = problem(replace(spec, port=server.port))
    assert "not trusted" in why and "not valid for '127.0.0.1'" in why


def test_a_server_without_tls_is_refused(spec: SharedSpec, folder: Path) -> None:
    with keeper.serving("redis", folder) as plain:
        assert "TLS" in problem(replace(spec, port=plain.port))  # it answers nonsense or nothing


def test_a_server_with_tls_is_not_spoken_to_without(spec: SharedSpec) -> None:
    assert problem(replace(spec, tls=False)) != ""


def test_a_server_that_wants_a_certificate_gets_one(spec: SharedSpec, folder: Path, authority: Authority) -> None:
    other = Authority(folder, "stranger").issue("stranger-client")
    ours = authority.issue("client")
    with serving(folder, authority, authority.issue("strict"), clients="yes") as server:
        there = replace(spec, port=server.port)
        assert problem(replace(there, cert=ours.cert, key=ours.key)) == ""
        for one in (there, replace(there, cert=other.cert, key=other.key)):
            assert problem(one) != ""


@pytest.mark.parametrize("field", ["ca", "cert"])
def test_a_file_that_is_not_there_is_said_so(spec: SharedSpec, folder: Path, field: str) -> None:
    why = problem(replace(spec, **{field: str(folder / "none.pem")}))
    assert why == "TLS: ca, cert or key cannot be used: No such file or directory"


@pytest.mark.parametrize(("policy", "granted"), [("local_share", 2), ("refuse", 0), ("allow", 6)])
def test_while_the_server_is_not_trusted_it_counts_as_away(
    spec: SharedSpec, folder: Path, policy: Any, granted: int
) -> None:
    ca = Authority(folder, "other").file

    async def main() -> None:
        async with Gateway(replace(spec, ca=ca, when_down=policy, processes=2), (CALLS,)) as one:
            assert await one.granted(times=6) == granted

    asyncio.run(main())
