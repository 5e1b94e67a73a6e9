"""Who is let in at a real server, over what, and which servers are refused; what passwords never show up in."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from narthex.store.shared.connection import LARGEST, Connection
from narthex.types import LimitRule, SharedSpec
from tests.conftest import missing
from tests.counterparts import keeper
from tests.counterparts.ports import Port
from tests.store.shared.rig import Gateway

CALLS = LimitRule("calls", "calls", 3, window=3_600_000_000)
each_kind = pytest.mark.parametrize("kind", keeper.KINDS)


def started(kind: str, folder: Path, *options: str) -> Any:
    if keeper.program(kind) is None:
        missing(kind, keeper.INSTALLED_BY[kind])
    return keeper.serving(kind, folder, *options)


async def problem(spec: SharedSpec, password: str = "") -> str:
    """Why not; empty where calls are counted."""
    async with Gateway(spec, (CALLS,), password=password) as one:
        if not one.counters.problem:
            assert await one.granted(times=5) == 3
        return one.counters.problem


@each_kind
def test_a_user_who_may_do_what_the_guide_lists(kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    guide = Path(__file__).parents[3] / "docs" / "guides" / "shared-limits.md"
    rules = guide.read_text().split("ACL SETUSER gateway on >… ~narthex:* ")[1].split("```")[0].split()
    with started(kind, tmp_path, "--requirepass", "PLANTED-1") as server:
        client = server.client()
        client("AUTH", "PLANTED-1")
        client("ACL", "SETUSER", "gateway", "on", ">PLANTED-2", "~narthex:*", *rules)
        spec = SharedSpec("127.0.0.1", server.port, timeout_s=10.0)
        caplog.set_level(logging.DEBUG)

        async def main() -> None:
            assert await problem(spec, "PLANTED-1") == ""
            client("FLUSHALL")
            assert await problem(replace(spec, username="gateway"), "PLANTED-2") == ""
            wrong = await problem(replace(spec, username="gateway"), "PLANTED-3")
            assert wrong == "it does not know this username and password"
            assert "password" in await problem(spec)
            other = await problem(replace(spec, username="gateway", prefix="other"), "PLANTED-2")
            assert "may not" in other

        asyncio.run(main())
        client.close()
    assert "PLANTED" not in caplog.text


@each_kind
def test_databases_and_prefixes_are_counted_apart(kind: str, tmp_path: Path) -> None:
    with started(kind, tmp_path) as server:
        spec = SharedSpec("127.0.0.1", server.port, timeout_s=10.0)

        async def main() -> None:
            for one in (spec, replace(spec, database=3), replace(spec, prefix="other")):
                assert await problem(one) == ""

        asyncio.run(main())


@each_kind
def test_a_cluster_and_a_replica_are_refused(kind: str, tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
    bus = Port()
    cluster = ("--cluster-enabled", "yes", "--cluster-port", str(bus.number))
    with started(kind, tmp_path / "a", *cluster) as server:
        assert "cluster" in asyncio.run(problem(SharedSpec("127.0.0.1", server.port)))
    with started(kind, tmp_path / "b", "--replicaof", "127.0.0.1 1") as server:
        assert "replica" in asyncio.run(problem(SharedSpec("127.0.0.1", server.port)))


def test_something_else_that_listens_is_no_server(tmp_path: Path) -> None:
    async def main() -> None:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(100)
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            await reader.read()
            writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        found = await problem(SharedSpec("127.0.0.1", server.sockets[0].getsockname()[1]))
        assert "does not speak RESP" in found
        server.close()

    asyncio.run(main())


def test_an_answer_without_an_end_ends_the_connection() -> None:
    class Transport(asyncio.Transport):
        def write(self, data: Any) -> None: ...

        def abort(self) -> None: ...

    why: list[str] = []
    connection = Connection(why.append)
    connection.connection_made(Transport())
    connection.send(b"", lambda _: None)
    connection.data_received(b"$536870911\r\n")
    while connection.alive:
        connection.data_received(b"x" * (LARGEST // 4))
    assert why == ["its answer is too large"]
