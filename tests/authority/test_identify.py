"""Who calls: every way to prove it, from memory and with the issuer's help, and every way that must not work."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from narthex.authority.fetch import Fetcher
from narthex.authority.identify import Identity, Presented
from narthex.authority.subjects import Subjects
from narthex.errors import AuthorityUnavailable, GatewayError, HttpRefusal, InsufficientScope, Unauthorized
from narthex.flow.identity.certificates import Certificate
from narthex.testing import FakeClock
from narthex.types import (
    ANONYMOUS,
    LOCAL,
    CertificateRules,
    ClaimRules,
    EndpointSpec,
    IdentitySpec,
    Introspection,
    IssuerSpec,
    Principal,
    SecretName,
    SecretText,
)
from tests.authority.issuing import LiveIssuer, fetcher, issuing
from tests.flow.identity.issuer import AUDIENCE, NOW, claims, public, token

KEY = b"nx_abcdefgh_secret"
ROBOT = Principal("default", "narthex/keys", "robot", method="api_key", scopes=frozenset({"mcp"}))
THUMB = "A" * 43
DEFAULT = EndpointSpec("default", ())


class Keys:
    revoked = False

    def find(self, presented: bytes) -> Principal | None:
        return ROBOT if presented == KEY and not self.revoked else None

    def holds(self, principal: Principal) -> bool:
        return principal.key == ROBOT.key and not self.revoked


class Book:
    version = 1

    def get(self, name: str) -> str:
        return {"idp": "s3cret+/"}[name]


class World:
    """An identity over one live issuer, at `NOW`."""

    def __init__(self, live: LiveIssuer, fetch: Fetcher) -> None:
        self.live, self.fetch, self.clock = live, fetch, FakeClock(epoch=NOW)
        self.endpoints = {"default": DEFAULT}
        self.keys = Keys()
        self.subjects = Subjects(now=self.clock.wall)

    def issuer(self, **more: Any) -> IssuerSpec:
        base = {"audiences": (AUDIENCE,), "claims": ClaimRules(roles=(("roles",),), role_map={"gw": ("support",)})}
        return IssuerSpec("corp", more.pop("preset", "keycloak"), self.live.url, **(base | more))

    def identity(self, *issuers: IssuerSpec, before: Identity | None = None, **more: Any) -> Identity:
        spec = IdentitySpec(issuers={one.name: one for one in issuers or (self.issuer(),)}, **more)
        return Identity(
            spec, self.endpoints, keys=self.keys, fetch=self.fetch.fetch, secrets=Book(), now=self.clock.wall,
            clock=self.clock, chance=lambda: 0.5, subjects=self.subjects, before=before,
        )  # fmt: skip

    def token(self, by: str = "rsa", **more: Any) -> bytes:
        return b"Bearer " + token(claims(iss=self.live.url, **more), by=by)


def run(work: Callable[[World], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60), issuing() as live:
            fetch = fetcher()
            try:
                await work(World(live, fetch))
            finally:
                fetch.close()

    asyncio.run(bounded())


async def who(identity: Identity, header: bytes | None, endpoint: EndpointSpec = DEFAULT, **more: Any) -> Principal:
    found = identity.identify(Presented(header, **more), endpoint)
    return found if isinstance(found, Principal) else await found


async def refused(identity: Identity, header: bytes | None, **more: Any) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        await who(identity, header, **more)
    return caught.value


def test_a_token_waits_once_for_the_keys_then_never() -> None:
    async def work(world: World) -> None:
        identity, header = world.identity(), world.token(roles=["gw"], scope="mcp")
        assert identity.known(header, "default") is None
        found = await who(identity, header)
        assert (found.subject, found.roles, found.method, found.issuer) == (
            "alice",
            ("support",),
            "jwt",
            world.live.url,
        )
        assert identity.known(header, "default") is found
        other = identity.identify(Presented(world.token(sub="bob")), DEFAULT)
        assert isinstance(other, Principal), "its key is known: verified on the spot"
        assert world.live.count("/keys") == 1

    run(work)


def test_a_token_is_kept_for_credentials_where_any_is_made_of_it() -> None:
    async def work(world: World) -> None:
        header = world.token(scope="b a")
        first = world.identity()
        caller = await who(first, header)
        assert world.subjects.find(caller.key, "a b") == "", "nobody needs it"
        world.subjects.want(True)
        second = world.identity(before=first)
        assert second.known(header, "default") is None, "what was verified before is verified again, and then kept"
        await who(second, header)
        assert world.subjects.find(caller.key, "a b") == header.decode().removeprefix("Bearer ")
        assert world.identity(before=second).known(header, "default") is not None

    run(work)


def test_until_it_expires() -> None:
    async def work(world: World) -> None:
        identity, header = world.identity(), world.token(exp=NOW + 10)
        await who(identity, header)
        world.clock.advance(69)
        assert identity.known(header, "default") is not None, "a minute of leeway"
        world.clock.advance(1)
        assert identity.known(header, "default") is None
        error = await refused(identity, header)
        assert isinstance(error, Unauthorized) and error.error == "invalid_token" and "expired" in error.public

    run(work)


@pytest.mark.parametrize(
    ("header", "kind", "said"),
    [
        pytest.param(None, Unauthorized, "", id="nothing"),
        pytest.param(b"", Unauthorized, "", id="an empty header"),
        pytest.param(b"Basic YTpi", Unauthorized, "", id="another scheme"),
        pytest.param(b"Bearer", HttpRefusal, "", id="a scheme alone"),
        pytest.param(b"Bearer ", HttpRefusal, "", id="a scheme and a space"),
        pytest.param(b"Bearer a, Bearer b", HttpRefusal, "", id="two in one header"),
        pytest.param(b"Bearer a b", HttpRefusal, "", id="two tokens"),
        pytest.param(b"Bearer nx_unknown", Unauthorized, "invalid_token", id="an unknown key"),
        pytest.param(b"Bearer opaque", Unauthorized, "invalid_token", id="an opaque token, and nobody to ask"),
        pytest.param(b"Bearer " + token(), Unauthorized, "invalid_token", id="another issuer"),
        pytest.param(b"Bearer " + b"a" * 30_000, Unauthorized, "invalid_token", id="huge"),
        pytest.param(b"Bearer \xff\xfe", Unauthorized, "invalid_token", id="not ASCII"),
    ],
)
def test_who_is_turned_away(header: bytes | None, kind: type[GatewayError], said: str) -> None:
    async def work(world: World) -> None:
        error = await refused(world.identity(api_keys=True), header)
        assert type(error) is kind
        assert getattr(error, "error", said) == said

    run(work)


@pytest.mark.parametrize("query", [b"access_token=x", b"a=b&Access_Token=x", b"access%5Ftoken=x", b"api_key=x"])
def test_a_credential_in_the_url_is_refused_whatever_else_comes(query: bytes) -> None:
    async def work(world: World) -> None:
        error = await refused(world.identity(api_keys=True), b"Bearer " + KEY, query=query)
        assert isinstance(error, HttpRefusal) and error.status == 400

    run(work)


def test_keys() -> None:
    async def work(world: World) -> None:
        identity = world.identity(api_keys=True)
        assert await who(identity, b"Bearer " + KEY) is ROBOT
        assert identity.known(b"Bearer " + KEY, "default") is ROBOT
        assert await who(identity, b"bearer " + KEY) is ROBOT, "schemes have no case"
        assert isinstance(await refused(world.identity(), b"Bearer " + KEY), Unauthorized), "keys are not switched on"

    run(work)


def test_a_rotated_key_in_the_middle_of_traffic() -> None:
    async def work(world: World) -> None:
        identity = world.identity()
        await who(identity, world.token())
        world.live.keys.append(public("rsa2"))
        headers = [world.token(by="rsa2", sub=f"u{number}") for number in range(20)]
        found = await asyncio.gather(*(who(identity, header) for header in headers))
        assert [one.subject for one in found] == [f"u{number}" for number in range(20)]
        assert world.live.count("/keys") == 2, "one asking for all of them"

    run(work)


def test_a_dead_issuer() -> None:
    async def work(world: World) -> None:
        identity = world.identity()
        await who(identity, world.token())
        await world.live.stop()
        world.fetch.close()
        assert (await who(identity, world.token(sub="bob"))).subject == "bob", "its key is known"
        error = await refused(identity, world.token(by="rsa2"))
        assert isinstance(error, AuthorityUnavailable) and error.status == 503
        await world.live.start()

    run(work)


def test_who_never_reached_its_issuer_gets_503_and_asks_it_no_faster() -> None:
    async def work(world: World) -> None:
        world.live.broken = 500
        identity = world.identity()
        assert (await refused(identity, world.token())).status == 503
        asked = len(world.live.asked)
        for _ in range(5):
            assert (await refused(identity, world.token())).status == 503
        assert len(world.live.asked) == asked
        world.live.broken = 0
        world.clock.advance(5)
        assert (await who(identity, world.token())).subject == "alice"

    run(work)


def test_audiences_without_configuration_are_the_endpoints_own_url() -> None:
    async def work(world: World) -> None:
        identity = world.identity(world.issuer(audiences=()))
        own = {"audiences": frozenset({"https://gw/mcp", "https://gw/mcp/default"})}
        header = world.token(aud="https://gw/mcp")
        assert (await who(identity, header, **own)).subject == "alice"
        other = EndpointSpec("support", ())
        assert identity.known(header, "support") is None, "known at one endpoint says nothing at another"
        found = await refused(identity, header, endpoint=other, audiences=frozenset({"https://gw/mcp/support"}))
        assert "audience" in found.detail

    run(work)


def test_scopes_of_an_endpoint() -> None:
    async def work(world: World) -> None:
        world.endpoints["default"] = endpoint = EndpointSpec("default", (), base_scopes=("mcp", "read"))
        identity = world.identity(scope_includes={"all": ("read",)})
        poor, rich = world.token(scope="mcp"), world.token(scope="mcp all")
        for _ in range(2):
            error = await refused(identity, poor, endpoint=endpoint)
            assert isinstance(error, InsufficientScope) and error.scopes == ("mcp", "read")
            assert identity.known(poor, "default") is None
        assert "read" in (await who(identity, rich, endpoint=endpoint)).scopes
        assert identity.known(rich, "default") is not None

    run(work)


def test_an_endpoint_for_everybody() -> None:
    async def work(world: World) -> None:
        identity, open_ = world.identity(), EndpointSpec("open", (), auth="anonymous")
        assert await who(identity, None, endpoint=open_) is ANONYMOUS
        assert (await who(identity, world.token(), endpoint=open_)).subject == "alice"
        assert isinstance(await refused(identity, b"Bearer bad", endpoint=open_), Unauthorized)

    run(work)


CERTIFICATES = CertificateRules({"URI:spiffe://prod/*": ("robot",)})


def test_certificates() -> None:
    async def work(world: World) -> None:
        identity = world.identity(certificates=CERTIFICATES)
        mine = Certificate(("URI:spiffe://prod/a",), THUMB)
        found = await who(identity, None, certificate=mine, by="xfcc")
        assert (found.subject, found.roles, found.method) == ("URI:spiffe://prod/a", ("robot",), "xfcc")
        stranger = Certificate(("URI:spiffe://dev/a",), THUMB)
        assert isinstance(await refused(identity, None, certificate=stranger), Unauthorized)
        assert (await who(identity, world.token(), certificate=mine)).subject == "alice", "the token says who"
        assert isinstance(await refused(world.identity(), None, certificate=mine), Unauthorized), "not switched on"

    run(work)


def test_a_certificate_that_expires_under_an_open_connection_counts_no_more() -> None:
    async def work(world: World) -> None:
        identity = world.identity(certificates=CERTIFICATES)
        mine = Certificate(("URI:spiffe://prod/a",), THUMB, NOW + 100)
        found = await who(identity, None, certificate=mine)
        assert identity.holds(found)
        world.clock.advance(161)
        assert not identity.holds(found), "a stream that it opened ends"
        error = await refused(identity, None, certificate=mine)
        assert isinstance(error, Unauthorized) and "expired" in error.public

    run(work)


def test_a_bound_token_is_worth_nothing_without_its_certificate() -> None:
    async def work(world: World) -> None:
        identity, header = world.identity(), world.token(cnf={"x5t#S256": THUMB})
        mine, other = Certificate((), THUMB), Certificate((), "B" * 43)
        assert isinstance(await refused(identity, header), Unauthorized)
        assert (await who(identity, header, certificate=mine)).subject == "alice"
        assert identity.known(header, "default") is None, "each request must show the certificate again"
        assert isinstance(await refused(identity, header), Unauthorized)
        assert isinstance(await refused(identity, header, certificate=other), Unauthorized)
        assert (await who(identity, header, certificate=mine)).subject == "alice"

    run(work)


def opaque(**prefixes: str) -> Callable[[World, LiveIssuer], Identity]:
    """An identity of two issuers with opaque tokens, by what those begin with."""

    def make(world: World, other: LiveIssuer) -> Identity:
        first = world.issuer(introspection=msgspec.structs.replace(ASKED, prefix=prefixes.get("corp", "")))
        second = msgspec.structs.replace(
            first, name="other", issuer=other.url,
            introspection=msgspec.structs.replace(ASKED, prefix=prefixes.get("other", "")),
        )  # fmt: skip
        return world.identity(first, second)

    return make


@pytest.mark.parametrize(
    ("make", "token", "asked"),
    [
        pytest.param(opaque(), b"o_1", (1, 1), id="the second, after the first has not known it"),
        pytest.param(opaque(other="o_"), b"o_1", (0, 1), id="the one whose prefix it has, alone"),
        pytest.param(opaque(corp="c_", other="o_"), b"o_1", (0, 1), id="each has a prefix"),
    ],
)
def test_several_issuers_have_opaque_tokens(make: Any, token: bytes, asked: tuple[int, int]) -> None:
    async def work(world: World) -> None:
        async with issuing() as other:
            identity = make(world, other)
            other.tokens[token.decode()] = {"active": True, "sub": "bob", "aud": AUDIENCE}
            for _ in range(2):
                found = await who(identity, b"Bearer " + token)
                assert (found.subject, found.issuer) == ("bob", other.url)
            assert (world.live.count("/introspect"), other.count("/introspect")) == asked
            assert isinstance(await refused(identity, b"Bearer nobodys"), Unauthorized)

    run(work)


def test_a_token_with_no_ones_prefix_is_shown_to_nobody() -> None:
    async def work(world: World) -> None:
        async with issuing() as other:
            identity = opaque(corp="c_", other="o_")(world, other)
            assert isinstance(await refused(identity, b"Bearer x_1"), Unauthorized)
            assert (world.live.count("/introspect"), other.count("/introspect")) == (0, 0)

    run(work)


def test_where_one_issuer_is_silent_nothing_is_said_of_a_token_that_the_others_do_not_know() -> None:
    async def work(world: World) -> None:
        async with issuing() as other:
            identity = opaque()(world, other)
            world.live.broken = 503
            assert isinstance(await refused(identity, b"Bearer o_1"), AuthorityUnavailable)
            other.tokens["o_1"] = {"active": True, "sub": "bob", "aud": AUDIENCE}
            assert (await who(identity, b"Bearer o_1")).subject == "bob"

    run(work)


ASKED = Introspection(client_id="gw:1", client_secret=SecretText((SecretName("idp"),)), ttl_s=30)


def test_opaque_tokens_are_asked_about_and_the_answer_is_kept() -> None:
    async def work(world: World) -> None:
        identity = world.identity(world.issuer(introspection=ASKED))
        world.live.tokens["t1"] = {"active": True, "sub": "alice", "aud": AUDIENCE, "scope": "mcp", "exp": NOW + 300}
        found = await asyncio.gather(*(who(identity, b"Bearer t1") for _ in range(10)))
        assert {one.subject for one in found} == {"alice"} and found[0].method == "introspection"
        assert world.live.count("/introspect") == 1
        assert world.live.authorizations == ["Basic Z3clM0ExOnMzY3JldCUyQiUyRg=="], "each part form-encoded first"
        assert identity.known(b"Bearer t1", "default") is not None
        world.clock.advance(30)
        world.live.tokens.clear()
        assert isinstance(await refused(identity, b"Bearer t1"), Unauthorized), "revoked meanwhile"

    run(work)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param({"active": False, "sub": "alice", "aud": AUDIENCE}, id="not active"),
        pytest.param({"active": True, "aud": AUDIENCE}, id="no subject"),
        pytest.param({"active": True, "sub": "alice"}, id="no audience"),
        pytest.param({"active": True, "sub": "alice", "aud": "other"}, id="another audience"),
        pytest.param({"active": True, "sub": "alice", "aud": AUDIENCE, "iss": "https://evil"}, id="another issuer"),
        pytest.param({"active": True, "sub": "alice", "aud": AUDIENCE, "exp": NOW - 100}, id="expired"),
        pytest.param({"active": True, "sub": "alice", "aud": AUDIENCE, "token_type": "DPoP"}, id="bound by DPoP"),
        pytest.param({"active": True, "sub": "alice", "aud": AUDIENCE, "cnf": {"jkt": "x"}}, id="bound to a key"),
    ],
)
def test_answers_that_let_nobody_in(answer: dict[str, Any]) -> None:
    async def work(world: World) -> None:
        identity = world.identity(world.issuer(introspection=ASKED))
        world.live.tokens["t1"] = answer
        assert isinstance(await refused(identity, b"Bearer t1"), Unauthorized)

    run(work)


@pytest.mark.parametrize("answer", [{}, {"active": "true"}, {"active": 1}, []])
def test_answers_that_say_nothing_are_no_answers(answer: Any) -> None:
    async def work(world: World) -> None:
        identity = world.identity(world.issuer(introspection=ASKED))
        world.live.tokens["t1"] = answer
        assert isinstance(await refused(identity, b"Bearer t1"), AuthorityUnavailable)

    run(work)


def test_an_audience_may_be_waived_and_a_secret_go_in_the_form() -> None:
    async def work(world: World) -> None:
        how = msgspec.structs.replace(ASKED, audience="optional", auth="post")
        identity = world.identity(world.issuer(introspection=how))
        world.live.tokens["t1"] = {"active": True, "sub": "alice"}
        assert (await who(identity, b"Bearer t1")).expires_at == 0
        assert world.live.forms[0]["client_secret"] == ["s3cret+/"]
        world.live.tokens["t2"] = {"active": True, "sub": "alice", "aud": "other"}
        assert isinstance(await refused(identity, b"Bearer t2"), Unauthorized), "another one never counts"

    run(work)


def test_jwts_may_be_asked_about_too() -> None:
    async def work(world: World) -> None:
        identity = world.identity(world.issuer(introspection=msgspec.structs.replace(ASKED, use="always")))
        header = world.token()
        assert isinstance(await refused(identity, header), Unauthorized), "signed, and revoked"
        world.live.tokens[header[7:].decode()] = {"active": True}
        assert (await who(identity, header)).method == "jwt"
        forged = world.token(by="rsa2").replace(b"rsa2", b"rsa2")
        before = world.live.count("/introspect")
        assert isinstance(await refused(identity, forged), Unauthorized)
        assert world.live.count("/introspect") == before, "what is not signed is not worth asking about"

    run(work)


def test_workloads() -> None:
    async def work(world: World) -> None:
        kubernetes = world.issuer(
            preset="kubernetes", claims=ClaimRules(subjects=("system:serviceaccount:agents:*",),
                                                   subject_map={"*:helper": ("robot",)}, preset="kubernetes"),
        )  # fmt: skip
        identity = world.identity(kubernetes)
        found = await who(identity, world.token(sub="system:serviceaccount:agents:helper"))
        assert (found.method, found.kind, found.roles) == ("workload", "service", ("robot",))
        assert isinstance(await refused(identity, world.token(sub="system:serviceaccount:kube:x")), Unauthorized)

    run(work)


def test_a_spiffe_token_names_its_issuer_by_its_subject() -> None:
    async def work(world: World) -> None:
        rules = ClaimRules(subjects=("spiffe://example.org/agents/*",), preset="spiffe")
        spiffe = IssuerSpec(
            "mesh", "spiffe", "spiffe://example.org", rules, audiences=(AUDIENCE,), jwks_url=world.live.url + "/keys",
            typ=("jwt", ""),
        )  # fmt: skip
        identity = world.identity(spiffe)

        def svid(sub: str) -> bytes:
            return b"Bearer " + token(claims(iss=None, sub=sub), header={"typ": "JWT"})

        assert (await who(identity, svid("spiffe://example.org/agents/a"))).issuer == "spiffe://example.org"
        for sub in ("spiffe://example.org/other", "spiffe://example.org.evil/agents/a", "spiffe://evil/agents/a"):
            assert isinstance(await refused(identity, svid(sub)), Unauthorized)

    run(work)


def test_a_reload_drops_what_rested_on_what_changed_and_keeps_the_rest() -> None:
    async def work(world: World) -> None:
        first = world.identity()
        header = world.token()
        await who(first, header)
        second = world.identity(before=first)
        assert second.known(header, "default") is not None, "nothing has changed"
        third = world.identity(world.issuer(audiences=("other",)), before=second)
        assert third.known(header, "default") is None
        assert isinstance(await refused(third, header), Unauthorized)
        fourth = world.identity(scope_includes={"a": ("b",)}, before=third)
        assert fourth.known(header, "default") is None

    run(work)


def test_what_goes_on_goes_on_while_its_proof_counts() -> None:
    async def work(world: World) -> None:
        identity = world.identity(api_keys=True, certificates=CERTIFICATES)
        alice = await who(identity, world.token())
        mesh = await who(identity, None, certificate=Certificate(("URI:spiffe://prod/a",), THUMB))
        for principal in (alice, ROBOT, mesh, ANONYMOUS):
            assert identity.holds(principal)
        assert not identity.holds(LOCAL), "nobody is `local` where an identity is configured"
        world.keys.revoked = True
        assert not identity.holds(ROBOT)
        world.clock.advance(361)
        assert not identity.holds(alice), "expired"
        other = world.identity(msgspec.structs.replace(world.issuer(), issuer="https://other.example/realms/a"))
        for principal in (alice, ROBOT, mesh):
            assert not other.holds(principal), "configured no more"

    run(work)


def test_keys_are_renewed_off_the_path() -> None:
    async def work(world: World) -> None:
        identity = world.identity()
        identity.sweep()
        while identity.issuers["corp"].keys is None:
            await asyncio.sleep(0.001)
        identity.sweep()
        world.clock.advance(3600)
        while world.live.count("/keys") < 2:
            identity.sweep()  # as once a second; the first asking may not quite be over
            await asyncio.sleep(0.001)
        identity.close()

    run(work)


def test_a_token_goes_to_nobody_else() -> None:
    """Introspection sends it to its issuer in a form; nothing else does, and no error quotes it."""

    async def work(world: World) -> None:
        identity, header = world.identity(), world.token(aud="other")
        error = await refused(identity, header)
        for text in (error.public, error.detail, str(error), repr(error)):
            assert header[7:].decode() not in text and "alice" not in text
        assert not any(header[7:].decode() in path for path in world.live.asked)

    run(work)
