"""What the admin side tells of kept answers, and who may end them."""

from __future__ import annotations

from typing import Any

import pytest

from narthex.flow.cache.cache import Cache, Counts
from narthex.flow.cache.lots import Lots
from narthex.flow.cache.shelves import OVERHEAD, Kept
from narthex.types import CacheSpec
from tests.admin.gateway import ADMIN, TOKEN, WORKER, Gateway
from tests.admin.test_server import ask
from tests.flow.cache.keeping import kept_as

HEADERS = {"Host": "localhost"}


def bearer(credential: str) -> dict[str, str]:
    return {**HEADERS, "Authorization": f"Bearer {credential}"}


def gateway() -> Gateway:
    """With two answers of one tool and tenant, and one of another tool and tenant."""
    found = Gateway(admin_listen=("0.0.0.0", 0))
    found.cache = cache = Cache(CacheSpec(), Counts())
    for number, (tenant, name) in enumerate((("default", "crm__get"), ("default", "crm__get"), ("acme", "wiki__page"))):
        plain = kept_as(number, tenant, at=990.0, lots=Lots())
        cache.shelves.put(
            Kept(number, tenant, plain.result, (), 990.0, 1990.0, 1990.0, ("default", name, "tools", "r"))
        )
    cache.counts.hits = 7
    return found


def test_without_a_cache_there_is_nothing() -> None:
    assert ask(Gateway(), "GET", "/api/v1/cache") == (200, {"cache": None})
    assert ask(Gateway(), "DELETE", "/api/v1/cache", bearer(TOKEN)) == (200, {"cleared": 0})


def test_what_is_kept_is_shown_by_what_it_is_of() -> None:
    status, found = ask(gateway(), "GET", "/api/v1/cache", bearer(TOKEN))
    size = OVERHEAD + 10
    assert status == 200 and not found["more"]
    rows = found["cache"].pop("rows")
    assert found["cache"] == {
        "entries": 3, "bytes": 3 * size, "most_entries": 10_000, "most_bytes": 1 << 26,
        "asked": {"hits": 7, "joined": 0, "kept": 0, "misses": 0, "stale": 0},
    }  # fmt: skip
    assert [(row["tenant"], row["name"], row["entries"], row["oldest"]) for row in rows] == [
        ("default", "crm__get", 2, 10.0), ("acme", "wiki__page", 1, 10.0),
    ]  # fmt: skip


def test_a_principal_hears_of_its_tenant_alone() -> None:
    _, found = ask(gateway(), "GET", "/api/v1/cache", bearer(ADMIN))
    assert found["cache"]["entries"] == 2 and found["cache"]["asked"] == {}
    assert {row["tenant"] for row in found["cache"]["rows"]} == {"default"}


@pytest.mark.parametrize(
    ("credential", "query", "status", "left"),
    [
        pytest.param(TOKEN, "", 200, 0, id="all"),
        pytest.param(TOKEN, "?name=crm__*", 200, 1, id="by name"),
        pytest.param(TOKEN, "?tenant=acme", 200, 2, id="of a tenant"),
        pytest.param(TOKEN, "?name=nothing", 200, 3, id="nothing of that name"),
        pytest.param(ADMIN, "", 200, 1, id="a principal ends what is its tenant's"),
        pytest.param(ADMIN, "?tenant=acme", 200, 1, id="and nobody else's, whatever it asks for"),
        pytest.param(WORKER, "", 403, 3, id="who may not"),
        pytest.param("nonsense", "", 401, 3, id="who is nobody"),
    ],
)
def test_who_ends_what(credential: str, query: str, status: int, left: int) -> None:
    one: Any = gateway()
    assert ask(one, "DELETE", f"/api/v1/cache{query}", bearer(credential))[0] == status
    assert len(one.cache.shelves) == left


def test_what_is_done_is_recorded() -> None:
    one = gateway()
    ask(one, "DELETE", "/api/v1/cache?name=crm__*", bearer(ADMIN))
    ask(one, "DELETE", f"/api/v1/cache?name={'x' * 2000}", bearer(TOKEN))
    assert [(entry["event"], entry["method"]) for entry in one.recorded] == [("admin", "cache.delete")] * 2
    assert (one.recorded[0]["query"], one.recorded[0]["did"]) == ("name=crm__*", {"cleared": 2})
    assert len(one.recorded[1]["query"]) == 1024, "what somebody asks for is bounded"
