"""What a hostile client writes as names and URIs becomes no label: `/metrics` stays as short, and keeps no secret."""

from __future__ import annotations

import asyncio

import pytest

from narthex.telemetry.behaviour import UNKNOWN
from narthex.telemetry.exposition import render
from narthex.testing import FakeServer
from narthex.types import Grant
from tests.flow.gateway import Client, Running, run, spec

MANY = 10_000
CANARY = "kanari-7f3a9c2e41d8"
TOOLS = [{"name": name, "inputSchema": {"type": "object"}} for name in ("echo", "drop", "hidden")]
GRANTS = (
    Grant("some", "allow", tools=("one__echo", "one__drop"), resources=("*",), prompts=("*",)),
    Grant("not that", "deny", tools=("one__drop",), when="args.really == true"),
)
TEMPLATES = [{"name": "file", "uriTemplate": "file:///{path}"}]


def exposition(gateway: Running) -> str:
    return b"".join(render(gateway.accounts.families())).decode()


def rows(gateway: Running) -> dict[tuple[str, str], tuple[int, int]]:
    """By server and name: how many went well, how many were refused."""
    found = gateway.front.behaviour.rows.items()
    return {key[3:]: (row.ok, row.refused) for key, row in found}


async def ask(client: Client, name: str, **arguments: object) -> None:
    await client.modern("tools/call", {"name": name, "arguments": arguments})


def test_ten_thousand_names_are_one() -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS) as server, Running({"one": spec("one", server.url)}) as gateway:
            client = await gateway.client()
            await ask(client, "one__echo")
            await ask(client, f"one__{CANARY}")
            before = exposition(gateway)
            for number in range(MANY):
                await ask(client, f"one__{CANARY}-{number}")
            after = exposition(gateway)
            assert after.count("\n") == before.count("\n")
            assert CANARY not in after
            assert rows(gateway) == {("one", "echo"): (1, 0), ("", UNKNOWN): (0, MANY + 1)}

    asyncio.run(asyncio.wait_for(main(), 300))


@pytest.mark.parametrize("method", ["resources/read", "completion/complete", "prompts/get"])
def test_neither_is_what_else_a_client_names(method: str) -> None:
    async def main() -> None:
        server = FakeServer(tools=TOOLS, templates=TEMPLATES)
        async with server, Running({"one": spec("one", server.url)}) as gateway:
            client, uri = await gateway.client(), f"file:///{CANARY}"
            ref = {"type": "ref/resource", "uri": uri}
            params = {"uri": uri, "name": CANARY, "ref": ref, "argument": {"name": "path", "value": CANARY}}
            await client.modern(method, params)
            shown = exposition(gateway)
            assert f'method="{method}"' in shown
            assert CANARY not in shown

    run(main)


def test_a_method_of_any_text_is_refused_under_one_label() -> None:
    async def main() -> None:
        async with Running({}) as gateway:
            client = await gateway.client()
            for number in range(20):
                await client.modern(f"{CANARY}/{number}")
            assert CANARY not in exposition(gateway)

    run(main)


def test_what_is_refused_counts_by_its_name_where_the_caller_sees_it() -> None:
    async def main() -> None:
        settings = {"grants": GRANTS}
        server = FakeServer(tools=TOOLS)
        async with server, Running({"one": spec("one", server.url)}, settings=settings) as gateway:
            client = await gateway.client()
            await ask(client, "one__echo")
            await ask(client, "one__drop", really=True)
            await ask(client, "one__hidden")
            await ask(client, "one__missing")
            assert rows(gateway) == {("one", "echo"): (1, 0), ("one", "drop"): (0, 1), ("", UNKNOWN): (0, 2)}
            assert gateway.counted("tools/call", "drop") == {"denied": 1}
            assert "hidden" not in exposition(gateway) and "missing" not in exposition(gateway)
            assert gateway.accounts.called() == {"one": {"echo"}}, "who was refused has not used it"

    run(main)
