"""Legacy resumability: what a stream sent is kept for a while, so that a client that lost the connection gets the rest.

In: a session's messages in the order in which they are sent, event ids that a client gives back, the time. Out: events
on the wire; what a client has missed, or a refusal, never a part of it. Pure: time and chance are handed in.
Cases: `tests/flow/notify/test_resumability.py`.
Source: MCP 2025-11-25, transports ("Sending Messages to the Server", "Resumability and Redelivery"); SEP-1699.

An id is `<tag>-<stream>-<position>`: position 0 primes a stream, its first message has 1. The tag is drawn for each
log, so that an id of a log that was dropped, or of another process, never fits a later one. A session whose answers
are no event streams has no log. Oldest goes first everywhere: events of a stream, of a session, then whole sessions.
"""

from __future__ import annotations

import math
import re
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

import msgspec

from narthex.errors import HttpRefusal
from narthex.flow.codec.sse import encode_event

EVENT_COST = 256
STREAM_COST = 512
"""Bytes that an event and a stream count for beside what they send."""
RETRY_MS = 1000
"""A client that lost its stream comes back after this long."""
_read_id = re.compile(rb"([0-9a-f]{1,32})-([1-9][0-9]{0,14})-(0|[1-9][0-9]{0,14})").fullmatch


class Bounds(msgspec.Struct, frozen=True):
    """What is kept. `all_size` is at least `size`, and `size` has room for `streams`."""

    events: int = 256
    """Of one stream."""
    streams: int = 64
    """Of one session."""
    size: int = 1024 * 1024
    """Bytes of one session."""
    all_size: int = 64 * 1024 * 1024
    keep_s: float = 300.0
    """An event, and a stream without a writer."""
    finished_s: float = 60.0
    """A stream whose last message was sent: its client may not have got it."""


DEFAULTS = Bounds()


def retry_event(retry_ms: int) -> bytes:
    """Tells a client when to come back; to be sent before its connection is closed and its stream goes on."""
    return b"retry: %d\n\n" % retry_ms


class Stream:
    """One stream of a session: the answer to a POST, or the standalone one of a GET. `EventLog.open` makes them.

    `writer` is the driver's: who writes it to the client now, None while nobody does. A stream that its log has let go
    still numbers what it sends; it only cannot be resumed.
    """

    __slots__ = ("_log", "ends_at", "finished", "kept", "latest", "number", "oldest", "writer")

    def __init__(self, log: EventLog, number: int, writer: Any) -> None:
        self._log = log
        self.number = number
        self.writer = writer
        self.kept = True
        self.oldest = 1  # position of the first event that is kept, or of the next where none is
        self.latest = 0  # position of the last that was sent
        self.finished = False
        self.ends_at = math.inf  # when it is forgotten; never while it is written

    def prime(self, retry_ms: int | None = None) -> bytes:
        """The first event: an id to come back with, and no message. Only for 2025-11-25: older clients choke on it."""
        retry = b"" if retry_ms is None else b"retry: %d\n" % retry_ms
        return b"id: %b\n%bdata: \n\n" % (self._id().encode(), retry)

    def append(self, data: bytes, now: float) -> bytes:
        """The event of one message: kept, and to be sent now where there is a writer."""
        self.latest += 1
        wire = encode_event(data, id=self._id())
        self._log.keep(self, wire, now)
        return wire

    def attach(self, writer: Any) -> Any:
        """Another connection takes over. Returns the writer before, which has to end: a message goes one way only."""
        before, self.writer = self.writer, writer
        if not self.finished:
            self.ends_at = math.inf
        return before

    def detach(self, writer: Any, now: float) -> None:
        """This writer's connection is gone: the stream may be resumed for a while. That cancels nothing (2025-11-25).
        Nothing happens where another has taken over."""
        if self.writer is writer:
            self.writer = None
            if not self.finished:
                self.ends_at = now + self._log.bounds.keep_s

    def finish(self, now: float) -> None:
        """Its last message was appended. Nobody writes it any more: what is kept of it must not keep its call."""
        self.finished = True
        self.writer = None
        self.ends_at = now + self._log.bounds.finished_s

    def drop(self) -> None:
        """It cannot be resumed any more: what it sent now was not kept (a body that is handed on in pieces)."""
        self._log.drop(self)

    def _id(self) -> str:
        return f"{self._log.tag}-{self.number}-{self.latest}"


class EventLog:
    """What the streams of one session have sent.

    Args:
        tag: Lower-case hex, never used before for this session.
        spend: Told of each change of `size`.
    """

    __slots__ = ("_events", "_number", "_spend", "_streams", "bounds", "size", "tag")

    def __init__(
        self, tag: str, bounds: Bounds = DEFAULTS, spend: Callable[[EventLog, int], None] | None = None
    ) -> None:
        self.tag = tag
        self.size = 0
        self.bounds = bounds
        self._spend = spend
        self._streams: dict[int, Stream] = {}
        self._events: OrderedDict[tuple[int, int], tuple[float, bytes]] = OrderedDict()  # by stream and position
        self._number = 0

    def __len__(self) -> int:
        return len(self._streams)

    def open(self, writer: Any) -> Stream:
        """A new stream. Of too many one is let go: the one that would be forgotten first, of equals the oldest."""
        if len(self._streams) >= self.bounds.streams:
            self.drop(min(self._streams.values(), key=lambda one: (one.ends_at, one.number)))
        self._number += 1
        stream = self._streams[self._number] = Stream(self, self._number, writer)
        self._count(STREAM_COST)
        self._make_room(0)
        return stream

    def replay(self, last_event_id: bytes) -> tuple[Stream, list[bytes]]:
        """The stream of that event, and what it sent after it: all of that, and of no other stream.

        The caller attaches its connection, or ends it after these where the stream is finished.
        Raises:
            HttpRefusal: It cannot be resumed: not an id of this log, or what came after is not kept any more. 400, not
                404: the session lives (2025-11-25, "Session Management").
        """
        found = _read_id(last_event_id)
        stream = self._streams.get(int(found[2])) if found and found[1] == self.tag.encode() else None
        position = int(found[3]) if found else 0
        if stream is None or not stream.oldest - 1 <= position <= stream.latest:
            raise cannot_resume()
        after = range(position + 1, stream.latest + 1)
        return stream, [self._events[stream.number, at][1] for at in after]

    def expire(self, now: float) -> None:
        """Forget what is too old."""
        for stream in [one for one in self._streams.values() if one.ends_at <= now]:
            self.drop(stream)
        while self._events and next(iter(self._events.values()))[0] <= now - self.bounds.keep_s:
            self._forget_oldest()

    def clear(self) -> None:
        """Forget everything."""
        for stream in list(self._streams.values()):
            self.drop(stream)

    # --- for streams

    def keep(self, stream: Stream, wire: bytes, now: float) -> None:
        """Keep what `stream` sends as its `latest`."""
        if not stream.kept:
            return
        cost = len(wire) + EVENT_COST
        if cost > self.bounds.size - STREAM_COST * len(self._streams):
            self._forget_events(stream)  # what cannot be kept is a gap: nothing before it is of use
            stream.oldest = stream.latest + 1
            return
        if stream.latest - stream.oldest >= self.bounds.events:
            self._forget(stream)
        self._make_room(cost)
        self._events[stream.number, stream.latest] = (now, wire)
        self._count(cost)

    def drop(self, stream: Stream) -> None:
        if stream.kept:
            stream.kept = False
            self._forget_events(stream)
            del self._streams[stream.number]
            self._count(-STREAM_COST)

    def _make_room(self, cost: int) -> None:
        while self._events and self.size + cost > self.bounds.size:
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        number, _ = next(iter(self._events))
        self._forget(self._streams[number])

    def _forget_events(self, stream: Stream) -> None:
        while stream.oldest <= stream.latest and (stream.number, stream.oldest) in self._events:
            self._forget(stream)

    def _forget(self, stream: Stream) -> None:
        """The oldest event of a stream."""
        _, wire = self._events.pop((stream.number, stream.oldest))
        stream.oldest += 1
        self._count(-len(wire) - EVENT_COST)

    def _count(self, cost: int) -> None:
        self.size += cost
        if self._spend is not None:
            self._spend(self, cost)


class Logs:
    """The logs of all sessions of a process, by session. A session has one once it opens a stream that may be resumed.

    Args:
        random: `random(n)` gives n unpredictable bytes.
    """

    def __init__(self, *, random: Callable[[int], bytes], bounds: Bounds = DEFAULTS) -> None:
        self.size = 0
        self._random = random
        self._bounds = bounds
        self._logs: OrderedDict[Hashable, EventLog] = OrderedDict()  # the one longest unused first
        self._sessions: dict[EventLog, Hashable] = {}
        self._round: list[Hashable] = []

    def __len__(self) -> int:
        return len(self._logs)

    def open(self, session: Hashable, writer: Any) -> Stream:
        """A new stream of this session."""
        log = self._logs.get(session)
        if log is None:
            log = self._logs[session] = EventLog(self._random(8).hex(), self._bounds, self._spent)
            self._sessions[log] = session
        return log.open(writer)

    def replay(self, session: Hashable, last_event_id: bytes) -> tuple[Stream, list[bytes]]:
        """As `EventLog.replay`. A session without a log has nothing to resume."""
        log = self._logs.get(session)
        if log is None:
            raise cannot_resume()
        self._logs.move_to_end(session)
        return log.replay(last_event_id)

    def end(self, session: Hashable) -> None:
        """The session has ended. Idempotent."""
        log = self._logs.pop(session, None)
        if log is not None:
            log.clear()
            del self._sessions[log]

    def sweep(self, now: float, most: int = 1000) -> int:
        """Forget what is too old in the next `most` sessions; to be called every second or so. Returns how many logs
        went: those without a stream."""
        if not self._round:
            self._round = list(self._logs)
        went = 0
        for session in [self._round.pop() for _ in range(min(most, len(self._round)))]:
            log = self._logs.get(session)
            if log is not None:
                log.expire(now)
                if not len(log):
                    self.end(session)
                    went += 1
        return went

    def _spent(self, log: EventLog, cost: int) -> None:
        self.size += cost
        if cost > 0:
            self._logs.move_to_end(self._sessions[log])
            while self.size > self._bounds.all_size and len(self._logs) > 1:
                self.end(next(iter(self._logs)))


def cannot_resume() -> HttpRefusal:
    """One answer, whatever the reason: a foreign id answers like one that is too old."""
    return HttpRefusal(400, "cannot_resume", "the stream cannot be resumed after this event")
