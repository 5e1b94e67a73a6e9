"""The forms of an answer that come in pieces: an event stream, and a large body that is handed on as it arrives.

In: messages or pieces of an answer, and the connection that they go to. Out: bytes written to it. An answer that is
one JSON body needs nothing of this: `Connection.respond` writes it.
Cases: `tests/flow/accept/test_forms.py`, `tests/flow/accept/test_exchange.py`.
Source: MCP 2026-07-28 and 2025-11-25, Streamable HTTP transport ("Sending Messages to the Server").
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from narthex.flow.accept.replying import Replying
from narthex.flow.codec.bridge import COMPLETE, missing_members
from narthex.flow.codec.sse import encode_event
from narthex.flow.notify.resumability import Stream
from narthex.types import Call, Era

TAIL: Final = 64
"""Bytes of a spliced body that are kept back where something is to stand at its end."""
JSON: Final = b"application/json"
SSE: Final = b"text/event-stream"
SSE_HEADERS: Final = b"Cache-Control: no-cache, no-transform\r\nX-Accel-Buffering: no\r\n"
_EVENT_HEAD: Final = b"event: message\ndata: "


class Events:
    """An answer as an event stream, which begins with the first thing that is to be said.

    Attributes:
        begun: Its head is written; until then it may still become one JSON body.
        log: What is sent is kept here, for a client that lost its connection; None for clients that cannot come back.
        lines: More header lines of its head, such as what is left of limits.
    """

    __slots__ = ("begun", "lines", "log")

    def __init__(self, begun: bool = False, log: Stream | None = None) -> None:
        self.begun = begun
        self.lines = b""
        self.log = log

    def head(self, connection: Replying) -> bytes:
        """What is to be written ahead of the first event; empty once it was."""
        if self.begun:
            return b""
        self.begun = True
        return connection.begin_body(200, SSE, None, SSE_HEADERS + self.lines)

    def event(self, message: bytes, now: float) -> bytes:
        """The event of one message. `now`: seconds, for the log."""
        return encode_event(message) if self.log is None else self.log.append(message, now)

    def keep(self, message: bytes, now: float) -> None:
        """There is no connection to write to now: keep the message, where such are kept."""
        if self.log is not None and message:
            self.log.append(message, now)

    def respond(self, connection: Replying, status: int, parts: Sequence[Any], size: int, now: float) -> None:
        """Write the response, which ends the stream; as one JSON body where its HTTP status can still be said."""
        if status != 200 and not self.begun:
            connection.respond(status, JSON, parts, size, self.lines)
            return
        if self.log is not None or b"\n" in (body := b"".join(parts)) or b"\r" in body:
            event = self.event(b"".join(parts), now)
        else:
            event = b"".join((_EVENT_HEAD, body, b"\n\n"))
        connection.end_body(self.head(connection) + connection.frame(event))

    def resume(self, connection: Replying, missed: bytes) -> None:
        """Go on with the stream on another connection, behind what its client has missed."""
        connection.write(connection.begin_body(200, SSE, None, SSE_HEADERS) + connection.frame(missed))


class Splice:
    """An answer whose result is handed on as it arrives, behind the client's id in the place of ours.

    Args:
        skip: Bytes of the server's body that are left out at its start: another start was written.
        extra: Members to be added to the result, at its end: of a name that stands twice, readers take the last.
    """

    __slots__ = ("extra", "skip", "tail")

    def __init__(self, skip: int, extra: bytes) -> None:
        self.skip = skip
        self.extra = extra
        self.tail = b""  # what is kept back to find the result's end in

    def piece(self, connection: Replying, data: bytes) -> None:
        """Write what has arrived, as far as it is surely not the end."""
        if self.skip:
            data, self.skip = data[self.skip :], 0
        if self.extra:
            data = self.tail + data
            data, self.tail = data[:-TAIL], data[-TAIL:]
        connection.write(data)

    def end(self, connection: Replying) -> None:
        """Every byte has arrived: write the rest, with what is to be added."""
        if not self.extra:
            connection.end_body()
            return
        tail = self.tail.rstrip()
        if tail.endswith(b"}}"):
            connection.end_body(tail[:-2] + self.extra + tail[-2:] + self.tail[len(tail) :])
        else:
            connection.abort()  # it ends as no response does: the client must not take it for a whole one


def splice(call: Call, id_: int, era: Era, head: bytes) -> tuple[bytes, Splice] | None:
    """How to hand on a large body, when its first bytes leave no doubt that it is the complete result of `call`.

    Args:
        id_: Ours, under which the server answers. era: The server's.
    Returns:
        What the client's body begins with, and the rest; None where the answer must be seen whole.
    """
    ours = b'{"jsonrpc":"2.0","id":%d,"result":{"' % id_
    if not head.startswith(ours) or (era == "modern" and not head.startswith(COMPLETE, len(ours) - 1)):
        return None
    extra = b"," + missing_members(call.method, {}) if (call.era, era) == ("modern", "legacy") else b""
    return b'{"jsonrpc":"2.0","id":%b,"result":{"' % call.id_json, Splice(len(ours), extra)
