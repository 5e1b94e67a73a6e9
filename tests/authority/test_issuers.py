"""An issuer's keys, on sockets and with a fake clock: discovered, rotated, shared, kept when it is dead."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from narthex.authority.fetch import Fetcher
from narthex.authority.issuers import BURST, EVERY_S, FRESH_S, RETRY_S, Issuer
from narthex.errors import AuthorityUnavailable
from narthex.testing import FakeClock
from narthex.types import ClaimRules, Egress, IssuerSpec, SecretName, SecretText
from tests.authority.issuer import Known
from tests.authority.issuing import LiveIssuer, fetcher, issuing
from tests.flow.identity.issuer import jwks, public

Work = Callable[[LiveIssuer, FakeClock, Fetcher], Awaitable[None]]


def run(work: Work) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60), issuing() as live:
            fetch = fetcher()
            try:
                await work(live, FakeClock(), fetch)
            finally:
                fetch.close()

    asyncio.run(bounded())


def issuer(live: LiveIssuer, clock: FakeClock, fetch: Fetcher, **more: Any) -> Issuer:
    spec = IssuerSpec("corp", "keycloak", more.pop("issuer", live.url), ClaimRules(), **more)
    return Issuer(spec, fetch.fetch, clock=clock, chance=lambda: 1.0)


async def failure(one: Issuer) -> str:
    with pytest.raises(AuthorityUnavailable) as caught:
        await one.refresh()
    return caught.value.detail


def test_found_by_its_metadata() -> None:
    async def work(live: LiveIssuer, clock: FakeClock, fetch: Fetcher) -> None:
        one = issuer(live, clock, fetch)
        assert one.find("rsa", "RS256") is None and one.may_ask("rsa")
        await one.refresh()
        assert one.find("rsa", "RS256") is not None and one.find("other", "RS256") is None

    run(work)


def test_all_who_wait_share_one_asking() -> None:
    async def work(live: LiveIssuer, clock: FakeClock, fetch: Fetcher) -> None:
        one = issuer(live, clock, fetch)
        await asyncio.gather(*(one.refresh() for _ in range(100)))
        assert live.count("/keys") == live.count("openid") == 1

    run(work)


def test_one_who_gives_up_does_not_end_it_for_the_others() -> None:
    async def work(live: LiveIssuer, clock: FakeClock, fetch: Fetcher) -> None:
        one = issuer(live, clock, fetch)
        live.hangs = True
        first, second = asyncio.ensure_future(one.refresh()), asyncio.ensure_future(one.refresh())
        while not live.asked:
            await asyncio.sleep(0.001)
        first.cancel()
        live.hangs = False
        await second
        assert one.keys is not None

    run(work)


def test_a_rotated_key_is_fetched_when_its_first_token_comes() -> None:
    async def work(live: LiveIssuer, clock: FakeClock, fetch: Fetcher) -> None:
        one = issuer(live, clock, fetch)
        await one.refresh()
        vouch = one.vouch
        live.keys.append(public("rsa2"))
        assert one.may_ask("rsa2") and not one.may_ask("rsa")
        await one.refresh()
        assert one.find("rsa2", "RS256") and one.find("rsa", "RS256")
        assert vouch.valid, "what was verified stays so: its key is still there"

    run(work)


def test_a_key_made_while_the_keys_are_asked_for_is_asked_for_once_more() -> None:
    async def work(live: LiveIssuer, clock: FakeClock, fetch: Fetcher) -> None:
        come, deliver = asyncio.Event(), asyncio.Event()

        async def late(*arguments: Any, **more: Any) -> Any:
            answer = await fetch.fetch(*arguments, **more)
            come.set()
            await deliver.wait()
            return answer

        one = issuer(live, clock, fetch)
        await one.refresh()
        live.keys.append(public("rsa2"))
        one._fetch = late
        assert one.may_ask("rsa2")
        first = asyncio.ensure_future(one.seek("rsa2", "RS256"))
        await come.wait()
        live.keys.append(public("p256"))
        assert one.may_ask("p256")
        second = asyncio.ensure_future(one.seek("p256", "ES256"))
        await asyncio.sleep(0)
        deliver.set()
        assert await first is not None
        assert await second is not None
        before = live.count("/keys")
        assert await asyncio.gather(*(one.seek("never", "RS256") for _ in range(9))) == [None] * 9
        assert live.count("/keys") == before + 2, "all who joined share the second asking too"

    run(work)


def test_a_key_that_is_gone_takes_with_it_what_it_had_signed() -> None:
    async def work(live: LiveIssuer, clock: FakeClock, fetch: Fetcher) -> None:
        one = issuer(live, clock, fetch)
        await one.refresh()
        vouch = one.vouch
        live.keys = [public("rsa2")]
        await one.refresh()
        assert not vouch.valid and one.vouch.valid and one.find("rsa", "RS256") is None

    run(work)


def test_invented_key_ids_ask_a_few_times_and_then_seldom() -> None:
    async def work(live: LiveIssuer, clock: FakeClock, fetch: Fetcher) -> None:
        one = issuer(live, clock, fetch)
        await one.refresh()
        asked = 0
        for number in range(1000):
            if one.may_ask(f"invented-{number}"):
                asked += 1
                await one.refresh()
        assert asked == BURST
        clock.advance(EVERY_S)
        assert one.may_ask("invented") and not one.may_ask("invented")

    run(work)


def test_documents_that_are_not_public_are_shown_a_token() -> None:
    async def work(live: LiveIssuer, clock: FakeClock, fetch: Fetcher) -> None:
        async with issuing() as other:
            spec = IssuerSpec("corp", "keycloak", live.url, ClaimRules(), token=SecretText(("t-", SecretName("pod"))))
            one = Issuer(spec, fetch.fetch, clock=clock, chance=lambda: 1.0, secrets=Known(pod="1"))
            await one.refresh()
            assert {shown for _, shown in live.shown} == {"Bearer t-1"} and len(live.shown) == 2
            live.metadata = {"jwks_uri": other.url + "/keys"}
            egress = Egress(proxy=None, allow_private=("127.0.0.1",), allow_http=("127.0.0.1",))
            anywhere, known = Fetcher(egress, environ={}), Known(pod="1")
            learns = Issuer(spec, anywhere.fetch, clock=clock, chance=lambda: 1.0, secrets=known)
            await learns.refresh()
            assert other.shown == [("/realms/corp/keys", "")], "an address that others supplied is shown nothing"
            anywhere.close()
            lost = Issuer(spec, fetch.fetch, clock=clock, chance=lambda: 1.0, secrets=Known())
            assert "narthex secrets set pod" in await failure(lost)

    run(work)


def test_a_dead_issuer_changes_nothing_for_keys_that_are_known() -> None:
    async def work(live: LiveIssuer, clock: FakeClock, fetch: Fetcher) -> None:
        one = issuer(live, clock, fetch)
        await one.refresh()
        await live.stop()
        fetch.close()
        clock.advance(FRESH_S)
        assert one.is_due()
        await failure(one)
        assert one.find("rsa", "RS256") is not None and one.vouch.valid
        await live.start()
        clock.advance(RETRY_S[1])
        await one.refresh()
        assert one.last_error == ""

    run(work)


def test_failures_are_tried_again_later_and_later() -> None:
    async def work(live: LiveIssuer, clock: FakeClock, fetch: Fetcher) -> None:
        one = issuer(live, clock, fetch)
        live.broken = 503
        delays = []
        for _ in range(12):
            await failure(one)
            assert not one.may_ask("rsa"), "nobody else asks meanwhile"
            began = clock()
            while not one.is_due():
                clock.advance(0.5)
            delays.append(clock() - began)
        assert delays[:4] == [1.0, 2.0, 4.0, 8.0] and delays[-1] == RETRY_S[1]

    run(work)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        pytest.param({"broken": 500}, "HTTP 500", id="it answers an error"),
        pytest.param({"metadata": {"issuer": "http://127.0.0.1/other"}}, "another issuer", id="another's metadata"),
        pytest.param({"metadata": {"jwks_uri": None}}, "names no keys", id="no address of keys"),
        pytest.param({"metadata": {"jwks_uri": "http://127.0.0.1:9/k"}}, "not https", id="keys elsewhere, without TLS"),
        pytest.param({"metadata": {"jwks_uri": "https://127.0.0.1/k"}}, "loopback", id="keys in a private place"),
        pytest.param({"metadata": {"jwks_uri": "https://169.254.169.254/k"}}, "metadata", id="keys of the cloud"),
        pytest.param({"metadata": {"jwks_uri": "file:///etc/passwd"}}, "neither https nor http", id="keys in a file"),
        pytest.param({"keys": []}, "of use", id="no keys"),
        pytest.param({"keys": [public("rsa", use="enc")]}, "of use", id="no usable keys"),
    ],
)
def test_what_is_no_answer(spoil: dict[str, Any], said: str) -> None:
    async def work(live: LiveIssuer, clock: FakeClock, fetch: Fetcher) -> None:
        for name, value in spoil.items():
            setattr(live, name, value)
        assert said in await failure(issuer(live, clock, fetch))

    run(work)


def test_no_keys_any_more_is_a_failure_and_the_old_ones_stay() -> None:
    async def work(live: LiveIssuer, clock: FakeClock, fetch: Fetcher) -> None:
        one = issuer(live, clock, fetch)
        await one.refresh()
        live.keys = []
        await failure(one)
        assert one.find("rsa", "RS256") is not None

    run(work)


def test_a_key_address_of_the_operator_and_a_file(tmp_path: Path) -> None:
    async def work(live: LiveIssuer, clock: FakeClock, fetch: Fetcher) -> None:
        by_url = issuer(live, clock, fetch, jwks_url=live.url + "/keys", issuer="https://nowhere.example/realms/a")
        await by_url.refresh()
        assert by_url.keys is not None and live.count("openid") == 0
        file = tmp_path / "bundle.json"
        by_file = issuer(live, clock, fetch, jwks_file=str(file))
        assert str(file) in await failure(by_file)
        file.write_bytes(jwks(public("p256", use="jwt-svid")))
        await by_file.refresh()
        assert by_file.find("p256", "ES256") is not None

    run(work)


def test_closed_it_vouches_for_nothing() -> None:
    async def work(live: LiveIssuer, clock: FakeClock, fetch: Fetcher) -> None:
        one = issuer(live, clock, fetch)
        live.hangs = True
        asking = asyncio.ensure_future(one.refresh())
        while not live.asked:
            await asyncio.sleep(0.001)
        vouch = one.vouch
        one.close()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert not vouch.valid

    run(work)


def test_the_addresses_of_an_issuer_of_many_tenants_are_not_learnt() -> None:
    """Its metadata names its keys on its own server, which the operator has named."""
    spec = IssuerSpec("entra", "entra", "https://login.corp.internal/{tid}/v2.0", ClaimRules())
    one = Issuer(spec, fetcher().fetch, clock=FakeClock(), chance=lambda: 1.0)
    assert not one.is_learnt("https://login.corp.internal/organizations/discovery/v2.0/keys")
    assert one.is_learnt("https://login.evil.example/organizations/discovery/v2.0/keys")
