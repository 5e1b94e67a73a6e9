"""A policy that is fetched: nothing is allowed before there is one, and a bad one takes nothing away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from narthex.authority.fetch import Fetcher
from narthex.engines.ruling import Ruling
from narthex.errors import ConfigError
from narthex.types import Egress, PeerTls, RegoSpec, SecretName, SecretText, SigningKey, SigningSpec
from tests.counterparts.bundle_server import BundleServer, packed
from tests.counterparts.serving import served
from tests.e2e.certificates import Authority, Pair
from tests.engines.policies import HEAD, document
from tests.flow.policy.bundles.test_signatures import SECRET, signed

SIGNED = SigningSpec({"one": SigningKey("HS256", SecretText((SecretName("key"),)))})
Case = Callable[[Ruling, list[str]], Awaitable[None]]


def policy(decision: str, revision: str) -> dict[str, bytes]:
    text = f"{HEAD}default decision := {decision}\n"
    return {"policy.rego": text.encode(), ".manifest": b'{"revision": "%b"}' % revision.encode()}


def run(server: BundleServer, case: Case, *, pair: Pair | None = None, clients: str = "", **spec: Any) -> None:
    async def main() -> None:
        fetcher, changes = Fetcher(Egress()), list[str]()
        with served(server.app, pair, clients) as url:
            wanted = RegoSpec(f"{url}/bundle.tar.gz", "narthex/decision", "inline", every_s=1.0)
            ruling = Ruling(
                msgspec.structs.replace(wanted, **spec), lambda: changes.append(said(ruling)[2]), fetch=fetcher.fetch,
                secrets={"key": SECRET, "token": "t0ken"}.__getitem__, now=time.time, clock=time.monotonic,
                chance=lambda: 0.0,
            )  # fmt: skip
            try:
                await asyncio.wait_for(case(ruling, changes), 60)
            finally:
                ruling.close(at_once=True)
                fetcher.close()

    asyncio.run(main())


def said(ruling: Ruling) -> tuple[str, str, str]:
    assert ruling.engine is not None
    found = ruling.engine.known(document())
    assert found is not None
    return found.effect, found.reason, found.bundle


async def until(true: Callable[[], object]) -> None:
    while not true():
        await asyncio.sleep(0.01)


def test_nothing_is_allowed_before_there_is_a_policy() -> None:
    server = BundleServer(status=503)

    async def case(ruling: Ruling, changes: list[str]) -> None:
        await ruling.start()
        assert said(ruling) == ("deny", "policy_absent", "") and "HTTP 503" in ruling.problem
        assert ruling.engine is not None
        assert [one.reason for one in await ruling.engine.decide_all([document()])] == ["policy_absent"]
        server.body, server.status = packed(policy("true", "r1")), 0
        await until(lambda: changes)
        assert said(ruling) == ("allow", "allowed_by_policy", "r1") and changes == ["r1"] and ruling.problem == ""

    run(server, case)


def test_a_new_one_rules_and_a_bad_one_takes_nothing_away() -> None:
    server = BundleServer(packed(policy("true", "r1")), token="t0ken", long_polls=True)

    async def case(ruling: Ruling, changes: list[str]) -> None:
        await ruling.start()
        assert said(ruling) == ("allow", "allowed_by_policy", "r1") and changes == []
        server.body = packed(policy("false", "r2"))
        await until(lambda: changes)
        assert said(ruling) == ("deny", "denied_by_policy", "r2")
        server.body = packed(policy("nothing.of.that", "r3"))
        await until(lambda: ruling.problem)
        assert said(ruling) == ("deny", "denied_by_policy", "r2") and changes == ["r2"]

    run(server, case, token=SecretText((SecretName("token"),)), long_poll_s=20.0)


def test_only_who_is_trusted_changes_the_policy() -> None:
    server = BundleServer(packed(policy("true", "forged")))

    async def case(ruling: Ruling, changes: list[str]) -> None:
        await ruling.start()
        assert said(ruling)[1] == "policy_absent" and "not signed" in ruling.problem
        server.body = packed(signed())  # its module has not the rule that is asked: it is trusted, and of no use
        await until(lambda: "entry point" in ruling.problem)
        assert said(ruling)[1] == "policy_absent" and changes == []

    run(server, case, signing=SIGNED)


def test_what_was_good_rules_after_a_restart(tmp_path: Path) -> None:
    server = BundleServer(packed(policy("true", "r1")))

    async def first(ruling: Ruling, changes: list[str]) -> None:
        await ruling.start()
        assert said(ruling)[2] == "r1"

    async def again(ruling: Ruling, changes: list[str]) -> None:
        ruling._keeper.spec = msgspec.structs.replace(ruling._keeper.spec, url=address)
        await ruling.start()
        assert said(ruling) == ("allow", "allowed_by_policy", "r1") and ruling.problem

    async def remember(ruling: Ruling, changes: list[str]) -> None:
        nonlocal address
        address = ruling._keeper.spec.url
        await first(ruling, changes)

    address = ""
    run(server, remember, kept_in=str(tmp_path))
    run(server, again, kept_in=str(tmp_path))  # the address of before: nobody serves there any more


def test_one_that_stands_here_and_is_bad_refuses_the_start(tmp_path: Path) -> None:
    async def case(ruling: Ruling, changes: list[str]) -> None:
        with pytest.raises(ConfigError):
            await ruling.start()

    run(BundleServer(), case, bundle=str(tmp_path))


@pytest.mark.parametrize("shows", ["our certificate", "nothing"])
def test_a_bundle_server_that_asks_for_a_certificate(tmp_path: Path, shows: str) -> None:
    servers, clients = Authority(tmp_path, "servers"), Authority(tmp_path, "clients")
    mine = clients.issue("gateway")
    tls = PeerTls(servers.file, mine.cert, mine.key) if shows == "our certificate" else PeerTls(servers.file)

    async def case(ruling: Ruling, changes: list[str]) -> None:
        await ruling.start()
        known = shows == "our certificate"
        assert said(ruling) == (("allow", "allowed_by_policy", "r1") if known else ("deny", "policy_absent", ""))

    server = BundleServer(packed(policy("true", "r1")))
    run(server, case, pair=servers.issue("bundles"), clients=clients.file, tls=tls)
