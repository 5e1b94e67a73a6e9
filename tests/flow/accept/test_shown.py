"""What a connection has shown before changes nothing about its next request: attacked over sockets, in any order.

Each request is answered as on a connection of its own, and recorded as of the same caller, however many requests of
others came ahead of it on the same one, as behind a proxy that mixes them.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import Callable
from functools import partial

import msgspec
import pytest

from narthex.flow.accept.listener import Connection
from tests.flow.accept.test_gate import CALL, ENDPOINTS, World, served
from tests.flow.gateway import META, MODERN, Client, until

BODY = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {**CALL, "_meta": META}}).encode()
DECISION = re.compile(rb"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
BEHIND = b"\r\nGET / HTTP/1.1\r\n"
Parts = tuple[bytes, ...]
Form = Callable[[bytes, bytes], Parts]
"""Makes a request of two tokens, as it is written in parts: each is read alone."""


def post(*lines: bytes, path: bytes = b"/mcp", body: bytes = BODY) -> bytes:
    head = (
        b"POST " + path + b" HTTP/1.1", b"Host: localhost", b"Content-Type: application/json",
        b"Accept: application/json, text/event-stream", b"MCP-Protocol-Version: " + MODERN.encode(),
        b"Mcp-Method: tools/call", b"Mcp-Name: one__echo", *lines, b"Content-Length: %d" % len(body),
    )  # fmt: skip
    return b"\r\n".join(head) + b"\r\n\r\n" + body


def auth(token: bytes, name: bytes = b"Authorization: ") -> bytes:
    return name + token


def halves(data: bytes, at: bytes) -> Parts:
    """Cut in the middle of the first place that has this."""
    cut = data.index(at) + len(at) // 2
    return data[:cut], data[cut:]


FORMS: dict[str, Form] = {
    "mine": lambda a, b: (post(auth(a)),),
    "none": lambda a, b: (post(),),
    "lower": lambda a, b: (post(auth(a, b"authorization: ")),),
    "upper": lambda a, b: (post(auth(a, b"AUTHORIZATION: ")),),
    "no-blank": lambda a, b: (post(auth(a, b"Authorization:")),),
    "tab": lambda a, b: (post(auth(a, b"Authorization:\t")),),
    "blank-ahead": lambda a, b: (post(auth(a, b"Authorization : ")),),
    "blank-behind": lambda a, b: (post(auth(a) + b" "),),
    "longer": lambda a, b: (post(auth(a) + b"A"),),
    "shorter": lambda a, b: (post(auth(a)[:-1]),),
    "both": lambda a, b: (post(auth(a), auth(b)),),
    "both-turned": lambda a, b: (post(auth(b), auth(a)),),
    "both-lower": lambda a, b: (post(auth(a), auth(b, b"authorization: ")),),
    "same-twice": lambda a, b: (post(auth(a), auth(a)),),
    "folded": lambda a, b: (post(auth(a), b" " + b),),
    "fold-ahead": lambda a, b: (post(b"X-A: 1", b" " + auth(a)),),
    "bare-cr": lambda a, b: (post(auth(a) + b"\rX-A: 1"),),
    "bare-lf": lambda a, b: (post(auth(a) + b"\nX-A: 1"),),
    "lf-ahead": lambda a, b: (post(b"X-A: 1\n" + auth(a)),),
    "other-name": lambda a, b: (post(b"X-" + auth(a)),),
    "in-a-value": lambda a, b: (post(b"X-A: " + auth(a)),),
    "in-the-body": lambda a, b: (post(body=b"\r\n" + auth(a) + b"\r\n"),),
    "behind-the-head": lambda a, b: (post(auth(b), body=b"\r\n" + auth(a) + b"\r\n\r\n" + BODY),),
    "uncounted": lambda a, b: (post(body=b"{}" + BEHIND).replace(b"{}" + BEHIND, b"{}\r\n" + auth(a) + BEHIND),),
    "zero": lambda a, b: (post(auth(a) + b"\x00"),),
    "chunked-too": lambda a, b: (post(auth(a), b"Transfer-Encoding: chunked"),),
    "length-twice": lambda a, b: (post(auth(a), b"Content-Length: 2"),),
    "query": lambda a, b: (post(auth(a), path=b"/mcp?a=1"),),
    "plain": lambda a, b: (post(auth(a), path=b"/mcp/plain"),),
    "hiding": lambda a, b: (post(auth(a), path=b"/mcp/hiding"),),
    "elsewhere": lambda a, b: (post(auth(a), path=b"/nowhere"),),
    "two-at-once": lambda a, b: (post(auth(a)) + post(auth(b)),),
    "two-turned": lambda a, b: (post(auth(b)) + post(auth(a)),),
    "second-without": lambda a, b: (post(auth(a)) + post(),),
    "cut-in-token": lambda a, b: halves(post(auth(a)), a),
    "cut-in-name": lambda a, b: halves(post(auth(a)), b"Authorization"),
    "cut-behind": lambda a, b: halves(post(auth(a)), b"\r\n\r\n"),
    "cut-body": lambda a, b: halves(post(auth(a)), BODY),
    "rest-is-head": lambda a, b: halves(post(auth(b), body=b"\r\n" + auth(a) + b"\r\n"), b"\r\n\r\n"),
}  # fmt: skip


async def asked(world: World, client: Client, parts: Parts) -> tuple[list[object], bool]:
    """What is answered, each as its status and what stands in it, and whether the connection is open still."""
    count = sum(one.count(b"HTTP/1.1\r\n") for one in parts)
    found: list[object] = []
    for part in parts[:-1]:
        client.writer.write(part)
        await until(lambda: any(not one.fresh for one in of_peer(world, client)))
    client.writer.write(parts[-1])
    for _ in range(count):
        try:
            answer = await client.read()
        except (asyncio.IncompleteReadError, ConnectionError):
            return found, False
        found.append((answer.status, answer.headers.get("www-authenticate"), DECISION.sub(b"", answer.body)))
        if answer.headers.get("connection") == "close":
            return found, False
    return found, True


def of_peer(world: World, client: Client) -> list[Connection]:
    """The gateway's side of its connection, once that is accepted."""
    name = client.writer.get_extra_info("sockname")[:2]
    return [one for one in world.gateway.shared.connections if one.peer == name]


@pytest.mark.parametrize("seed", range(4))
def test_a_connection_of_many_callers_answers_each_as_one_of_its_own(seed: int) -> None:
    async def work(world: World) -> None:
        chance = random.Random(seed)
        recorded: list[str] = []
        world.gateway.front.record = lambda entry: recorded.append(entry.principal.subject)
        tokens = [
            world.token(name, scope=scope)["Authorization"].encode()
            for name, scope in (("alice", "mcp"), ("bob", "mcp"), ("carol", "other"))
        ] + [b"Bearer nx_abcdefgh_robot", b"Bearer none"]
        shared = await world.gateway.client()
        for _ in range(150):
            a, b = chance.sample(tokens[:4], 2) if chance.random() < 0.9 else chance.sample(tokens, 2)
            for _ in range(chance.choice((0, 0, 1, 3))):
                await asked(world, shared, FORMS["mine"](a, b))
            name = chance.choice(list(FORMS))
            parts = FORMS[name](a, b)
            recorded.clear()
            found = await asked(world, shared, parts), recorded.copy()
            alone = await world.gateway.client()
            recorded.clear()
            assert found == (await asked(world, alone, parts), recorded.copy()), name
            alone.close()
            if not found[0][1]:
                shared.close()
                shared = await world.gateway.client()
        shared.close()

    served(work)


@pytest.mark.parametrize("seed", range(4))
def test_what_changes_between_two_requests_counts_for_the_next(seed: int) -> None:
    """Time that goes by, a reload that asks for other scopes: an old connection is answered as a new one, and whoever
    is refused there is refused here."""

    async def work(world: World) -> None:
        gateway, chance = world.gateway, random.Random(seed)
        front, recorded, refused = gateway.front, list[str](), 0
        front.record = lambda entry: recorded.append(entry.principal.subject)
        held = {"alice": b"", "bob": b"", "carol": b""}

        def reload() -> None:
            scopes = chance.choice((("mcp",), ("other",), ()))
            endpoints = {**ENDPOINTS, "default": msgspec.structs.replace(ENDPOINTS["default"], base_scopes=scopes)}
            snapshot = msgspec.structs.replace(front.snapshot, endpoints=endpoints)
            assert gateway.identify is not None
            front.apply(snapshot, gateway.identify(snapshot))

        def renew() -> None:
            for name in held:
                scope = "other" if name == "carol" else "mcp"
                held[name] = world.token(name, scope=scope, exp=world.clock.wall() + 120)["Authorization"].encode()

        renew()
        shared = await gateway.client()
        for _ in range(80):
            name = chance.choice(list(held))
            if chance.random() < 0.5:
                renew()
            for _ in range(chance.choice((1, 4, 5))):
                await asked(world, shared, FORMS["mine"](held[name], b""))
            chance.choice((reload, partial(world.clock.advance, 200), lambda: None))()
            form = FORMS[chance.choice(("mine", "plain", "hiding", "cut-in-token"))](held[name], b"")
            recorded.clear()
            found = await asked(world, shared, form), recorded.copy()
            alone = await gateway.client()
            recorded.clear()
            assert found == (await asked(world, alone, form), recorded.copy())
            alone.close()
            refused += not found[1]
        assert refused, "not all of it is let in"

    served(work)
