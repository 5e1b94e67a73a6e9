"""Legacy Streamable HTTP: a call whose stream ends before its answer is taken up again where it broke off.

A server may close the connection of a call at any time, and answer on another one: it is asked for by GET, with the id
of the last event. The call itself is never sent twice. In: one call of a legacy channel. Out: the same messages to the
same sink, on however many connections they come. Where nothing can be gone on with, the call ends as any other.
Cases: `tests/flow/upstream/test_resuming.py`.
Source: MCP 2025-11-25, transports ("Sending Messages to the Server", 6; "Resumability and Redelivery").
"""

from __future__ import annotations

import asyncio

from narthex.errors import GatewayError, UpstreamUnavailable
from narthex.flow.codec.handshake import cancelled_body
from narthex.flow.held import Held
from narthex.flow.upstream.connection import HttpPool
from narthex.flow.upstream.http import HttpCall, HttpChannel, refused
from narthex.flow.upstream.port import NOBODY, Behalf, Dialect
from narthex.flow.upstream.stream import MOST_RETRY_S, can_resume, get_head
from narthex.types import ServerSpec

FIRST_S = 0.5
"""The wait where a server does not say how long; it doubles with each try that brings nothing."""
LEAST_S = 0.05
"""However soon a server wants us back: each try costs a connection, and they end with the call's deadline alone."""
MOST_IN_VAIN = 5
"""Tries in a row that bring no byte of the stream."""


class ResumableCall(HttpCall):
    """See the module. Tries are bounded by `MOST_IN_VAIN`, and by whoever waits: by the deadline of the call."""

    _asking: bool = False
    """The stream was asked for again: what comes now is the rest of it."""
    _in_vain: int = 0
    _paused: bool = False

    # --- Flight

    def pause(self) -> None:
        self._paused = True
        super().pause()

    def resume(self) -> None:
        self._paused = False
        super().resume()

    def cancel(self, reason: str) -> None:
        if self.sink is not None and self._asking and self.connection is None:  # between two connections
            self._drop()
            self.channel.notify(cancelled_body(self._out.id, reason))
        else:
            super().cancel(reason)

    # --- Receiver

    def head(self, status: int, headers: dict[bytes, bytes], length: int | None) -> None:
        kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if self._asking and (status != 200 or kind != b"text/event-stream"):
            self._refused(status, headers.get(b"www-authenticate", b""))
            return
        if not self._asking:
            super().head(status, headers, length)

    def end(self) -> None:
        if not self._goes_on():
            super().end()

    def lost(self, detail: str, *, sent: bool, begun: bool) -> None:
        if self._goes_on():
            return
        if self._asking:  # it must not be sent again, whatever `resend` says
            self._give(UpstreamUnavailable(f"server {self.channel.spec.name} broke off", detail=detail, sent=True))
        else:
            super().lost(detail, sent=sent, begun=begun)

    # --- going on

    def _goes_on(self) -> bool:
        """A stream has ended: is there more to come, on another one? Then it is asked for after a while."""
        events = self._events
        if self.sink is None or self._answered or events is None or not can_resume(events.last_id):
            return False
        self._in_vain = 0 if events.begun else self._in_vain + 1
        if self._in_vain >= MOST_IN_VAIN:
            return False
        self._asking, self._events = True, events.again()
        self.connection = None
        self._release()
        wait_s = FIRST_S * 2.0**self._in_vain if events.retry_ms is None else min(events.retry_ms / 1000, MOST_RETRY_S)
        self.dialing = asyncio.ensure_future(self._ask_again(max(wait_s, LEAST_S), events.last_id))
        return True

    async def _ask_again(self, wait_s: float, last_id: str) -> None:
        await asyncio.sleep(wait_s)
        channel = self.channel
        try:
            shown = await channel.shown.obtain()
            connection = await channel.pool.dial()
        except GatewayError as error:
            self.dialing = None
            self.lost(error.detail, sent=True, begun=False)
            return
        self.dialing = None
        self.connection = connection
        self._wire = get_head(channel.spec, channel.pool, channel.dialect, last_id, shown)
        connection.send(self, self._wire)
        if self._paused:
            connection.pause()

    async def _ask_as_another(self, status: int, challenge: bytes, last_id: str) -> None:
        """What was shown is refused: ask with something else, if there is anything."""
        channel = self.channel
        try:
            other = await channel.shown.again(status, challenge, self._wire)
        except GatewayError as error:
            self._give(error)
            return
        if other is None:
            self._give(refused(channel.spec.name, status))
        else:
            await self._ask_again(0.0, last_id)

    def _refused(self, status: int, challenge: bytes) -> None:
        """The stream is not there any more; or the server is not well, and asked once more."""
        self._out.status = status
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.abandon()
        channel, name = self.channel, self.channel.spec.name
        if status in (401, 403) and not self._shown_twice and self._events is not None:
            self._shown_twice = True
            self.dialing = asyncio.ensure_future(self._ask_as_another(status, challenge, self._events.last_id))
            return
        if (status >= 500 or status == 429) and self._goes_on():
            return
        if status == 404 and channel.dialect.session_id is not None:
            channel.alive = False
            # Not `SessionLost`, upon which a call is made again: this one has been taken.
            self._give(UpstreamUnavailable(f"server {name} ended our session", detail="HTTP 404", sent=True))
        elif status in (401, 403, 429) or status >= 500:
            self._give(refused(name, status))
        else:
            detail = f"its stream ended, and a GET to go on with it was answered with HTTP {status}"
            self._give(UpstreamUnavailable(f"server {name} broke off its answer", detail=detail, sent=True))


class LegacyChannel(HttpChannel):
    """A channel to a legacy server, whose calls can be gone on with."""

    def __init__(self, spec: ServerSpec, pool: HttpPool, dialect: Dialect, held: Held, behalf: Behalf = NOBODY) -> None:
        super().__init__(spec, pool, dialect, held, behalf)
        self.calls_are = ResumableCall
