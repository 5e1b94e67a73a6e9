"""Lists and several principals: who is told of a change that he cannot see, and whose list is kept for whom.

The rules of keeping, sentence by sentence, and where each is asked besides: one asking for many in
`upstream/test_server.py`; `ttlMs` and `cacheScope` in `upstream/test_lists.py`, `accept/test_listing.py`; stale at once
in `upstream/test_listening.py`; bytes, bits, digests, places in `route/test_fragments.py`, `route/test_bodies.py`; one
subscription for many, and bounds in `test_hub.py`, `test_interests.py`, `test_news.py`, `test_debounce.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from narthex.authority.identify import Identity
from narthex.types import EndpointSpec, IdentitySpec, Principal, Sharing, Snapshot
from tests.authority.issuing import fetcher
from tests.flow.gateway import Client, Running, run, spec, until
from tests.flow.notify.hearing import WATCHED, Hearing, Teller, tools

ENDPOINTS = {
    "default": EndpointSpec(
        "default", ("one",), naming="none", scopes=(("one__delete_*", ("write",)),), hide_unscoped=True
    )
}


def principal(name: str, *scopes: str) -> Principal:
    return Principal("default", "narthex/keys", name, method="api_key", scopes=frozenset(scopes))


KEYS = {
    b"nx_reader_1": principal("reader"),
    b"nx_other__2": principal("other"),
    b"nx_writer_3": principal("writer", "write"),
}


class Keys:
    def find(self, presented: bytes) -> Principal | None:
        return KEYS.get(presented)


def over(server: Teller, **settings: Any) -> Running:
    fetch = fetcher()

    def identify(snapshot: Snapshot) -> Identity:
        assert snapshot.identity is not None
        return Identity(
            snapshot.identity, snapshot.endpoints, keys=Keys(), fetch=fetch.fetch, secrets=None,
            now=lambda: 0.0, clock=lambda: 0.0, chance=lambda: 0.5,
        )  # fmt: skip

    identity = IdentitySpec(api_keys=True, issuers={}, certificates=None)
    one = {"one": spec("one", server.url, **settings)}
    return Running(one, ENDPOINTS, {"identity": identity}, identify=identify, goes=True)


def bearer(name: str) -> Mapping[str, str]:
    key = next(key for key, one in KEYS.items() if one.subject == name)
    return {"Authorization": f"Bearer {key.decode()}"}


async def names(client: Client, who: str) -> list[str]:
    return [one["name"] for one in (await client.modern("tools/list", headers=bearer(who))).result["tools"]]


async def listening(gateway: Running, who: str) -> Hearing:
    client = await gateway.client()
    client.send(
        "subscriptions/listen",
        {"notifications": {"toolsListChanged": True, "resourceSubscriptions": [WATCHED]}},
        modern=True,
        headers=bearer(who),
    )
    hearing = Hearing(client, *(await client.read_head()))
    await hearing.message()
    return hearing


@pytest.mark.parametrize("sharing", ["tenant", "principal"])
def test_only_who_sees_the_change_is_told_of_it(sharing: Sharing) -> None:
    async def main() -> None:
        async with Teller() as server, over(server, sharing=sharing) as gateway:
            reader, writer = await listening(gateway, "reader"), await listening(gateway, "writer")
            for change in (("a", "delete_all"), ("a", "b", "delete_all"), ("a", "b")):
                server.has(*change)
                assert (await writer.told())[0] == "tools/list_changed"
                await until(lambda: not gateway.front.hub._hashing and gateway.front.hub.interests.next_due() is None)
            server.tell("notifications/resources/updated", uri=WATCHED)
            assert [(await reader.told())[0] for _ in range(2)] == ["tools/list_changed", "resources/updated"], "once"

    run(main)


class Private(Teller):
    """Each session is listed other tools."""

    def __init__(self) -> None:
        super().__init__()
        self.listed: dict[str, int] = {}

    async def post(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, headers: dict[str, str], message: Any
    ) -> None:
        if message.get("method") == "tools/list":
            session = headers["mcp-session-id"]
            self.listed[session] = self.listed.get(session, 0) + 1
            self.answers["tools/list"] = {**tools(f"of_{session}"), "ttlMs": 60_000, "cacheScope": "private"}
        await super().post(reader, writer, headers, message)


@pytest.mark.parametrize(("sharing", "lists"), [("tenant", 1), ("principal", 2), ("session", 2)])
def test_a_list_is_asked_for_once_for_all_who_share_it_and_never_shared_further(sharing: Sharing, lists: int) -> None:
    async def main() -> None:
        async with Private() as server, over(server, sharing=sharing, list_ttl_s=60.0) as gateway:
            client = await gateway.client()
            seen = {who: await names(client, who) for who in ("reader", "other", "reader", "other")}
            again = {who: await names(client, who) for who in ("reader", "other")}
            assert again == seen, "from memory"
            assert len({tuple(one) for one in seen.values()}) == lists
            assert list(server.listed.values()) == [1] * lists
            answer = await client.modern("tools/list", headers=bearer("reader"))
            assert answer.result["cacheScope"] == "private", "what a principal is shown is his alone"

    run(main)
