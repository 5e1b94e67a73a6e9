"""How a server's era is found, kept and found anew, over real servers whose era changes under us."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from narthex.errors import UpstreamUnavailable
from narthex.flow.held import Held
from narthex.flow.upstream.dial import Dialer
from narthex.flow.upstream.era import AGAIN_S, DOUBT_S, Verdict
from narthex.flow.upstream.port import Behalf, Channel
from narthex.flow.upstream.server import Server
from narthex.testing import FakeClock, FakeServer
from narthex.types import Egress, ServerSpec
from tests.flow.gateway import run, spec, until
from tests.flow.upstream.test_era import LEGACY_S, MODERN_S
from tests.flow.upstream.test_http import CLOSE, Scripted, Step, answer, rpc
from tests.flow.upstream.test_negotiate import ACCEPTED, INITIALIZED, NO_METHOD
from tests.flow.upstream.test_sse import Scripted as OldServer
from tests.flow.upstream.test_stdio import DISCOVERED, ECHO
from tests.flow.upstream.test_stdio import spec as stdio_spec

TOOLS: list[dict[str, Any]] = [{"name": name, "inputSchema": {}} for name in "abc"]
SCOPE = ("t", "", "i", "s", "c")
SESSION = (*SCOPE, "session-1")


class Rig:
    """A server, a clock for it, and what it was asked to hear."""

    def __init__(self, target: Any, **options: Any) -> None:
        settings = options.pop("settings", {})
        self.clock = FakeClock(1000.0)
        self.changes = 0
        self.server = Server(
            spec("one", target, **settings) if isinstance(target, str) else target,
            Dialer(Egress(proxy=None)), Held(1 << 30), clock=self.clock, now=self.clock.wall, chance=lambda: 0.5,
            on_change=self._changed, **options,
        )  # fmt: skip

    def _changed(self) -> None:
        self.changes += 1

    @property
    def spoken(self) -> str | None:
        return self.server.verdict.spoken if self.server.verdict is not None else None

    async def sweep(self, after_s: float = 0.0) -> None:
        self.clock.advance(after_s)
        await asyncio.gather(*self.server.sweep())

    async def names(self, scope: Any = SCOPE) -> list[str]:
        return [name for name, _ in (await self.server.fetch(scope, "tools")).items]


@asynccontextmanager
async def rig(target: Any, **options: Any) -> AsyncIterator[Rig]:
    one = Rig(target, **options)
    try:
        yield one
    finally:
        await one.server.close()


def is_alive(channel: Channel) -> bool:
    return channel.alive


async def keep_busy(one: Rig, scope: Any = SCOPE) -> Channel:
    """An open channel that no idle time closes."""
    channel = await one.server.open(scope)
    channel.open_calls += 1
    return channel


# --- a verdict that is due


def test_a_legacy_server_that_has_become_modern_is_found_out_and_calls_end_in_peace() -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS, eras="legacy") as server, rig(server.url) as one:
            old = await keep_busy(one)
            server.eras = "dual"
            await one.sweep(LEGACY_S - 1)
            assert one.server.ready(SCOPE) is old
            await one.sweep(1)
            assert one.spoken == "modern"
            assert one.server.ready(SCOPE) is None
            assert is_alive(old), "its call goes on"
            new = await one.server.open(SCOPE)
            assert new.dialect.era == "modern"
            old.open_calls -= 1
            await one.sweep()
            assert not is_alive(old)
            assert not server.sessions, "the server is told"

    run(main)


def test_a_call_that_never_ends_keeps_the_old_channel_for_its_time_only() -> None:
    async def main() -> None:
        async with FakeServer(eras="legacy") as server, rig(server.url, settings={"call_timeout_s": 60.0}) as one:
            old = await keep_busy(one)
            server.eras = "dual"
            await one.sweep(LEGACY_S)
            await one.sweep(59)
            assert old.alive
            await one.sweep(1)
            assert not old.alive

    run(main)


def test_a_session_that_a_client_has_lives_on_in_its_era() -> None:
    async def main() -> None:
        async with FakeServer(eras="legacy") as server, rig(server.url, settings={"sharing": "session"}) as one:
            old = await keep_busy(one, SESSION)
            server.eras = "dual"
            await one.sweep(LEGACY_S)
            assert one.spoken == "modern"
            assert one.server.ready(SESSION) is old

    run(main)


@pytest.mark.parametrize(("eras", "lasts_s"), [("legacy", LEGACY_S), ("modern", MODERN_S)])
def test_a_server_that_stays_what_it_is_is_asked_and_nothing_changes(eras: Any, lasts_s: float) -> None:
    async def main() -> None:
        async with FakeServer(eras=eras) as server, rig(server.url) as one:
            channel = await keep_busy(one)
            await one.sweep(lasts_s - 1)
            assert len(server.requests("server/discover")) == 1
            await one.sweep(1)
            assert len(server.requests("server/discover")) == 2
            await one.sweep(1)
            assert len(server.requests("server/discover")) == 2
            assert one.server.ready(SCOPE) is channel
            verdict = one.server.verdict
            assert verdict is not None
            assert verdict.checked_at - verdict.since == lasts_s

    run(main)


@pytest.mark.parametrize("eras", ["legacy", "modern"])
def test_how_long_a_verdict_holds_is_the_operators_to_say(eras: Any) -> None:
    settings = {"era_legacy_ttl_s": 100.0, "era_modern_ttl_s": 100.0}

    async def main() -> None:
        async with FakeServer(eras=eras) as server, rig(server.url, settings=settings) as one:
            await keep_busy(one)
            await one.sweep(99)
            assert len(server.requests("server/discover")) == 1
            await one.sweep(1)
            assert len(server.requests("server/discover")) == 2

    run(main)


class Eras:
    """What is kept over a restart."""

    def __init__(self) -> None:
        self.kept: dict[str, Verdict] = {}

    def known(self, spec: ServerSpec) -> Verdict | None:
        return self.kept.get(spec.name)

    def keep(self, spec: ServerSpec, verdict: Verdict) -> None:
        self.kept[spec.name] = verdict


@pytest.mark.parametrize("eras", ["legacy", "modern"])
def test_what_was_found_is_known_after_a_restart(eras: Any) -> None:
    async def main() -> None:
        kept = Eras()
        async with FakeServer(eras=eras) as server:
            async with rig(server.url, eras=kept) as one:
                await one.server.open(SCOPE)
                found = one.server.verdict
                assert found is not None
                assert kept.kept == {"one": found}
            asked = len(server.requests("server/discover"))
            async with rig(server.url, eras=kept) as one:
                assert one.server.verdict == found
                await one.server.open(SCOPE)
                assert len(server.requests("server/discover")) == asked + (eras == "modern")
                assert one.server.verdict is not None
                assert one.server.verdict.since == found.since
        other: Any = "modern" if eras == "legacy" else "legacy"
        async with FakeServer(eras=other) as server, rig(server.url, eras=kept) as one:
            await one.server.open(SCOPE)
            assert one.spoken == kept.kept["one"].spoken == other, "a hint, and no more"

    run(main)


def test_who_is_not_used_is_not_asked() -> None:
    async def main() -> None:
        async with FakeServer(eras="legacy") as server, rig(server.url) as one:
            await one.server.open(SCOPE)
            await one.sweep(LEGACY_S)  # closes the idle channel
            await one.sweep()
            asked = len(server.requests("server/discover"))
            await one.sweep(1)
            assert len(server.requests("server/discover")) == asked
            await one.server.open(SCOPE)
            assert len(server.requests("server/discover")) == asked + 1, "an opening asks"

    run(main)


@pytest.mark.parametrize("era", ["legacy", "modern"])
def test_a_configured_era_is_never_asked_for(era: Any) -> None:
    async def main() -> None:
        async with FakeServer(eras="dual") as server, rig(server.url, settings={"era": era}) as one:
            await keep_busy(one)
            await one.sweep(2 * MODERN_S)
            assert one.spoken == era
            assert one.server.verdict is not None
            assert one.server.verdict.how == "configured"
            assert len(server.requests("server/discover")) == (era == "modern")

    run(main)


# --- what is no verdict


@pytest.mark.parametrize("script", [(answer(b"", "401 No"),), (answer(b"", "403 No"),), (answer(b"", "500 No"),),
                                    (answer(b"", "429 No"),), (CLOSE,)])  # fmt: skip
def test_a_probe_that_says_nothing_leaves_the_verdict(script: tuple[Step, ...]) -> None:
    legacy = answer(rpc(1, result=INITIALIZED), "200 OK", "Mcp-Session-Id: s-1")

    async def main() -> None:
        scripts = ((answer(NO_METHOD),), (legacy,), ACCEPTED, script)
        async with Scripted(*scripts) as server, rig(f"http://127.0.0.1:{server.port}/mcp") as one:
            channel = await keep_busy(one)
            asked = len(server.requests)
            await one.sweep(LEGACY_S)
            assert len(server.requests) == asked + 1
            assert one.spoken == "legacy"
            assert one.server.ready(SCOPE) is channel
            await one.sweep(AGAIN_S - 1)
            assert len(server.requests) == asked + 1, "not asked again at once"
            await one.sweep(1)
            assert len(server.requests) == asked + 2

    run(main)


@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden"])
def test_a_refused_credential_casts_no_doubt(status: str) -> None:
    legacy = answer(rpc(1, result=INITIALIZED))

    async def main() -> None:
        scripts: tuple[tuple[Step, ...], ...] = ((answer(NO_METHOD),), (legacy,), ACCEPTED, (answer(b"", status),))
        async with Scripted(*scripts) as server, rig(f"http://127.0.0.1:{server.port}/mcp") as one:
            await one.server.open(SCOPE)
            one.clock.advance(DOUBT_S)
            for scope in ("a", "b"):
                with pytest.raises(UpstreamUnavailable, match="credential"):
                    await one.server.open((scope,))
            methods = [b"initialize" in body for *_, body, _ in server.requests]
            assert methods[-2:] == [True, True], "it is asked as what it is known to be"
            assert one.spoken == "legacy"

    run(main)


# --- one probe at a time


def test_many_who_open_at_once_ask_once() -> None:
    async def main() -> None:
        async with FakeServer(eras="legacy") as server, rig(server.url) as one:
            await asyncio.gather(*(one.server.open((str(n),)) for n in range(10)))
            assert len(server.requests("server/discover")) == 1
            assert len(server.requests("initialize")) == 10

    run(main)


def test_the_old_verdict_serves_while_it_is_checked() -> None:
    async def main() -> None:
        async with FakeServer(eras="legacy") as server, rig(server.url) as one:
            await keep_busy(one)
            one.clock.advance(LEGACY_S)
            probing, *rest = one.server.sweep()
            assert not rest
            probe = asyncio.ensure_future(probing)
            await asyncio.sleep(0)
            channel = await one.server.open(("other",))
            assert channel.dialect.era == "legacy"
            await probe
            assert [one_.method for one_ in server.asked].count("server/discover") == 2

    run(main)


# --- what a failure finds out


def test_a_modern_server_that_has_become_a_legacy_one_is_found_out_by_a_list() -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS, eras="modern") as server, rig(server.url) as one:
            old = await one.server.open(SCOPE)
            assert await one.names() == list("abc")
            server.eras = "legacy"
            one.clock.advance(100)
            assert await one.names() == list("abc"), "whoever asks need not know"
            assert one.spoken == "legacy"
            new = one.server.ready(SCOPE)
            assert new is not None
            assert (old.dialect.era, new.dialect.era) == ("modern", "legacy")

    run(main)


def test_a_call_that_is_answered_oddly_has_its_channel_looked_into() -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS, eras="modern") as server, rig(server.url) as one:
            old = await keep_busy(one)
            server.eras = "legacy"
            one.server.doubt(old, -32602)
            await one.sweep(DOUBT_S)
            assert one.spoken == "modern", "any server may say this"
            one.server.doubt(old, -32000)
            await one.sweep()
            assert one.spoken == "legacy"
            assert one.server.ready(SCOPE) is None

    run(main)


def test_a_code_that_a_server_gives_for_everything_costs_a_question_now_and_then() -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS, eras="legacy") as server, rig(server.url) as one:
            channel = await keep_busy(one)
            for _ in range(30):
                one.server.doubt(channel, -32000)
                await one.sweep(1)
            assert 2 <= len(server.requests("ping")) <= 30 / DOUBT_S + 1
            assert one.server.ready(SCOPE) is channel

    run(main)


def test_a_session_that_a_server_has_forgotten_without_saying_404_is_opened_anew() -> None:
    class Sloppy(FakeServer):
        async def _answer(self, asked: Any, extra: dict[str, str]) -> dict[str, Any]:
            if asked.headers.get("mcp-session-id", "") not in {"", *self.sessions}:
                asked = type(asked)(asked.verb, asked.path, {}, asked.body, asked.message)  # 400, -32000
            return await super()._answer(asked, extra)

    async def main() -> None:
        async with Sloppy(tools=TOOLS, eras="legacy") as server, rig(server.url) as one:
            assert await one.names() == list("abc")
            server.forget_sessions()
            one.clock.advance(100)
            assert await one.names() == list("abc")
            assert len(server.requests("initialize")) == 2

    run(main)


def test_a_legacy_server_that_has_become_modern_only_is_found_out_at_the_next_opening() -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS, eras="legacy") as server, rig(server.url) as one:
            await one.names()
            server.forget_sessions()
            server.eras = "modern"
            one.clock.advance(100)
            assert await one.names() == list("abc")
            assert one.spoken == "modern"

    run(main)


# --- the old transport


def test_the_old_transport_is_remembered_and_left_when_it_is_gone() -> None:
    async def main() -> None:
        async with OldServer() as old:
            refuses_post = answer(b"", "405 No")

            async def post(writer: asyncio.StreamWriter, message: Any) -> None:
                line, *_ = old.requests[-1]
                if line.startswith("POST /sse"):
                    writer.write(refuses_post)
                else:
                    writer.write(answer(b"", "202 Accepted", kind=None))
                    await old.take(message)

            old.post = post  # type: ignore[method-assign]
            async with rig(f"http://127.0.0.1:{old.port}/sse") as one:
                channel = await one.server.open(SCOPE)
                assert one.spoken == "sse"
                posts = sum(line.startswith("POST /sse") for line, *_ in old.requests)
                assert posts == 2, "a modern request, then initialize"
                channel.alive = False
                await one.server.open(SCOPE)
                assert sum(line.startswith("POST /sse") for line, *_ in old.requests) == posts
                await one.sweep(LEGACY_S)
                assert one.spoken == "sse"
                old.stream_head = answer(b"", "405 No")
                old.endpoint = ""
                with pytest.raises(UpstreamUnavailable):
                    await one.server.open(("other",))
                tried = [line.split()[0] for line, *_ in old.requests[-4:]]
                assert tried.count("GET") >= 1
                assert tried.count("POST") >= 2, "it may speak Streamable HTTP by now"

    run(main)


# --- stdio


def test_a_process_that_is_known_as_legacy_is_spared_the_probe(tmp_path: Any) -> None:
    script = f"""
log = open({str(tmp_path / "log")!r}, "a")
while True:
    message = read()
    print(message["method"], file=log, flush=True)
    if message["method"] == "initialize":
        greet(message)
    elif "id" in message:
        fail(message)
"""

    async def main() -> None:
        async with rig(stdio_spec(script, sharing="tenant")) as one:
            first = await one.server.open(SCOPE)
            await first.close()
            await one.sweep()
            await one.server.open(SCOPE)
            await until(lambda: (tmp_path / "log").read_text().count("initialized") == 2)
            said = (tmp_path / "log").read_text().split()
            assert said.count("server/discover") == 1
            one.clock.advance(LEGACY_S)
            second = one.server.ready(SCOPE)
            assert second is not None
            await second.close()
            await one.server.open(SCOPE)
            await until(lambda: (tmp_path / "log").read_text().count("initialized") == 3)
            assert (tmp_path / "log").read_text().split().count("server/discover") == 2

    run(main)


def test_a_process_that_is_legacy_no_more_is_asked_after_all(tmp_path: Any) -> None:
    script = f"""
import os
modern = os.path.exists({str(tmp_path / "modern")!r})
while True:
    message = read()
    if message["method"] == ("server/discover" if modern else "initialize"):
        if modern:
            send(id=message["id"], result={DISCOVERED.replace("true", "True")})
            break
        greet(message)
    elif "id" in message:
        fail(message)
{ECHO}
"""

    async def main() -> None:
        async with rig(stdio_spec(script, sharing="tenant")) as one:
            first = await one.server.open(SCOPE)
            assert first.dialect.era == "legacy"
            (tmp_path / "modern").touch()
            await first.close()
            second = await one.server.open(SCOPE)
            assert second.dialect.era == "modern"
            assert one.spoken == "modern"

    run(main)


# --- on whose behalf


@pytest.mark.parametrize(
    ("sharing", "scope", "behalf"),
    [
        ("session", SESSION, Behalf({"roots": {}, "experimental": {}}, True)),
        ("session", (*SESSION, "bits"), Behalf({"roots": {}, "experimental": {}}, True)),
        pytest.param("session", SCOPE, Behalf({"experimental": {}}, False), id="a client without a session"),
        pytest.param("principal", SESSION, Behalf({"experimental": {}}, False), id="not a session's, however long"),
        ("tenant", ("t",), Behalf({"experimental": {}}, False)),
    ],
)
def test_what_a_server_may_ask_is_declared_for_one_session_alone(sharing: Any, scope: Any, behalf: Behalf) -> None:
    async def main() -> None:
        declares: dict[str, Any] = {"roots": {}, "experimental": {}}
        async with (
            FakeServer(eras="legacy") as server,
            rig(server.url, settings={"sharing": sharing}, declares=lambda _: declares) as one,
        ):
            assert one.server.behalf(scope) == behalf
            await one.server.open(scope)
            assert server.requests("initialize")[0].params["capabilities"] == behalf.capabilities

    run(main)
