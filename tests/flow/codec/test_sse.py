"""Event streams: the rules of the HTML living standard, whatever the cuts, and our bound on an event."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narthex.errors import ParseError
from narthex.flow.codec.sse import EventParser, encode_event

Seen = list[tuple[str, bytes, str | None, int | None]]


def read(*pieces: bytes, max_event: int = 1 << 20) -> Seen:
    parser = EventParser(max_event)
    return [(e.event, e.data, e.id, e.retry) for piece in pieces for e in parser.feed(piece)]


def message(data: bytes, id: str | None = None, retry: int | None = None) -> tuple[str, bytes, str | None, int | None]:
    return ("message", data, id, retry)


RULES = [
    pytest.param(b"data: a\n\n", [message(b"a")], id="LF ends a line"),
    pytest.param(b"data: a\r\n\r\n", [message(b"a")], id="CRLF ends a line"),
    pytest.param(b"data: a\r\r", [message(b"a")], id="CR ends a line"),
    pytest.param(
        b"data: a\r\rdata: b\n\ndata: c\r\n\r\n", [message(b"a"), message(b"b"), message(b"c")], id="mixed ends"
    ),
    pytest.param(b"data: a\r\n\ndata: b\n\r\n", [message(b"a"), message(b"b")], id="CRLF then LF is two ends"),
    pytest.param(b"\xef\xbb\xbfdata: a\n\n", [message(b"a")], id="one BOM at the start is dropped"),
    pytest.param(b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\n", [], id="a second BOM is part of a field name"),
    pytest.param(b"data: a\n\n\xef\xbb\xbfdata: b\n\n", [message(b"a")], id="a BOM later is part of a field name"),
    pytest.param(b": hello\n\n:\ndata: a\n:x\n\n", [message(b"a")], id="comments are skipped"),
    pytest.param(b"data: a\ndata: b\ndata: c\n\n", [message(b"a\nb\nc")], id="data lines are joined by LF"),
    pytest.param(b"data\n\ndata\ndata\n\ndata:", [message(b""), message(b"\n")], id="the standard's own example"),
    pytest.param(b"data:test\n\ndata: test\n\n", [message(b"test")] * 2, id="one space after the colon is dropped"),
    pytest.param(b"data:  x \n\n", [message(b" x ")], id="only one space is dropped"),
    pytest.param(b"data: a: b\n\n", [message(b"a: b")], id="only the first colon parts"),
    pytest.param(
        b"event: ping\ndata: a\n\ndata: b\n\n", [("ping", b"a", None, None), message(b"b")], id="event names one"
    ),
    pytest.param(b"event: ping\n\ndata: b\n\n", [message(b"b")], id="an event without data is none"),
    pytest.param(b"event:\ndata: b\n\n", [message(b"b")], id="an empty name is message"),
    pytest.param(b"id: 7\ndata: a\n\ndata: b\n\n", [message(b"a", "7"), message(b"b")], id="id is said once"),
    pytest.param(b"id: 7\nid: \0\ndata: a\n\n", [message(b"a", "7")], id="an id with NUL is ignored"),
    pytest.param(b"id\ndata: a\n\n", [message(b"a", "")], id="an empty id resets"),
    pytest.param(b"retry: 250\ndata: a\n\n", [message(b"a", None, 250)], id="retry is milliseconds"),
    pytest.param(
        b"retry: 2.5\nretry: -1\nretry: \xd9\xa1\nretry:\ndata: a\n\n", [message(b"a")], id="retry: digits only"
    ),
    pytest.param(b"retry: " + b"9" * 5000 + b"\ndata: a\n\n", [message(b"a")], id="an absurd retry is ignored"),
    pytest.param(b"Data: a\nfoo: b\n data: c\ndata: d\n\n", [message(b"d")], id="unknown fields are ignored"),
    pytest.param("event: píng\ndata: ü€😀\n\n".encode(), [("píng", "ü€😀".encode(), None, None)], id="UTF-8"),
    pytest.param(b"event: \xff\ndata: \xff\n\n", [("\ufffd", b"\xff", None, None)], id="data stay the bytes they are"),
    pytest.param(b"event: message\ndata: a\n\n", [message(b"a")], id="the usual form"),
    pytest.param(b"event: message\r\ndata: a\r\n\r\n", [message(b"a")], id="the usual form with CRLF"),
    pytest.param(b"data: a\ndata: b\r\n\r\n", [message(b"a\nb")], id="LF before a CRLF end"),
    pytest.param(b"data: a\n", [], id="an event that does not end is none"),
]


@pytest.mark.parametrize(("stream", "events"), RULES)
def test_rule(stream: bytes, events: Seen) -> None:
    assert read(stream) == events
    assert read(*[stream[i : i + 1] for i in range(len(stream))]) == events, "byte by byte"
    for cut in range(len(stream)):
        assert read(stream[:cut], stream[cut:]) == events, f"cut at {cut}"


LINES = st.sampled_from(
    [b"data: x", b"data", b"data:", b"data:  y", b"id: 1", b"id: \0", b"event: message", b"event: z", b"retry: 5"]
    + [b": c", b"", b"", b"", b"junk", "data: é€".encode(), b"\xef\xbb\xbf"]
)
STREAMS = st.lists(st.tuples(LINES, st.sampled_from([b"\n", b"\r", b"\r\n"])), max_size=20).map(
    lambda lines: b"".join(line + end for line, end in lines)
)


@given(stream=STREAMS, cuts=st.lists(st.integers(0, 150), max_size=12))
def test_cuts_change_nothing(stream: bytes, cuts: list[int]) -> None:
    places = sorted({0, len(stream), *(c for c in cuts if c < len(stream))})
    pieces = [stream[a:b] for a, b in zip(places, places[1:], strict=False)]
    assert read(*pieces) == read(stream)


@given(stream=STREAMS)
def test_the_short_way_says_what_the_long_way_says(stream: bytes) -> None:
    """A byte alone is never a whole event."""
    parser = EventParser(1 << 20)
    long_way = [event for byte in stream for event in parser.feed(bytes([byte]))]
    assert read(stream) == [(e.event, e.data, e.id, e.retry) for e in long_way]


@given(
    data=st.recursive(st.text() | st.integers(), lambda c: st.lists(c, max_size=3), max_leaves=5).map(
        lambda value: json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")
    ),
    event=st.sampled_from(["message", "endpoint", None]),
    id=st.none() | st.text(st.characters(exclude_characters="\r\n\0", exclude_categories=["Cs"]), max_size=5),
)
def test_what_is_encoded_is_read_back(data: bytes, event: str | None, id: str | None) -> None:
    assert read(encode_event(data, event=event, id=id)) == [(event or "message", data, id, None)]


def test_line_breaks_in_data_become_data_lines() -> None:
    assert encode_event(b"{\r\n\n}\r") == b"event: message\ndata: {\ndata: \ndata: }\ndata: \n\n"


@pytest.mark.parametrize("bad", ["a\nb", "a\rb", "a\0b"])
def test_an_id_that_would_break_the_stream_is_refused(bad: str) -> None:
    with pytest.raises(ValueError):
        encode_event(b"{}", id=bad)


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param([b"data: " + b"x" * 100 + b"\n\n"], id="one piece"),
        pytest.param([b"data: "] + [b"x" * 10] * 10, id="a line that never ends"),
        pytest.param([b"data: xxxx\n"] * 20, id="many data lines"),
        pytest.param([b"data\n"] * 101, id="many empty data lines"),
        pytest.param([b":" + b"x" * 120], id="a comment that never ends"),
        pytest.param([b"event: " + b"x" * 100 + b"\n"], id="a long name"),
    ],
)
def test_an_event_over_the_bound_ends_the_stream(pieces: list[bytes]) -> None:
    with pytest.raises(ParseError, match="too large"):
        read(*pieces, max_event=90)


def test_an_endless_stream_of_small_events_is_no_large_event() -> None:
    assert len(read(*[b": ping\n\ndata: 12345678\n\n"] * 100, max_event=90)) == 100


def test_last_id_and_retry_outlive_an_event() -> None:
    parser = EventParser(1000)
    assert parser.feed(b"id: 5\nretry: 100\n\n") == []
    assert (parser.last_id, parser.retry_ms) == ("5", 100)
    assert parser.feed(b"id: 6\ndata: x\n") == []
    assert parser.last_id == "5", "an id counts once its event is dispatched"
    (event,) = parser.feed(b"\n")
    assert (event.event, event.data, event.id, event.retry) == ("message", b"x", "6", None)
    assert parser.last_id == "6"


def test_idle_says_whether_an_event_is_under_way() -> None:
    parser = EventParser(1000)
    states = [parser.idle]
    for piece in (b"da", b"ta: x\n", b"\n", b": c", b"\n"):
        parser.feed(piece)
        states.append(parser.idle)
    assert states == [True, False, False, True, False, True]
