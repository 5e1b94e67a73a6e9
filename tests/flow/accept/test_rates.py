"""The bounds on requests of any kind: 429 before anything is read, each principal and each address by itself."""

from __future__ import annotations

import pytest

from narthex.errors import HttpRefusal
from narthex.flow.accept.rates import Rates, rates_of
from narthex.testing import FakeServer
from narthex.types import LOCAL, Limits, Principal
from tests.flow.gateway import Running, run, spec


@pytest.mark.parametrize("bound", ["principal_rate", "address_rate"])
def test_requests_of_any_kind_count(bound: str) -> None:
    async def main() -> None:
        async with (
            FakeServer() as server,
            Running({"one": spec("one", server.url)}, settings={"limits": Limits(**{bound: 3})}) as gateway,
        ):
            client = await gateway.client()
            statuses = []
            for _ in range(5):
                got = await client.modern("server/discover")
                statuses.append(got.status)
            assert statuses == [200, 200, 200, 429, 429]
            assert got.headers["retry-after"] == "1"
            assert (got.error["code"], got.error["data"]["reason"]) == (-31002, "rate_limited")
            client.http("GET", "/healthz")
            assert (await client.read()).status == 200, "probes do not count"
            gateway.pass_time(2)
            assert (await client.modern("server/discover")).status == 200

    run(main)


def test_each_counts_by_itself() -> None:
    rates = Rates(Limits(principal_rate=1, address_rate=1))
    rates.count_address("10.0.0.1", 5.0)
    rates.count_address("10.0.0.2", 5.0)
    rates.count_principal(LOCAL, 5.0)
    rates.count_principal(Principal("other", "narthex", "local"), 5.0)
    with pytest.raises(HttpRefusal):
        rates.count_principal(LOCAL, 5.0)
    with pytest.raises(HttpRefusal):
        rates.count_address("10.0.0.1", 5.0)


def test_a_reload_that_changes_nothing_here_counts_on() -> None:
    rates = rates_of(Limits(address_rate=1), None)
    assert rates is not None
    assert rates_of(Limits(address_rate=1, max_calls=7), rates) is rates
    assert rates_of(Limits(address_rate=2), rates) is not rates
    assert rates_of(Limits(), rates) is None
