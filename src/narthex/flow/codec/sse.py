"""Bytes <-> server-sent events.

In: the body of an event stream, in pieces cut anywhere. Out: whole events, or the error that ends the stream.
Cases: `tests/flow/codec/test_sse.py`. Source: HTML living standard §9.2.6, "interpreting an event stream".

The common piece is exactly one event in one read, so that case runs on `bytes.find` and one slice. Everything else
goes line by line, in time linear in the bytes, however they are cut.
"""

from __future__ import annotations

from typing import Final

from narthex.errors import ParseError

BOM: Final = b"\xef\xbb\xbf"
PLAIN: Final = b"data: "
NAMED: Final = b"event: message\ndata: "
NAMED_CRLF: Final = b"event: message\r\ndata: "


class Event:
    """One event. `id` and `retry` (milliseconds) are what this event said itself, None where it said nothing."""

    __slots__ = ("data", "event", "id", "retry")

    def __init__(
        self, event: str = "message", data: bytes = b"", id: str | None = None, retry: int | None = None
    ) -> None:
        self.event: Final = event
        self.data: Final = data
        self.id: Final = id
        self.retry: Final = retry


class EventParser:
    """Takes one event stream apart. `last_id` and `retry_ms` are what a reconnect needs; they outlive an event.

    Args:
        max_event: Bytes that one event may hold: its data, and the line under way.
    """

    __slots__ = (
        *("_cr", "_data", "_event", "_fresh", "_id", "_line", "_max", "_open", "_retry", "_start"),
        *("last_id", "retry_ms"),
    )

    def __init__(self, max_event: int) -> None:
        self._max = max_event
        self._start: bytes | None = b""  # the first bytes, while they may become a BOM
        self._cr = False  # the last piece ended in CR: a LF that follows belongs to it
        self._line: bytearray | None = None  # the line under way
        self._fresh = True  # nothing is under way: the next piece may be a whole event
        self.last_id = ""
        self.retry_ms: int | None = None
        self._reset()

    def _reset(self) -> None:
        self._open = False  # a field of the next event has come
        self._data: bytes | bytearray | None = None
        self._event = ""
        self._id: str | None = None
        self._retry: int | None = None

    @property
    def idle(self) -> bool:
        """True between two events: a stream that ends now has lost nothing."""
        return self._line is None and not self._open and not self._start

    @property
    def begun(self) -> bool:
        """Has anything come?"""
        return self._start is None

    def again(self) -> EventParser:
        """A parser for the stream that goes on behind this one's last whole event."""
        parser = EventParser(self._max)
        parser.last_id, parser.retry_ms = self.last_id, self.retry_ms
        return parser

    def feed(self, data: bytes) -> list[Event]:
        """The events that `data` completes, in order; an event without a `data` line is none (it may set `last_id`).

        Raises:
            ParseError: An event is larger than `max_event`. The parser is not to be fed again.
        """
        if self._fresh and (event := self._lone_event(data)) is not None:
            self._start = None
            return [event]
        if self._start is not None:
            data = self._after_bom(data)
        if self._cr and data:
            self._cr = False
            if data[0] == 10:
                data = data[1:]
        if b"\r" in data:
            self._cr = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        events: list[Event] = []
        at, end = 0, len(data)
        if self._line is not None:
            at = self._continue_line(data, events)
        while at < end:
            at = self._next_line(data, at, events)
        self._fresh = not self._open and self._line is None and self._start is None and not self._cr
        return events

    def _lone_event(self, data: bytes) -> Event | None:
        """`data` as one event, if it is exactly that in its usual form; None leaves it to the long way."""
        if data.startswith(PLAIN):
            at = 6
        elif data.startswith(NAMED):
            at = 21
        elif data.startswith(NAMED_CRLF):
            at = 22
        else:
            return None
        size = len(data)
        if size > self._max:
            return None  # near the bound the long way decides, so that cuts change nothing
        cr = data.find(b"\r", at)
        if cr < 0:
            if data.find(b"\n", at) == size - 2 and data[-1] == 10:
                return Event("message", data[at:-2])
        elif cr == size - 4 and data.endswith(b"\r\n\r\n") and data.find(b"\n", at) > cr:
            return Event("message", data[at:cr])
        return None

    def _after_bom(self, data: bytes) -> bytes:
        data = (self._start or b"") + data
        if len(data) < len(BOM) and BOM.startswith(data):
            self._start = data
            return b""
        self._start = None
        return data.removeprefix(BOM)

    def _continue_line(self, data: bytes, events: list[Event]) -> int:
        line = self._line
        assert line is not None
        end = data.find(b"\n")
        piece = data if end < 0 else data[:end]
        if self._held() + len(line) + len(piece) > self._max:
            raise self._too_large()
        line += piece
        if end < 0:
            return len(data)
        self._line = None
        self._take_line(bytes(line), events)
        return end + 1

    def _next_line(self, data: bytes, at: int, events: list[Event]) -> int:
        end = data.find(b"\n", at)
        if end < 0:
            if self._held() + len(data) - at > self._max:
                raise self._too_large()
            self._line = bytearray(data[at:])
            return len(data)
        self._take_line(data[at:end], events)
        return end + 1

    def _take_line(self, line: bytes, events: list[Event]) -> None:
        if not line:
            self._dispatch(events)
            return
        if self._held() + len(line) > self._max:
            raise self._too_large()
        if line.startswith(b":"):
            return
        self._open = True
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._add_data(value)
        elif name == b"event":
            self._event = value.decode(errors="replace")
        elif name == b"id" and b"\0" not in value:
            self._id = value.decode(errors="replace")
        elif name == b"retry" and value.isdigit() and len(value) <= 9:
            self._retry = self.retry_ms = int(value)

    def _add_data(self, value: bytes) -> None:
        if self._data is None:
            self._data = value
            return
        if isinstance(self._data, bytes):
            self._data = bytearray(self._data)  # grows in amortised constant time, whatever the number of lines
        self._data += b"\n"
        self._data += value

    def _dispatch(self, events: list[Event]) -> None:
        if self._id is not None:
            self.last_id = self._id
        if self._data is not None:
            events.append(Event(self._event or "message", bytes(self._data), self._id, self._retry))
        self._reset()

    def _held(self) -> int:
        return 0 if self._data is None else len(self._data) + 1

    def _too_large(self) -> ParseError:
        return ParseError("an event of the stream is too large", detail=f"more than {self._max} bytes")


def encode_event(data: bytes, *, event: str | None = "message", id: str | None = None) -> bytes:
    """One event on the wire. `event` None sends no such line, which reads as "message" too.

    Args:
        data: Usually JSON in one line. A line break in it starts another `data` line; a parser joins them with LF.
    Raises:
        ValueError: `event` or `id` has a line break, or `id` a NUL: they would not arrive as they are.
    """
    if b"\n" in data or b"\r" in data:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\ndata: ")
    if id is None:
        if event == "message":
            return b"event: message\ndata: %b\n\n" % data
        if event is None:
            return b"data: %b\n\n" % data
    head = (f"event: {event}\n" if event is not None else "") + (f"id: {id}\n" if id is not None else "")
    if "\r" in head or "\0" in head or head.count("\n") != (event is not None) + (id is not None):
        raise ValueError("an event name and an id are one line")
    return b"%bdata: %b\n\n" % (head.encode(), data)
