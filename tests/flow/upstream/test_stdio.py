"""A server over stdio: real processes, one small script for each thing that a server may do. Under both event loops."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from narthex.errors import ContentBlocked, GatewayError, Overloaded, UpstreamUnavailable
from narthex.flow.codec.jsonrpc import Incoming, encode_result
from narthex.flow.upstream.port import Behalf, Channel, Outgoing
from narthex.flow.upstream.process import STDERR_KEPT, StderrTail, child_environment
from narthex.flow.upstream.stdio import LineBuffer, LineTooLong, StdioChannel, open_stdio
from narthex.types import ServerSpec, StdioTarget

Run = Callable[[Coroutine[Any, Any, None]], None]
DEADLINE_S = 20.0

PRELUDE = r"""
import json, os, signal, subprocess, sys, time
def read():
    line = sys.stdin.readline()
    if not line:
        sys.exit(0)
    return json.loads(line)
def send(**message):
    print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)
def fail(message, code=-32601):
    send(id=message["id"], error={"code": code, "message": "no"})
def greet(message, version="2025-11-25"):
    info = {"name": "scripted", "version": "1"}
    send(id=message["id"], result={"protocolVersion": version, "capabilities": {}, "serverInfo": info})
def legacy():
    # Ends with `initialized`; a probe before it gets an error.
    while True:
        message = read()
        if message["method"] == "initialize":
            greet(message)
        elif message["method"] == "notifications/initialized":
            return
        else:
            fail(message)
def child(code):
    return subprocess.Popen([sys.executable, "-c", code]).pid
"""
ECHO = """
while True:
    message = read()
    if "id" in message:
        send(id=message["id"], result={"got": message})
"""
DISCOVERED = '{"resultType": "complete", "supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}}'
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"


@pytest.fixture(params=[None, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    def go(coroutine: Coroutine[Any, Any, None]) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(60):
                await coroutine

        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(bounded())

    return go


def spec(script: str, *, era: Any = "auto", env: dict[str, str] | None = None, **options: Any) -> ServerSpec:
    cwd = options.pop("cwd", None)
    args = ("-S", "-c", PRELUDE + script, *options.pop("args", ()))
    target = StdioTarget(sys.executable, args, env=tuple((env or {}).items()), cwd=cwd)
    return ServerSpec("scripted", target, "stdio", era=era, **options)


class Opened:
    """A channel that is closed at the end, and what was pushed over it."""

    def __init__(self, server: ServerSpec, deadline_s: float = DEADLINE_S, **options: Any) -> None:
        self.pushed: list[Incoming] = []
        self._server = server
        self._deadline_s = deadline_s
        self._options = options

    def _push(self, channel: Channel, message: Incoming) -> None:
        assert channel is self._channel
        self.pushed.append(message)

    async def __aenter__(self) -> tuple[StdioChannel, list[Incoming]]:
        self._channel = await open_stdio(
            self._server, on_push=self._push, log=logging.getLogger("test"), deadline_s=self._deadline_s,
            **self._options,
        )  # fmt: skip
        return self._channel, self.pushed

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close()
        await until(lambda: gone(self._channel.pid))
        assert reaped(self._channel.pid)


async def refusal(server: ServerSpec, deadline_s: float = DEADLINE_S) -> UpstreamUnavailable:
    """The error with which opening fails."""
    with pytest.raises(UpstreamUnavailable) as caught:
        async with Opened(server, deadline_s):
            pass
    assert not caught.value.sent
    return caught.value


class Recorder:
    """A sink that keeps what comes."""

    def __init__(self) -> None:
        self.messages: list[Incoming] = []
        self.ends: list[GatewayError | None] = []
        self.over = asyncio.Event()

    def started(self, streaming: bool) -> None: ...

    def message(self, message: Incoming) -> None:
        assert not self.ends
        self.messages.append(message)

    def splice(self, head: bytes, total: int) -> bool:
        return False

    def chunk(self, data: bytes) -> None: ...

    def finished(self) -> None:
        self.ends.append(None)
        self.over.set()

    def failed(self, error: GatewayError) -> None:
        self.ends.append(error)
        self.over.set()

    async def result(self) -> Any:
        await self.over.wait()
        assert self.ends == [None]
        return json.loads(bytes(self.messages[-1].result))

    async def error(self) -> GatewayError:
        await self.over.wait()
        assert len(self.ends) == 1
        assert self.ends[0] is not None
        return self.ends[0]


def ask(channel: StdioChannel, method: str = "tools/call", **params: Any) -> tuple[Recorder, Any]:
    """Send a request; its sink and its flight."""
    id_ = channel.next_id()
    sink = Recorder()
    body = json.dumps({"jsonrpc": "2.0", "id": id_, "method": method, "params": params}).encode()
    return sink, channel.request(Outgoing(id_, method, body), sink)


def gone(pid: int) -> bool:
    """No such process, or only its entry is left for somebody else to reap."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return not Path(f"/proc/{os.getpid()}").exists() or not Path(f"/proc/{pid}").exists()


def reaped(pid: int) -> bool:
    """It is no zombie of ours."""
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    return True


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.01)


# --- what it speaks

MODERN = f"""
while True:
    message = read()
    if message["method"] == "server/discover":
        send(id=message["id"], result={DISCOVERED})
    elif "id" in message:
        fail(message)
"""
SLOW_MODERN = f"""
first, second = read(), read()  # discovery, and the handshake that its silence brought about
send(id=first["id"], result={DISCOVERED})
fail(second, -32600)
{ECHO}
"""
LEGACY_ONLY = f"legacy()\n{ECHO}"
SILENT_LEGACY = f"""
message = read()
while message["method"] != "initialize":
    message = read()
greet(message, "2024-11-05")
{ECHO}
"""
DIES_OF_DISCOVERY = f"""
message = read()
if message["method"] != "initialize":
    sys.exit("unknown method")
greet(message)
{ECHO}
"""
REFUSES_THEN_DIES = f"""
message = read()
if message["method"] != "initialize":
    fail(message)
    sys.exit(3)
greet(message)
{ECHO}
"""
DISCOVERS_LEGACY = f"""
message = read()
send(id=message["id"], result={{"supportedVersions": ["2025-11-25"]}})
legacy()
{ECHO}
"""


@pytest.mark.parametrize(
    ("script", "era", "version", "restarts", "deadline_s"),
    [
        pytest.param(MODERN, "auto", "2026-07-28", 0, DEADLINE_S, id="discovery succeeds"),
        pytest.param(MODERN, "modern", "2026-07-28", 0, DEADLINE_S, id="modern is asked for"),
        pytest.param(SLOW_MODERN, "auto", "2026-07-28", 0, DEADLINE_S, id="discovery counts after its time"),
        pytest.param(LEGACY_ONLY, "auto", "2025-11-25", 0, DEADLINE_S, id="an error means legacy"),
        pytest.param(LEGACY_ONLY, "legacy", "2025-11-25", 0, DEADLINE_S, id="legacy is asked for"),
        pytest.param(SILENT_LEGACY, "auto", "2024-11-05", 0, DEADLINE_S, id="silence means legacy"),
        pytest.param(DISCOVERS_LEGACY, "auto", "2025-11-25", 0, DEADLINE_S, id="discovery of legacy versions alone"),
        pytest.param(DIES_OF_DISCOVERY, "auto", "2025-11-25", 1, DEADLINE_S, id="a death means legacy, started again"),
        pytest.param(REFUSES_THEN_DIES, "auto", "2025-11-25", 1, DEADLINE_S, id="an error and then a death"),
    ],
)
def test_finds_out_what_a_server_speaks(
    run: Run, script: str, era: str, version: str, restarts: int, deadline_s: float
) -> None:
    async def scenario() -> None:
        async with Opened(spec(script, era=era), deadline_s) as (channel, _):
            assert channel.dialect.version == version
            assert channel.dialect.era == ("modern" if version == "2026-07-28" else "legacy")
            assert channel.restarts == restarts
            assert channel.alive
            assert abs(channel.started_at - time.time()) < 60

    run(scenario())


@pytest.mark.parametrize(
    ("script", "era", "said"),
    [
        pytest.param("greet(read(), '1999-01-01')\nread()", "legacy", "1999-01-01", id="a version that nobody speaks"),
        pytest.param("fail(read(), -32022)\nread()", "modern", "-32022", id="modern refused"),
        pytest.param("while True: fail(read(), -32603)", "auto", "-32603", id="both refused"),
        pytest.param("send(id=read()['id'], result=[])\nread()", "legacy", "object", id="a result of another form"),
        pytest.param("sys.exit('no licence key')", "auto", "no licence key", id="dies at once, twice"),
        pytest.param("sys.exit('no licence key')", "modern", "exited with code 1", id="dies at once"),
        pytest.param("os.kill(os.getpid(), 9)", "legacy", "SIGKILL", id="is killed"),
    ],
)
def test_an_unusable_server_is_refused_with_its_reason(run: Run, script: str, era: str, said: str) -> None:
    async def scenario() -> None:
        error = await refusal(spec(script, era=era))
        assert said in error.detail
        assert said not in error.public

    run(scenario())


def test_a_server_that_never_answers_is_given_up_in_time(run: Run) -> None:
    async def scenario() -> None:
        server, detail = spec("print('waiting for a licence', file=sys.stderr, flush=True)\ntime.sleep(600)"), ""
        for deadline_s in (1.0, 4.0, 16.0):  # where it takes longer to come up, it has not said anything yet
            detail = detail or (await refusal(server, deadline_s)).detail.partition("waiting for a licence")[1]
        assert detail

    run(scenario())


def test_a_server_that_closes_its_stdout_and_stays_is_given_up(run: Run) -> None:
    async def scenario() -> None:
        error = await refusal(spec("os.close(1)\ntime.sleep(600)"), 2.0)
        # uvloop leaves a second handle to the pipe open in the child: there only the deadline tells.
        assert "closed its stdout" in error.detail or "not answered in time" in error.detail

    run(scenario())


@pytest.mark.parametrize(
    ("target", "said"),
    [
        pytest.param(StdioTarget("no-such-program-here"), "not in PATH", id="not in PATH"),
        pytest.param(StdioTarget("/no/such/program"), "/no/such/program", id="no such file"),
        pytest.param(StdioTarget("/"), "'/'", id="a folder"),
        pytest.param(StdioTarget("sh", cwd="/no/such/folder"), "/no/such/folder", id="no such working directory"),
        pytest.param(StdioTarget("sh", args=("a\0b",)), "sh", id="a NUL in an argument"),
    ],
)
def test_what_cannot_be_started_says_why(run: Run, target: StdioTarget, said: str) -> None:
    async def scenario() -> None:
        error = await refusal(ServerSpec("broken", target, "stdio"))
        assert said in error.detail
        assert error.public == "server broken cannot be started"

    run(scenario())


def test_a_cancelled_start_leaves_no_process(run: Run, tmp_path: Path) -> None:
    async def scenario() -> None:
        script = f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()) + '\\n')\n{STUBBORN}"
        task = asyncio.ensure_future(
            open_stdio(spec(script), on_push=print, log=logging.getLogger("test"), deadline_s=DEADLINE_S)
        )
        await until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().endswith("\n"))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        pid = int((tmp_path / "pid").read_text())
        await until(lambda: gone(pid))

    run(scenario())


# --- calls


def test_answers_find_their_callers_in_any_order(run: Run) -> None:
    script = """
legacy()
calls = [read() for _ in range(3)]
for call in reversed(calls):
    send(id=call["id"], result={"n": call["params"]["n"]})
send(id=999, result={})  # nobody asked
send(id="1", result={})
send(id=calls[0]["id"], result={"n": "again"})
read()
"""

    async def scenario() -> None:
        async with Opened(spec(script)) as (channel, pushed):
            sinks = [ask(channel, n=n)[0] for n in range(3)]
            assert [(await sink.result())["n"] for sink in sinks] == [0, 1, 2]
            assert pushed == []

    run(scenario())


def test_progress_goes_to_the_call_with_its_token(run: Run) -> None:
    script = """
legacy()
first, second = read(), read()
for token in (second["id"], 999, "x", None, first["id"], [1]):
    send(method="notifications/progress", params={"progressToken": token, "progress": 1})
send(method="notifications/progress")
send(method="notifications/tools/list_changed")
send(id=first["id"], result={})
send(id=second["id"], result={})
send(method="notifications/progress", params={"progressToken": first["id"], "progress": 2})
read()
"""

    async def scenario() -> None:
        async with Opened(spec(script)) as (channel, pushed):
            sinks = [ask(channel)[0] for _ in range(2)]
            for sink in sinks:
                await sink.result()
                assert [message.method for message in sink.messages] == ["notifications/progress", ""]
            told = [message.method for message in pushed][:2]
            assert told == ["notifications/progress", "notifications/tools/list_changed"], "999 may be a task's"

    run(scenario())


def test_what_a_server_asks_of_us_is_answered(run: Run) -> None:
    script = """
legacy()
send(id="p", method="ping")
send(id=7, method="sampling/createMessage", params={})
messages = [read(), read(), read()]
call = next(message for message in messages if "method" in message)
send(id=call["id"], result={"answers": [message for message in messages if message is not call]})
read()
"""

    async def scenario() -> None:
        async with Opened(spec(script)) as (channel, pushed):
            sink, _ = ask(channel)
            ping, sampling = (await sink.result())["answers"]
            assert ping == {"jsonrpc": "2.0", "id": "p", "result": {}}
            assert (sampling["id"], sampling["error"]["code"]) == (7, -32601)
            assert pushed == []

    run(scenario())


def test_what_is_asked_on_one_clients_pipe_reaches_its_only_call(run: Run) -> None:
    script = """
legacy()
first = read()
send(id="e1", method="elicitation/create", params={"message": "?"})
send(method="notifications/message", params={"level": "info", "data": "x"})
answer = read()
second = read()
send(id="e2", method="elicitation/create", params={"message": "?"})
send(method="notifications/message", params={"level": "info", "data": "y"})
refusal = read()
send(id=second["id"], result={})
send(id=first["id"], result={"answers": [answer, refusal]})
read()
"""

    async def scenario() -> None:
        behalf = Behalf({"elicitation": {}}, one_session=True)
        async with Opened(spec(script), behalf=behalf) as (channel, pushed):
            first, _ = ask(channel)
            await until(lambda: len(first.messages) == 2)
            assert [one.method for one in first.messages] == ["elicitation/create", "notifications/message"]
            assert pushed == []
            channel.notify(encode_result("e1", {"action": "decline"}))
            second, _ = ask(channel)
            assert await second.result() == {}
            answer, refusal = (await first.result())["answers"]
            assert answer == {"jsonrpc": "2.0", "id": "e1", "result": {"action": "decline"}}
            assert (refusal["id"], refusal["error"]["code"]) == ("e2", -32600)
            assert "several calls" in refusal["error"]["message"]
            assert [one.method for one in pushed] == ["notifications/message"]

    run(scenario())


def test_cancelling_tells_the_server_and_drops_its_answer(run: Run) -> None:
    script = """
legacy()
call, cancelled = read(), read()
send(id=call["id"], result={"late": True})
second = read()
send(id=second["id"], result={"first": call["id"], "cancelled": cancelled})
read()
"""

    async def scenario() -> None:
        async with Opened(spec(script)) as (channel, _):
            dropped, flight = ask(channel)
            flight.cancel("the client left")
            flight.cancel("twice")
            flight.pause()
            flight.resume()
            second, _ = ask(channel)
            result = await second.result()
            assert result["cancelled"]["method"] == "notifications/cancelled"
            assert result["cancelled"]["params"] == {"requestId": result["first"], "reason": "the client left"}
            assert not dropped.messages
            assert not dropped.ends

    run(scenario())


def test_a_body_with_line_breaks_travels_as_one_line(run: Run) -> None:
    async def scenario() -> None:
        async with Opened(spec(LEGACY_ONLY)) as (channel, _):
            sink = Recorder()
            id_ = channel.next_id()
            body = b'{"jsonrpc":"2.0",\r\n"id":%d,\n"method":"x","params":{"text":"a\\nb"}}' % id_
            channel.request(Outgoing(id_, "x", body), sink)
            assert (await sink.result())["got"]["params"] == {"text": "a\nb"}

    run(scenario())


def test_a_large_answer_arrives_whole(run: Run) -> None:
    async def scenario() -> None:
        async with Opened(spec("legacy()\nsend(id=read()['id'], result={'text': 'x' * 5_000_000})\nread()")) as opened:
            sink, _ = ask(opened[0])
            assert (await sink.result())["text"] == "x" * 5_000_000

    run(scenario())


# --- misdeeds


def test_a_death_fails_every_open_call_and_no_other(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    script = """
legacy()
read(), read()
print("out of \\x1b[31mmemory", file=sys.stderr, flush=True)
os._exit(7)
"""

    async def scenario() -> None:
        async with Opened(spec(script)) as (channel, _), Opened(spec(LEGACY_ONLY)) as (other, _):
            for sink in [ask(channel)[0] for _ in range(2)]:
                error = await sink.error()
                assert isinstance(error, UpstreamUnavailable)
                assert error.sent
                assert "exited with code 7" in error.detail
                assert "out of ?[31mmemory" in error.detail
                assert "memory" not in error.public
            assert not channel.alive
            late = await ask(channel)[0].error()
            assert isinstance(late, UpstreamUnavailable)
            assert not late.sent
            assert (await ask(other)[0].result())["got"]

    run(scenario())
    assert "out of ?[31mmemory" in caplog.text


def test_the_last_answer_of_a_dying_server_still_counts(run: Run) -> None:
    async def scenario() -> None:
        async with Opened(spec("legacy()\nsend(id=read()['id'], result={'last': 1})\nos._exit(1)")) as (channel, _):
            assert await ask(channel)[0].result() == {"last": 1}
            await until(lambda: not channel.alive)

    run(scenario())


def test_banners_are_borne_and_told_once(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    script = """
print("Welcome to the server!\\n\\n  v1.0")
print(json.dumps({"level": "info", "msg": "a log line in JSON"}))
print('[{"jsonrpc": "2.0", "method": "a/batch"}]', flush=True)
sys.stdout.buffer.write(b"\\xff\\xfe\\n{\\n")
legacy()
while True:
    print("handling a call", "x" * 1000)
    send(id=read()["id"], result={})
"""

    async def scenario() -> None:
        async with Opened(spec(script)) as (channel, pushed):
            for _ in range(100):  # more than the bound in all, but never between two messages
                await ask(channel)[0].result()
            assert channel.alive
            assert pushed == []

    run(scenario())
    assert caplog.text.count("no MCP message") == 1


@pytest.mark.parametrize(
    "script",
    [
        pytest.param("legacy()\nread()\nwhile True: print('garbage')", id="many lines"),
        pytest.param("legacy()\nread()\nwhile True: print('x' * 30_000)", id="large lines"),
        pytest.param("legacy()\nread()\nwhile True: sys.stdout.write('x' * 65536)", id="a line without an end"),
        pytest.param("legacy()\nsend(id=read()['id'], result='x' * 300_000)\nread()", id="an answer too large"),
    ],
)
def test_endless_garbage_ends_the_server(run: Run, script: str) -> None:
    async def scenario() -> None:
        async with Opened(spec(script, max_answer=262_144)) as (channel, _):
            error = await ask(channel)[0].error()
            assert isinstance(error, (UpstreamUnavailable, ContentBlocked))
            assert not channel.alive
            await until(lambda: gone(channel.pid))

    run(scenario())


def test_a_server_that_does_not_read_is_refused_more(run: Run) -> None:
    async def scenario() -> None:
        async with Opened(spec("legacy()\ntime.sleep(600)")) as (channel, _):
            sinks = [ask(channel, text="x" * 100_000)[0] for _ in range(40)]
            refused = [sink.ends[0] for sink in sinks if sink.ends]
            assert refused
            assert all(isinstance(error, Overloaded) for error in refused)
            assert len(refused) < 40
            channel.notify(b'{"jsonrpc":"2.0","method":"notifications/x"}')
            assert channel.alive

    run(scenario())


def test_a_sink_that_fails_costs_no_other_call(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Recorder):
        def message(self, message: Incoming) -> None:
            raise RuntimeError("a fault of ours")

    async def scenario() -> None:
        async with Opened(spec(LEGACY_ONLY)) as (channel, _):
            id_ = channel.next_id()
            channel.request(Outgoing(id_, "x", b'{"jsonrpc":"2.0","id":%d,"method":"x"}' % id_), Broken())
            assert (await ask(channel)[0].result())["got"]

    run(scenario())
    assert "a fault of ours" in caplog.text


# --- the end


def test_closing_fails_what_is_open_and_is_idempotent(run: Run) -> None:
    async def scenario() -> None:
        async with Opened(spec("legacy()\nread()\nread()")) as (channel, _):
            sink, flight = ask(channel)
            await asyncio.gather(channel.close(), channel.close())
            error = await sink.error()
            assert isinstance(error, UpstreamUnavailable)
            assert error.sent
            assert not channel.alive
            flight.cancel("late")
            channel.notify(b"{}")
            assert isinstance(await ask(channel)[0].error(), UpstreamUnavailable)

    run(scenario())


def test_a_server_may_end_by_itself_when_stdin_closes(run: Run, tmp_path: Path) -> None:
    script = f"""
legacy()
while sys.stdin.readline(): pass
time.sleep(0.3)
open({str(tmp_path / "tidy")!r}, "w").close()
"""

    async def scenario() -> None:
        async with Opened(spec(script)) as (channel, _):
            await channel.close(50.0)
        assert (tmp_path / "tidy").exists()

    run(scenario())


FORKING = f"""
grandchild = child({STUBBORN!r})
legacy()
send(id=read()["id"], result={{"pid": grandchild}})
"""


@pytest.mark.parametrize(
    ("script", "grace_s"),
    [
        pytest.param(FORKING + "read()", 600.0, id="the leader leaves, its child stays"),
        pytest.param(FORKING + STUBBORN, 2.0, id="nobody leaves"),
        pytest.param(FORKING + "os._exit(1)", 600.0, id="the leader was gone before"),
    ],
)
def test_the_whole_group_ends(run: Run, script: str, grace_s: float) -> None:
    """And nobody waits for what a leader is given to leave, once it has left."""

    async def scenario() -> None:
        async with Opened(spec(script)) as (channel, _):
            pid = (await ask(channel)[0].result())["pid"]
            if "_exit" in script:
                await until(lambda: not channel.alive)
            await channel.close(grace_s)
            await until(lambda: gone(pid))

    run(scenario())


def test_a_loop_that_ends_without_close_ends_the_group(run: Run) -> None:
    pids: list[int] = []

    async def scenario() -> None:
        opened = Opened(spec(FORKING + STUBBORN))
        channel, _ = await opened.__aenter__()
        pids.extend((channel.pid, (await ask(channel)[0].result())["pid"]))
        task = asyncio.ensure_future(channel.close())
        await asyncio.sleep(0.05)
        assert not task.done()

    run(scenario())
    deadline = time.monotonic() + 60
    while not all(gone(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.01)


GATEWAY = """
import asyncio, json, logging, sys, uvloop
sys.path[:0] = {path!r}
from tests.flow.upstream.test_stdio import FORKING, STUBBORN, Opened, ask, spec
async def main():
    channel, _ = await Opened(spec(FORKING + STUBBORN)).__aenter__()
    print(channel.pid, (await ask(channel)[0].result())["pid"], flush=True)
    await asyncio.sleep(600)
with asyncio.Runner(loop_factory={factory}) as runner:
    runner.run(main())
"""


@pytest.mark.parametrize("factory", ["None", "uvloop.new_event_loop"])
def test_nobody_survives_a_gateway_that_is_killed(factory: str) -> None:
    script = GATEWAY.format(path=[p for p in sys.path if p], factory=factory)
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as gateway:
        assert gateway.stdout is not None
        pids = [int(pid) for pid in gateway.stdout.readline().split()]
        assert len(pids) == 2
        gateway.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 60
    while not all(gone(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.01)


# --- what a server is given


def test_a_server_gets_a_short_environment_and_no_shell(run: Run, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("GATEWAY_SECRET", "hidden")
    monkeypatch.setenv("LC_TIME", "C")
    script = """
legacy()
import pathlib
send(id=read()["id"], result={"env": dict(os.environ), "cwd": str(pathlib.Path.cwd()), "args": sys.argv[1:],
     "leader": os.getsid(0) == os.getpid() == os.getpgrp()})
read()
"""
    args = ("$HOME; touch x", "*", "")

    async def scenario() -> None:
        server = spec(script, env={"TOKEN": "t", "TZ": "UTC"}, cwd=str(tmp_path), args=args)
        async with Opened(server) as (channel, _):
            result = await ask(channel)[0].result()
            allowed = {"PATH", "HOME", "USER", "LANG", "TZ", "TMPDIR", "TOKEN", "LC_CTYPE"}
            assert {name for name in result["env"] if not name.startswith("LC_")} <= allowed
            assert result["env"]["TOKEN"] == "t"
            assert result["env"]["TZ"] == "UTC"
            assert result["env"]["LC_TIME"] == "C"
            assert result["env"]["PATH"] == os.environ["PATH"]
            assert result["cwd"] == os.path.realpath(tmp_path)
            assert tuple(result["args"]) == args
            assert result["leader"]

    run(scenario())


def test_a_server_has_a_path_even_if_we_have_none() -> None:
    assert child_environment((), {"SECRET": "s"}) == {"PATH": os.defpath}
    assert child_environment((("PATH", "/opt"),), {"PATH": "/bin", "LC_ALL": "C"}) == {"PATH": "/opt", "LC_ALL": "C"}


# --- parts


@given(
    st.lists(st.binary(max_size=20).map(lambda line: line.replace(b"\n", b"")), max_size=8), st.binary(max_size=5),
    st.lists(st.integers(0, 30), max_size=30),
)  # fmt: skip
def test_lines_are_the_same_however_they_are_cut(lines: list[bytes], rest: bytes, cuts: list[int]) -> None:
    stream = b"".join(line + b"\n" for line in lines) + rest.replace(b"\n", b"")
    buffer = LineBuffer(1000)
    got: list[bytes] = []
    for cut in cuts:
        got += map(bytes, buffer.feed(stream[:cut]))
        stream = stream[cut:]
    got += map(bytes, buffer.feed(stream))
    assert got == lines


@pytest.mark.parametrize("piece", [1, 2, 3, 100])
@pytest.mark.parametrize(("size", "fits"), [(10, True), (11, False)])
def test_a_line_is_bounded_however_it_is_cut(piece: int, size: int, fits: bool) -> None:
    stream = b"ab\n" + b"x" * size + b"\n"
    buffer = LineBuffer(10)
    got: list[bytes | bytearray] = []
    try:
        for at in range(0, len(stream), piece):
            got += buffer.feed(stream[at : at + piece])
    except LineTooLong:
        assert not fits
    else:
        assert got == [b"ab", b"x" * size]
        assert fits


def test_a_large_line_costs_linear_time() -> None:
    piece = b"x" * 4096
    buffer = LineBuffer(32 * 1024 * 1024)
    begun = time.thread_time()
    for _ in range(8192):  # quadratic: 128 GiB of copying
        assert buffer.feed(piece) == []
    assert len(buffer.feed(b"\n")[0]) == 32 * 1024 * 1024
    assert time.thread_time() - begun < 5


@given(st.lists(st.binary(max_size=3000), max_size=40))
def test_stderr_keeps_a_bounded_printable_end(pieces: list[bytes]) -> None:
    tail = StderrTail()
    for piece in pieces:
        tail.feed(piece)
    tail.feed(b"\nthe last words\n")
    text = tail.text()
    assert len(text) <= STDERR_KEPT + 1024
    assert text.endswith("the last words")
    assert all(line.replace("\t", " ").isprintable() for line in text.split("\n"))


def test_stderr_forgets_the_oldest_lines_first() -> None:
    tail = StderrTail()
    for n in range(10_000):
        tail.feed(b"line %d\n" % n)
    lines = tail.text().split("\n")
    assert lines[-1] == "line 9999"
    assert 1000 < len(lines) < 2000
    tail.feed(b"x" * 5000)
    assert tail.text().split("\n")[-1] == "x" * 1024


# --- real servers


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("repository")
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    yield folder


@pytest.mark.e2e
@pytest.mark.parametrize("era", ["auto", "legacy"])
@pytest.mark.parametrize(
    ("command", "tool"),
    [("mcp-server-time", "convert_time"), ("mcp-server-git", "git_status"), ("mcp-server-fetch", "fetch")],
)
def test_official_servers(
    run: Run, python_servers: Callable[[str], str], repository: Path, command: str, tool: str, era: Any
) -> None:
    args = ("--repository", str(repository)) if "git" in command else ()
    server = ServerSpec("real", StdioTarget(python_servers(command), args), "stdio", era=era)
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    }

    async def scenario() -> None:
        async with Opened(server, 60.0) as (channel, _):
            assert channel.dialect.version == ("2026-07-28" if era == "auto" else "2025-11-25")
            params: dict[str, Any] = {"_meta": meta} if era == "auto" else {}
            listed = await ask(channel, "tools/list", **params)[0].result()
            assert tool in [entry["name"] for entry in listed["tools"]]

    run(scenario())
