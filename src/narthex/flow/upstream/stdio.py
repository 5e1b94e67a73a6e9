"""A server over stdio, of either era: one process, one line a message, many calls interleaved on its pipe.

In: a `ServerSpec` with a `StdioTarget`. Out: a `StdioChannel`, negotiated. Everything that a process may do to us ends
in an error for its own calls. Cases: `tests/flow/upstream/test_stdio.py`, one scripted server a misdeed.
Source: MCP 2026-07-28 and 2025-11-25, stdio transport; 2026-07-28, versioning (discovery first; any other answer, or
silence, means the handshake). When to start, restart and reap a server is the caller's business.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from functools import partial
from typing import Literal

from narthex.errors import ContentBlocked, GatewayError, Overloaded, UpstreamUnavailable
from narthex.flow.codec import handshake
from narthex.flow.codec.jsonrpc import Incoming
from narthex.flow.upstream.multiplex import Answer, ChannelPush, Multiplex, NotMcp, read_dialect
from narthex.flow.upstream.port import NOBODY, Behalf, Dialect, Flight, Outgoing, Sink
from narthex.flow.upstream.process import Child, child_environment, start_child
from narthex.flow.upstream.secrets import hide, secrets_of
from narthex.types import Era, ServerSpec, StdioTarget

PROBE_S = 2.0
"""A server that has not answered `server/discover` by then (or in a quarter of the deadline) may be a legacy one that
never will."""
Reply = asyncio.Future[Incoming | GatewayError]
Method = Literal["server/discover", "initialize"]
UNWRITTEN = 1024 * 1024
"""While more than this waits for a child that does not read, nothing is added. One message may be larger."""
GRACE_S = 2.0
"""What a server gets to end by itself after its stdin is closed."""
FAILED_GRACE_S = 0.2
"""The same, after a handshake that failed: somebody waits for the error."""


class LineTooLong(Exception):
    """More bytes without a line break than allowed."""


class LineBuffer:
    """Cuts a byte stream into lines, in time and memory linear in the bytes however they arrive."""

    __slots__ = ("_most", "_rest")

    def __init__(self, most: int) -> None:
        self._most = most
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[bytes | bytearray]:
        """The lines that `data` completes, without their LF. Raises LineTooLong; not to be fed again then."""
        lines: list[bytes | bytearray] = []
        start = 0
        while (end := data.find(b"\n", start)) >= 0:
            self._check(end - start)
            if self._rest:
                self._rest += data[start:end]
                lines.append(self._rest)
                self._rest = bytearray()
            else:
                lines.append(data[start:end])
            start = end + 1
        self._check(len(data) - start)
        self._rest += data[start:] if start else data
        return lines

    def _check(self, more: int) -> None:
        if len(self._rest) + more > self._most:
            raise LineTooLong


class _Flight:
    """A request on a shared pipe: it cannot be paused, its sink bounds itself."""

    __slots__ = ("_channel", "_id")

    def __init__(self, channel: StdioChannel, id_: int) -> None:
        self._channel = channel
        self._id = id_

    def pause(self) -> None:
        return

    def resume(self) -> None:
        return

    def cancel(self, reason: str) -> None:
        self._channel.cancel(self._id, reason)


class StdioChannel:
    """One process and its conversation. See `port.Channel`.

    Attributes:
        started_at: Wall-clock seconds, for people.
        restarts: How often the process was started again while the era was found out.
    """

    def __init__(self, spec: ServerSpec, on_push: ChannelPush, log: logging.Logger, behalf: Behalf = NOBODY) -> None:
        self.dialect = Dialect(era="legacy", version="")
        self.behalf = behalf
        self.alive = False
        self.last_used = 0.0
        self.open_calls = 0
        self.restarts = 0
        self.started_at = 0.0
        self._spec = spec
        self._log = log
        self._ids = itertools.count(1)
        self._calls = Multiplex(spec.name, reply=self.notify, on_push=partial(on_push, self), log=log, behalf=behalf)
        self._lines = LineBuffer(spec.max_answer)
        self._deaf_told = False
        self._child: Child

    async def start(self) -> None:
        """Start the process. Raises UpstreamUnavailable."""
        target = self._spec.target
        if not isinstance(target, StdioTarget):
            raise TypeError(f"server {self._spec.name} is not over stdio")
        self._child = await start_child(
            self._spec.name,
            target.command,
            target.args,
            env=child_environment((*target.env, *self.behalf.shown.environment())),
            cwd=target.cwd,
            on_data=self._received,
            on_dying=self._dying,
            on_end=self._ended,
        )
        self.started_at = time.time()
        self.alive = True

    @property
    def pid(self) -> int:
        return self._child.pid

    def stderr_tail(self) -> str:
        """The end of what the process wrote to stderr; for the operator alone."""
        return self._child.stderr.text()

    def next_id(self) -> int:
        return next(self._ids)

    def request(self, out: Outgoing, sink: Sink) -> Flight:
        if not self.alive:
            sink.failed(UpstreamUnavailable(f"server {self._spec.name} has stopped"))
        elif self._child.unwritten() > UNWRITTEN:
            sink.failed(Overloaded(f"server {self._spec.name} does not read its requests"))
        else:
            self._calls.waiting[out.id] = sink
            self._child.write(_line(out.body))
        return _Flight(self, out.id)

    def notify(self, body: bytes) -> None:
        if not self.alive:
            return
        if self._child.unwritten() <= UNWRITTEN:
            self._child.write(_line(body))
        elif not self._deaf_told:
            self._deaf_told = True
            self._log.warning("server %s does not read: notifications to it are dropped", self._spec.name)

    def cancel(self, id_: int, reason: str) -> None:
        if self._calls.waiting.pop(id_, None) is not None:
            self.notify(handshake.cancelled_body(id_, reason))

    async def close(self, grace_s: float = GRACE_S) -> None:
        """Close its stdin; a process that has not left after `grace_s` is ended with its group. Calls fail at once."""
        self.alive = False
        task = self._child.end(grace_s)
        self._calls.fail(UpstreamUnavailable(f"server {self._spec.name} was stopped", sent=True))
        await asyncio.shield(task)

    def abandon(self) -> None:
        """End the process group without grace and without waiting; for a start that is cancelled."""
        self.alive = False
        self._child.end(0.0)

    def explain(self, detail: str) -> str:
        """`detail` with the process's last words, for the operator."""
        tail = self.stderr_tail()
        return f"{detail}; its stderr ends:\n{tail}" if tail else detail

    def _dying(self) -> None:
        self.alive = False

    def _ended(self, reason: str) -> None:
        detail = f"the process {reason}"
        if self.dialect.version:  # before that, whoever opens the channel explains and reports
            detail = self.explain(detail)
            self._log.warning("server %s: %s", self._spec.name, hide(detail, secrets_of(self._spec)))
        self._calls.fail(UpstreamUnavailable(f"server {self._spec.name} has stopped", detail=detail, sent=True))

    def _received(self, data: bytes) -> None:
        try:
            for line in self._lines.feed(data):
                self._calls.take(line)
        except LineTooLong:
            self._calls.fail(ContentBlocked(f"the answer of server {self._spec.name} is too large"))
            self._child.give_up(f"wrote a line of more than {self._spec.max_answer} bytes")
        except NotMcp:
            self._child.give_up("writes to stdout what is no MCP")


def _line(body: bytes) -> bytes:
    """A message as one line. Only the white space of a client's JSON may hold line breaks, a JSON string has none."""
    if b"\n" in body or b"\r" in body:
        body = body.replace(b"\n", b" ").replace(b"\r", b" ")
    return body + b"\n"


class _ProcessDied(UpstreamUnavailable):
    """It ended while the era was found out: some servers do at a request that they do not know."""


async def open_stdio(
    spec: ServerSpec,
    *,
    on_push: ChannelPush,
    log: logging.Logger,
    deadline_s: float,
    behalf: Behalf = NOBODY,
    known: Era | None = None,
) -> StdioChannel:
    """Start a server and find out what it speaks, within `deadline_s` seconds.

    In era `auto` a process that does not survive `server/discover` is started once more, for `initialize`.

    Args:
        on_push: Gets notifications of the server that belong to no call.
        known: What it spoke when last asked. A legacy one is spared the probe; if it refuses, it is asked after all.
    Raises:
        UpstreamUnavailable: It cannot be started, dies, stays silent, or speaks no version of ours; the process and
            its group are gone then. `detail` has the end of its stderr.
    """
    now = asyncio.get_running_loop().time()
    deadline = now + deadline_s
    restarts = 0
    if spec.era == "auto" and known == "legacy":
        try:
            return await _open(StdioChannel(spec, on_push, log, behalf), spec, "legacy", now + deadline_s / 2, 0.0)
        except UpstreamUnavailable:
            restarts = 1
    channel = StdioChannel(spec, on_push, log, behalf)
    channel.restarts = restarts
    try:
        return await _open(channel, spec, spec.era, deadline, min(PROBE_S, deadline_s / 4))
    except _ProcessDied:
        if spec.era != "auto":
            raise
    channel = StdioChannel(spec, on_push, log, behalf)
    channel.restarts = restarts + 1
    return await _open(channel, spec, "legacy", deadline, 0.0)


async def _open(channel: StdioChannel, spec: ServerSpec, era: str, deadline: float, probe_s: float) -> StdioChannel:
    name = spec.name
    await channel.start()
    try:
        async with asyncio.timeout_at(deadline):
            channel.dialect = await _negotiate(channel, name, era, probe_s)
    except (TimeoutError, UpstreamUnavailable) as error:
        died = not channel.alive
        await channel.close(FAILED_GRACE_S)
        if isinstance(error, TimeoutError):
            detail = channel.explain("its handshake was not answered in time")
            raise UpstreamUnavailable(f"server {name} does not answer", detail=detail) from None
        kind = _ProcessDied if died else UpstreamUnavailable
        raise kind(error.public, detail=channel.explain(error.detail)) from None
    except BaseException:
        channel.abandon()
        raise
    if channel.dialect.era == "legacy":
        channel.notify(handshake.INITIALIZED)
    return channel


async def _negotiate(channel: StdioChannel, name: str, era: str, probe_s: float) -> Dialect:
    if era == "auto":
        return await _find_era(channel, name, probe_s)
    method: Method = "initialize" if era == "legacy" else "server/discover"
    return read_dialect(name, method, await _ask(channel, method))


async def _find_era(channel: StdioChannel, name: str, probe_s: float) -> Dialect:
    """Discovery first; after an error or a silence the handshake too, and then whichever succeeds first.

    A server that is slow to start finds both requests on its pipe: a modern one answers discovery and refuses the
    handshake, because the first request decides its era; so the probe still counts after its time.
    """
    probe = _ask(channel, "server/discover")
    asked: dict[Reply, Method] = {probe: "server/discover"}
    done, _ = await asyncio.wait(asked, timeout=probe_s)
    begun = False
    failed: list[UpstreamUnavailable] = []
    while True:
        for answer in done:
            try:
                return read_dialect(name, asked.pop(answer), answer.result())
            except UpstreamUnavailable as error:
                failed.append(error)
        if channel.alive and not begun:
            begun = True
            asked[_ask(channel, "initialize")] = "initialize"
        if not asked:
            raise UpstreamUnavailable(failed[-1].public, detail="; ".join(e.detail or e.public for e in failed))
        done, _ = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)


def _ask(channel: StdioChannel, method: Method) -> Reply:
    id_ = channel.next_id()
    declared = channel.behalf.capabilities
    if method == "server/discover":
        body = handshake.discover_body(id_, declared)
    else:
        body = handshake.initialize_body(id_, capabilities=declared)
    answer = Answer()
    channel.request(Outgoing(id_, method, body), answer)
    return answer.came
