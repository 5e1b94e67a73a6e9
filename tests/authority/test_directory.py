"""Groups that a token left out, asked of a directory: the emulator's, over TLS on a socket."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from narthex.authority import directory
from narthex.authority.directory import read_members
from narthex.authority.explain import explain
from narthex.authority.fetch import Fetcher
from narthex.authority.identify import Identity, Presented
from narthex.errors import AuthorityUnavailable, GatewayError, Unauthorized
from narthex.testing import FakeClock
from narthex.types import (
    ClaimRules,
    DirectorySpec,
    Egress,
    EndpointSpec,
    IdentitySpec,
    IssuerSpec,
    Principal,
    SecretName,
    SecretText,
)
from tests.authority.issuer import Known
from tests.counterparts.entra import App, Entra, User, application, guid
from tests.counterparts.serving import served
from tests.e2e.certificates import Authority

GROUPS = tuple(guid() for _ in range(201))
DEFAULT = EndpointSpec("default", ())


class World:
    """An identity whose issuer is the emulator; its tokens leave groups out."""

    def __init__(self, entra: Entra, fetch: Fetcher) -> None:
        self.entra, self.clock = entra, FakeClock()
        self.api, self.client = App("api://gateway", scopes=("read",)), App("api://agent", "secret")
        self.own = App("api://narthex", "graph-secret")
        self.graph = App(entra.base, app_roles={self.own.client_id: ("Directory.Read.All",)})
        self.user = User("many@example.com", groups=GROUPS)
        entra.apps, entra.users = [self.api, self.client, self.own, self.graph], [self.user]
        self.secrets = Known(graph="graph-secret")
        claims = ClaimRules(
            subject=(("oid",),), groups=(("groups",),), group_map={GROUPS[200]: ("staff",)}, preset="entra"
        )
        where = DirectorySpec(entra.base, self.own.client_id, SecretText((SecretName("graph"),)))
        spec = IssuerSpec("corp", "entra", entra.issuer(), claims, audiences=(self.api.client_id,), directory=where)
        self.identity = Identity(
            IdentitySpec(issuers={"corp": spec}), {"default": DEFAULT}, keys=None, fetch=fetch.fetch,
            secrets=self.secrets, now=time.time, clock=self.clock, chance=lambda: 0.5,
        )  # fmt: skip

    def token(self, **changes: Any) -> bytes:
        return b"Bearer " + self.entra.access_token(self.api, self.client, self.user, ("read",), **changes).encode()

    async def who(self, header: bytes) -> Principal:
        found = self.identity.identify(Presented(header), DEFAULT)
        return found if isinstance(found, Principal) else await found

    def asked_for_tokens(self) -> int:
        return sum(form.get("client_id") == self.own.client_id for _, form in self.entra.requests)


def run(tmp_path: Path, work: Callable[[World], Awaitable[None]]) -> None:
    authority, entra = Authority(tmp_path), Entra()

    async def main() -> None:
        async with asyncio.timeout(60):
            fetch = Fetcher(Egress(proxy=None, ca=authority.file), environ={})
            world = World(entra, fetch)
            try:
                await work(world)
            finally:
                world.identity.close()
                fetch.close()

    with served(application(entra), authority.issue("login")) as entra.base:
        asyncio.run(main())


def test_one_answer_serves_all_who_wait_and_is_kept_with_the_token(tmp_path: Path) -> None:
    async def work(world: World) -> None:
        header = world.token()
        found = await asyncio.gather(*(world.who(header) for _ in range(10)))
        assert {one.roles for one in found} == {("staff",)} and set(found[0].groups) == set(GROUPS)
        assert world.identity.known(header, "default") is not None
        await world.who(world.token())
        assert world.entra.asked_about == [world.user.oid] * 2, "another token may be of another time"
        assert world.asked_for_tokens() == 1

    run(tmp_path, work)


def test_a_token_of_ours_that_is_refused_is_replaced_once(tmp_path: Path) -> None:
    async def work(world: World) -> None:
        await world.who(world.token())
        world.entra.roll_over(keep=False)
        await world.who(world.token())
        assert world.asked_for_tokens() == 2

    run(tmp_path, work)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        pytest.param(lambda world: world.graph.app_roles.clear(), "HTTP 403", id="without the permission"),
        pytest.param(lambda world: world.entra.users.clear(), "HTTP 404", id="nobody there"),
        pytest.param(
            lambda world: setattr(world.own, "secret", "another"), "no token for its directory", id="a wrong secret"
        ),
        pytest.param(lambda world: world.secrets.set("graph", None), "narthex secrets set", id="no secret"),
        pytest.param(lambda world: setattr(world.entra, "graph_status", 429), "HTTP 429", id="throttled"),
    ],
)
def test_without_an_answer_nobody_is_let_in(tmp_path: Path, spoil: Callable[[World], Any], said: str) -> None:
    async def work(world: World) -> None:
        spoil(world)
        with pytest.raises(AuthorityUnavailable) as caught:
            await world.who(world.token())
        assert said in caught.value.detail and "graph-secret" not in caught.value.detail
        assert caught.value.status == 503

    run(tmp_path, work)


def test_a_token_that_does_not_say_whose_groups_is_refused(tmp_path: Path) -> None:
    async def work(world: World) -> None:
        for oid in (None, "../applications", 7):
            with pytest.raises(GatewayError) as caught:
                await world.who(world.token(oid=oid))
            assert isinstance(caught.value, Unauthorized)
        assert world.entra.asked_about == []

    run(tmp_path, work)


def test_a_flood_of_users_costs_the_directory_no_flood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory, "MOST_ASKING", 2)

    async def work(world: World) -> None:
        world.entra.users = [User(f"{n}@example.com", groups=GROUPS) for n in range(5)]
        headers = []
        for user in world.entra.users:
            world.user = user
            headers.append(world.token())
        await world.who(headers[0])  # keys, and a token of ours
        found = await asyncio.gather(*(world.who(one) for one in headers[1:]), return_exceptions=True)
        assert [isinstance(one, AuthorityUnavailable) for one in found] == [False, False, True, True]

    run(tmp_path, work)


def test_whoami_says_that_groups_were_looked_up(tmp_path: Path) -> None:
    async def work(world: World) -> None:
        reading = await explain(world.identity, world.token()[7:], DEFAULT, frozenset())
        assert reading.accepted and reading.principal is not None and reading.principal.roles == ("staff",)
        assert any(step.check == "groups" and "the directory was asked" in step.text for step in reading.steps)
        world.entra.graph_status = 500
        reading = await explain(world.identity, world.token()[7:], DEFAULT, frozenset())
        assert not reading.accepted
        expired = await explain(world.identity, world.token(exp=1)[7:], DEFAULT, frozenset())
        assert not expired.accepted and len(world.entra.asked_about) == 2, "who is refused anyway asks nobody"

    run(tmp_path, work)


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"value":"x"}', b'{"value":[1]}', b'{"value":null}', b"\xff"])
def test_what_is_no_answer(body: bytes) -> None:
    with pytest.raises(AuthorityUnavailable):
        read_members(body)
