"""The answer of one call on its way to the client: one JSON body, an event stream, or a large body that is handed on.

In: what is to be said, whole or piece by piece, and the connection that it goes to. Out: bytes written, in the form
that has been begun; how many they are. A client that has gone is written nothing, and what is kept for it is kept.
Knows nothing of servers, walks and rules. Cases: `tests/flow/accept/test_response.py`; the forms: `forms.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from narthex.flow.accept.forms import JSON, Events, Splice, splice
from narthex.flow.accept.replying import Replying
from narthex.flow.notify.resumability import Stream
from narthex.types import Call, Era

OVERFLOW: Final = 1024 * 1024
"""Unread bytes that one slow reader may pile up before its call fails: a shared pipe is never paused for it."""


class Response:
    """What the client of one call is answered.

    Attributes:
        connection: Where it goes; None once the client has gone, or has been let go.
        events, spliced: Its form, where that is more than one JSON body.
        status: The HTTP status of a JSON body.
        size: Bytes of it that were written, or are about to be.
        quiet_since: When its stream last said something, in seconds of `clock`.
    """

    __slots__ = ("_clock", "connection", "events", "quiet_since", "size", "spliced", "status")

    def __init__(self, connection: Replying | None, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.connection = connection
        self.events: Events | None = None
        self.spliced: Splice | None = None
        self.status = 200
        self.size = 0
        self.quiet_since = 0.0

    @property
    def has_form(self) -> bool:
        """Is it, or will it be, more than one JSON body?"""
        return self.events is not None or self.spliced is not None

    @property
    def log(self) -> Stream | None:
        """What was sent, for a client that lost its connection; None where nothing is kept."""
        return self.events.log if self.events is not None else None

    # --- whole

    def write(self, parts: Sequence[Any], size: int, lines: bytes = b"") -> None:
        """Write the answer. `size`: of `parts` together. `lines`: more header lines, where they can still be said."""
        connection, events = self.connection, self.events
        if connection is None:
            if events is not None:
                events.keep(b"".join(parts), self._clock())
        elif events is None:
            connection.respond(self.status, JSON, parts, size, lines)
        else:
            events.lines = lines
            events.respond(connection, self.status, parts, size, self._clock())

    def write_error(self, status: int, body: bytes, lines: bytes) -> None:
        """Write an error in its place."""
        connection, events = self.connection, self.events
        if connection is None:
            if events is not None:
                events.keep(body, self._clock())
        elif events is not None and events.begun:
            events.respond(connection, 200, (body,), len(body), self._clock())
        elif self.spliced is not None:
            connection.abort()  # a length was promised: the client must see that it was not kept
        else:
            connection.respond(status, JSON, (body,), len(body), lines)

    # --- as an event stream

    def stream(self) -> Events | None:
        """Be an event stream from now on. Returns it where its head is still to be written, and can be."""
        if self.events is None:
            if self.connection is None:
                return None
            self.events = Events()
        return self.events if self.connection is not None and not self.events.begun else None

    def say(self, message: bytes, first: bytes = b"") -> bool:
        """Write one message (empty: none) as an event, `first` ahead of it; where the client has gone, keep it.

        Returns:
            Does the client still read what it is told?
        """
        connection, events = self.connection, self.events
        if events is None:
            return True
        if connection is None:
            events.keep(message, self._clock())
            return True
        head, event = events.head(connection), first
        if message:
            event += events.event(message, self._clock())
        data = head + connection.frame(event)
        if not data:
            return True
        connection.write(data)
        self.size += len(event)
        self.quiet_since = self._clock()
        return not connection.paused or connection.unread() <= OVERFLOW

    def comment(self, now: float) -> None:
        """Say nothing, so that proxies keep an idle stream open."""
        if self.connection is not None:
            self.quiet_since = now
            self.connection.write(self.connection.frame(b":\n\n"))

    def resume(self, connection: Replying, missed: bytes) -> None:
        """Go on with the stream on another connection of its client, behind what that has missed."""
        events, before = self.events, self.connection
        assert events is not None
        self.connection = connection
        if before is not None:
            before.end_body()
        events.resume(connection, missed)
        self.quiet_since = self._clock()

    # --- as it arrives

    def splice(self, call: Call, id_: int, era: Era, head: bytes, total: int, lines: bytes) -> bool:
        """Hand on a large body of `total` bytes, which begins with `head`; False where it must be seen whole."""
        if self.connection is None or self.has_form:
            return False
        spliced = splice(call, id_, era, head)
        if spliced is None:
            return False
        start, self.spliced = spliced
        self.size = total - self.spliced.skip + len(start) + len(self.spliced.extra)
        self.connection.write(self.connection.begin_body(200, JSON, self.size, lines) + start)
        return True

    def piece(self, data: bytes) -> None:
        """Hand on what has arrived of it."""
        if self.connection is not None and self.spliced is not None:
            self.spliced.piece(self.connection, data)

    def end_pieces(self) -> None:
        """All of it has arrived."""
        if self.connection is not None and self.spliced is not None:
            self.spliced.end(self.connection)

    # --- without an end

    def attach(self, connection: Replying) -> None:
        """The client has come back for the call, with a request of its own: what it gets is a new answer."""
        self.connection, self.events, self.size = connection, None, 0

    def let_go(self) -> None:
        """The client's connection is its own again: it has been answered, or has closed it."""
        self.connection = None

    def break_off(self) -> None:
        """The client has given up what it waits for: end the answer as one that says nothing."""
        if (connection := self.connection) is None:
            return
        if self.spliced is not None:
            connection.abort()
        else:
            connection.end_body((self.events or Events()).head(connection))
            self.connection = None  # it goes on with its next request

    def abort(self) -> None:
        """It will never be whole, and the client must see that."""
        if self.connection is not None:
            self.connection.abort()
        self.connection = None
