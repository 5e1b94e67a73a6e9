"""What clients say without wanting an answer: it reaches whom it is for, in a form that they know, and nobody else."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.flow.accept.asking import (
    ANSWERS,
    CAPABILITIES,
    MANUAL,
    Asker,
    answer,
    ask_modern,
    beside,
    event,
    held,
    legacy_client,
    nothing_left,
    over,
    pushed,
    retry_of,
)
from tests.flow.gateway import LEGACY, Client, Running, run, until

CHANGED = "notifications/roots/list_changed"
PROGRESS = "notifications/progress"
ROOTS = {**CAPABILITIES, "roots": {"listChanged": True}}


async def tell(client: Client, method: str, **params: Any) -> None:
    """POST a notification."""
    lines = {"MCP-Protocol-Version": LEGACY, **({"Mcp-Session-Id": client.session} if client.session else {})}
    body = json.dumps({"jsonrpc": "2.0", "method": method, "params": params}).encode()
    client.http("POST", "/mcp", lines, body)
    assert (await client.read()).status == 202


async def call(client: Client, era: str = "legacy") -> None:
    send = client.legacy if era == "legacy" else client.modern
    assert (await send("tools/call", {"name": "one__ask", "arguments": {"rounds": []}})).text == "[]"


@pytest.mark.parametrize(
    ("capabilities", "era", "sharing", "told"),
    [
        pytest.param(ROOTS, "legacy", "session", 1, id="its own server is told"),
        pytest.param(CAPABILITIES, "legacy", "session", 0, id="not one that was promised nothing"),
        pytest.param(ROOTS, "legacy", "principal", 0, id="nor one that clients share: nothing was declared there"),
        pytest.param(ROOTS, "modern", "session", 0, id="nor a modern one: 2026-07-28 knows no such notification"),
    ],
)
def test_a_clients_folders_are_others(capabilities: Any, era: Any, sharing: str, told: int) -> None:
    async def main() -> None:
        async with Asker(eras=era) as upstream, over(upstream, sharing=sharing) as gateway:
            client = await legacy_client(gateway, capabilities)
            await tell(client, CHANGED)  # nothing is open there yet: it will ask when it begins
            await call(client)
            await call(await legacy_client(gateway, capabilities))
            await tell(client, CHANGED)
            await tell(await gateway.client(), CHANGED)  # without a session
            await call(client)
            await until(lambda: len(upstream.requests(CHANGED)) == told)

    run(main)


TOKENS = ["t", 7, 2**53]


@pytest.mark.parametrize("token", TOKENS, ids=repr)
def test_a_clients_progress_reaches_the_server_that_asked(token: int | str) -> None:
    async def main() -> None:
        async with Asker(eras="legacy") as upstream, over(upstream) as gateway:
            client, live, first = await pushed(upstream, gateway)
            assert "_meta" not in first["params"]
            live.push("sampling", _meta={"progressToken": token, "a": 1.0})
            asked = await event(client)
            assert asked["params"]["_meta"] == {"progressToken": asked["id"], "a": 1.0}, "unique among all servers"
            other = await beside(gateway, client)
            await tell(other, PROGRESS, progressToken=asked["id"], progress=0.5, message="ä")
            await tell(other, PROGRESS, progressToken=first["id"], progress=1)  # nobody wanted to know
            await tell(other, PROGRESS, progressToken=str(asked["id"]), progress=1)
            for strange in (-1, 1.5, None, [asked["id"]], 10**40):
                await tell(other, PROGRESS, progressToken=strange, progress=1)
            stranger = await legacy_client(gateway)
            await tell(stranger, PROGRESS, progressToken=asked["id"], progress=1)
            await until(lambda: upstream.requests(PROGRESS))
            for question in (first, asked):
                await answer(other, question["id"], result=ANSWERS["roots"])
            await tell(other, PROGRESS, progressToken=asked["id"], progress=1)  # it is answered
            live.finish()
            assert "result" in await event(client)
            (said,) = upstream.requests(PROGRESS)
            assert said.params == {"progressToken": token, "progress": 0.5, "message": "ä"}
            await until(lambda: nothing_left(gateway))

    run(main)


def test_a_modern_client_is_given_no_token_that_it_could_use_nowhere() -> None:
    async def main() -> None:
        async with Asker(eras="legacy") as upstream, over(upstream) as gateway:
            client, live, asked = await held(upstream, gateway)
            live.push("sampling", _meta={"progressToken": 1, "a": 1})
            answers = {"1": ANSWERS["roots"]}
            again = (await ask_modern(client, retry_of(MANUAL, asked, answers))).result["inputRequests"]
            assert again["2"]["params"]["_meta"] == {"a": 1}

    run(main)


def test_lists_that_change_on_the_stream_of_a_call_are_asked_for_anew() -> None:
    async def main() -> None:
        async with Asker(eras="legacy") as upstream, over(upstream) as gateway:
            client = await legacy_client(gateway)
            assert len((await client.legacy("tools/list")).result["tools"]) == 2
            id_ = client.send("tools/call", MANUAL)
            await until(lambda: upstream.lives)
            upstream.tools = upstream.tools[:1]
            (live,) = upstream.lives
            live.send({"method": "notifications/tools/list_changed"})
            live.finish()
            assert [one.get("id") for one in (await client.read()).messages] == [id_], "that is told elsewhere"
            assert len((await client.legacy("tools/list")).result["tools"]) == 1

    run(main)


def test_an_extensions_notification_passes_whole() -> None:
    async def main() -> None:
        async with Asker(eras="legacy") as upstream, over(upstream) as gateway:
            client = await legacy_client(gateway)
            client.send("tools/call", MANUAL)
            await until(lambda: upstream.lives)
            said = {"method": "notifications/com.example.x", "params": {"a": [1.0, None]}}
            upstream.lives[0].send(said)
            upstream.lives[0].finish()
            assert (await client.read()).messages[0] == {"jsonrpc": "2.0", **said}

    run(main)


@pytest.mark.parametrize("sharing", ["tenant", "principal", "session"])
def test_after_a_restart_a_session_goes_on_unless_a_server_kept_something_for_it_alone(sharing: str) -> None:
    async def main() -> None:
        async with Asker(eras="legacy") as upstream:
            first = over(upstream, sharing=sharing)
            async with first:
                before = await legacy_client(first)
                await call(before)
            async with Running(first.servers, key=first.key) as second:
                client = await second.client()
                client.session = before.session
                params = {"name": "one__ask", "arguments": {"rounds": []}}
                for method in ("tools/list", "tools/call"):
                    got = await client.legacy(method, params if method == "tools/call" else {})
                    assert got.status == (404 if sharing == "session" else 200)
                await call(await legacy_client(second))

    run(main)
