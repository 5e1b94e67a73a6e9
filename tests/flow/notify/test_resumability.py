"""Resumability: what a client gets back is all that it missed on that stream, or nothing at all, whatever happened."""

from __future__ import annotations

import itertools
import re
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from narthex.errors import HttpRefusal
from narthex.flow.codec.sse import EventParser
from narthex.flow.notify.resumability import EVENT_COST, STREAM_COST, Bounds, EventLog, Logs, Stream, retry_event

KEEP_S, FINISHED_S = 100.0, 10.0
WIDE = Bounds(keep_s=KEEP_S, finished_s=FINISHED_S)


def new_logs(bounds: Bounds = WIDE) -> Logs:
    numbers = itertools.count(1)
    return Logs(random=lambda size: next(numbers).to_bytes(size, "big"), bounds=bounds)


def id_of(wire: bytes) -> bytes:
    found = re.search(rb"^id: (.*)$", wire, re.MULTILINE)
    assert found is not None
    return found[1]


def refused(logs: Logs, session: str, last_event_id: bytes) -> bool:
    try:
        logs.replay(session, last_event_id)
    except HttpRefusal as refusal:
        assert (refusal.status, refusal.reason) == (400, "cannot_resume")
        return True
    return False


# --- on the wire


def test_a_parser_reads_what_is_sent() -> None:
    stream, parser = new_logs().open("s", None), EventParser(1000)
    wire = stream.prime(3000) + stream.append(b'{"n":1}', 0) + retry_event(500) + stream.append(b"a\nb", 0)
    read = [(event.id, event.data, event.retry) for event in parser.feed(wire)]
    tag = "0000000000000001"
    assert read == [(f"{tag}-1-0", b"", 3000), (f"{tag}-1-1", b'{"n":1}', None), (f"{tag}-1-2", b"a\nb", None)]
    assert (parser.retry_ms, parser.last_id) == (500, f"{tag}-1-2")


def test_a_retry_is_no_event_of_its_own() -> None:
    assert EventParser(1000).feed(retry_event(500)) == []
    assert new_logs().open("s", None).prime().count(b"retry") == 0


# --- what is given again


def test_a_client_gets_what_it_missed_of_its_stream_alone() -> None:
    logs = new_logs()
    answer, standalone = logs.open("s", "post"), logs.open("s", "get")
    primed = id_of(answer.prime())
    first = answer.append(b"1", 0)
    other = standalone.append(b"other", 0)
    second, third = answer.append(b"2", 0), answer.append(b"3", 0)
    assert logs.replay("s", primed) == (answer, [first, second, third])
    assert logs.replay("s", id_of(first)) == (answer, [second, third])
    assert logs.replay("s", id_of(third)) == (answer, []), "nothing was missed"
    assert logs.replay("s", id_of(other)) == (standalone, [])


def test_an_answer_is_kept_for_a_client_that_lost_it() -> None:
    logs = new_logs()
    stream = logs.open("s", "connection")
    primed = id_of(stream.prime())
    stream.detach("connection", 0)
    answer = stream.append(b"answer", 50)
    stream.finish(50)
    logs.sweep(50 + FINISHED_S - 1)
    found, events = logs.replay("s", primed)
    assert (found.finished, events) == (True, [answer])
    assert found.attach("another") is None
    found.detach("another", 55)
    assert logs.sweep(50 + FINISHED_S) == 1, "being resumed does not prolong a finished stream"
    assert refused(logs, "s", primed)
    assert (len(logs), logs.size) == (0, 0)


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"1", id="not ours"),
        pytest.param(b"0000000000000001-1", id="no position"),
        pytest.param(b"0000000000000001-1-1-1", id="too many parts"),
        pytest.param(b"0000000000000001-1-3", id="a position that was not sent yet"),
        pytest.param(b"0000000000000001-3-0", id="a stream that is not there"),
        pytest.param(b"0000000000000001-2-1", id="a position of another stream"),
        pytest.param(b"0000000000000002-1-1", id="of another session"),
        pytest.param(b"000000000000000A-1-1", id="upper case"),
        pytest.param(b"0000000000000001-01-1", id="a leading zero"),
        pytest.param(b"0000000000000001-1-+1", id="a sign"),
        pytest.param(b"0000000000000001-1- 1", id="white space"),
        pytest.param(b"0000000000000001-1-1\n", id="a line break"),
        pytest.param("0000000000000001-1-\u0661".encode(), id="another script's digit"),
        pytest.param(b"0000000000000001-1-" + b"9" * 10_000, id="a number too long to be one"),
        pytest.param(b"\xff\x00", id="bytes"),
    ],
)
def test_what_is_no_id_of_this_session_is_refused(bad: bytes) -> None:
    logs = new_logs()
    stream = logs.open("s", None)
    for data in (b"1", b"2"):
        stream.append(data, 0)
    logs.open("s", None)
    logs.open("t", None).append(b"t", 0)
    assert refused(logs, "s", bad)
    assert refused(logs, "unknown", bad)
    assert not refused(logs, "s", b"0000000000000001-1-1")


def test_ids_of_a_log_that_went_never_fit_its_successor() -> None:
    logs = new_logs()
    before = id_of(logs.open("s", None).append(b"before", 0))
    logs.end("s")
    after = logs.open("s", None)
    after.append(b"after", 0)
    after.append(b"more", 0)
    assert refused(logs, "s", before)


# --- a gap is told, never skipped


def kept(logs: Logs, wires: list[bytes]) -> str:
    """Which of `wires` can be resumed after: y or n."""
    return "".join("n" if refused(logs, "s", id_of(wire)) else "y" for wire in wires)


def test_a_stream_that_is_over_keeps_no_call() -> None:
    stream = new_logs().open("s", "the call")
    stream.append(b'{"n":1}', 0)
    stream.finish(0)
    assert stream.writer is None


def test_of_too_many_events_the_oldest_go() -> None:
    logs = new_logs(Bounds(events=3))
    stream = logs.open("s", None)
    wires = [stream.prime(), *(stream.append(b"%d" % n, 0) for n in range(5))]
    assert kept(logs, wires) == "nnyyyy"
    assert logs.replay("s", id_of(wires[2]))[1] == wires[3:]


def test_of_too_many_bytes_the_oldest_go_whatever_their_stream() -> None:
    room = 2 * STREAM_COST + 3 * EVENT_COST + 3 * 100
    logs = new_logs(Bounds(size=room))
    one, two = logs.open("s", None), logs.open("s", None)
    wires = [one.append(b"x" * 20, 0), two.append(b"x" * 20, 0), one.append(b"x" * 20, 0)]
    assert kept(logs, wires) == "yyy"
    wires.append(two.append(b"x" * 200, 0))
    assert kept(logs, [one.prime(), *wires]) == "yyyyy", "what was sent first is known to be received"
    assert logs.replay("s", id_of(wires[1])) == (two, [wires[3]])
    assert refused(logs, "s", id_of(wires[0])[:-1] + b"0"), "its first event was dropped"
    assert logs.size <= room


def test_an_event_too_large_to_keep_is_sent_and_is_a_gap() -> None:
    logs = new_logs(Bounds(size=STREAM_COST + 2 * EVENT_COST + 200))
    stream = logs.open("s", None)
    first, large, last = stream.append(b"1", 0), stream.append(b"x" * 1000, 0), stream.append(b"2", 0)
    assert b"x" * 1000 in large
    assert kept(logs, [first, large, last]) == "nyy"
    assert logs.replay("s", id_of(large))[1] == [last]


def test_streams_take_room_too() -> None:
    room = 2 * STREAM_COST + EVENT_COST + 100
    logs = new_logs(Bounds(size=room))
    one = logs.open("s", None)
    wires = [one.append(b"x", 0), one.append(b"x", 0)]
    assert kept(logs, [one.prime(), *wires]) == "yyy"
    logs.open("s", None)
    assert (kept(logs, wires), logs.size <= room) == ("yy", True)
    assert refused(logs, "s", id_of(wires[0])[:-1] + b"0")
    wires.append(one.append(b"x" * STREAM_COST, 0))
    assert (kept(logs, wires), logs.size <= room) == ("nny", True), "too large for what the streams leave"


def test_a_stream_that_is_dropped_cannot_be_resumed_and_goes_on() -> None:
    logs = new_logs()
    stream = logs.open("s", "connection")
    before = stream.append(b"1", 0)
    stream.drop()
    stream.drop()
    after = stream.append(b"2", 0)
    assert id_of(after).endswith(b"-1-2")
    stream.finish(0)
    assert kept(logs, [before, after]) == "nn"
    assert logs.size == 0
    assert (logs.sweep(0), len(logs)) == (1, 0)


def test_of_too_many_streams_that_goes_which_would_be_forgotten_first() -> None:
    logs = new_logs(Bounds(streams=3))
    read, left, finished = (logs.open("s", name) for name in ("read", "left", "finished"))
    left.detach("left", 0)
    finished.finish(0)
    gone = []
    for _ in range(4):
        logs.open("s", "new")
        gone.append("".join("-" if one.kept else "x" for one in (read, left, finished)))
    assert gone == ["--x", "-xx", "xxx", "xxx"]


# --- time


def test_what_is_read_is_kept_and_its_events_age() -> None:
    logs = new_logs()
    stream = logs.open("s", "connection")
    early, late = stream.append(b"early", 0), stream.append(b"late", KEEP_S - 1)
    assert logs.sweep(KEEP_S) == 0
    assert kept(logs, [stream.prime(), early, late]) == "yyy"
    assert refused(logs, "s", id_of(early)[:-1] + b"0")
    logs.sweep(1e9)
    assert kept(logs, [early, late]) == "ny", "who missed nothing can go on after days"


def test_a_stream_that_nobody_reads_is_forgotten() -> None:
    logs = new_logs()
    stream = logs.open("s", "one")
    primed = id_of(stream.prime())
    stream.detach("one", 0)
    logs.sweep(KEEP_S - 1)
    assert logs.replay("s", primed) == (stream, [])
    assert stream.attach("two") is None
    assert logs.sweep(1e9) == 0
    stream.detach("two", 1e9)
    assert logs.sweep(1e9 + KEEP_S) == 1
    assert logs.size == 0


def test_the_connection_before_gives_way_and_its_late_end_changes_nothing() -> None:
    logs = new_logs()
    stream = logs.open("s", "one")
    assert stream.attach("two") == "one"
    stream.detach("one", 0)
    assert stream.writer == "two"
    assert logs.sweep(1e9) == 0


# --- all sessions


def test_of_too_many_bytes_in_all_the_session_longest_unused_goes_whole() -> None:
    each = STREAM_COST + EVENT_COST + 100
    logs = new_logs(Bounds(size=10_000, all_size=3 * each))
    wires = {}
    for name in "abc":
        wires[name] = logs.open(name, None).append(b"x" * 20, 0)
    logs.replay("a", id_of(wires["a"]))
    d = logs.open("d", None)
    assert [refused(logs, name, id_of(wires[name])) for name in "abc"] == [False, True, False]
    d.append(b"x" * 2000, 0)
    assert [refused(logs, name, id_of(wires[name])) for name in "abc"] == [True, True, True]
    assert len(logs) == 1


def test_an_ended_session_leaves_nothing_and_its_streams_go_on() -> None:
    logs = new_logs()
    stream = logs.open("s", "connection")
    wire = stream.append(b"1", 0)
    logs.end("s")
    logs.end("s")
    stream.append(b"2", 0)
    stream.detach("connection", 0)
    stream.finish(0)
    assert (len(logs), logs.size, refused(logs, "s", id_of(wire))) == (0, 0, True)


def test_ten_thousand_sessions_whose_clients_vanish_leave_nothing() -> None:
    logs = new_logs(Bounds(keep_s=KEEP_S, all_size=1 << 30))
    for n in range(10_000):
        stream = logs.open(f"s{n}", n)
        stream.append(b"x", 0)
        stream.detach(n, 1)
    assert sum(logs.sweep(KEEP_S) for _ in range(10)) == 0
    assert [logs.sweep(1 + KEEP_S) for _ in range(11)] == [1000] * 10 + [0]
    assert (len(logs), logs.size, logs._sessions, logs._round) == (0, 0, {}, [])


# --- whatever happens

SESSIONS = ["s", "t"]
TIGHT = Bounds(
    events=4,
    streams=3,
    size=3 * STREAM_COST + 6 * EVENT_COST,
    all_size=5 * STREAM_COST + 8 * EVENT_COST,
    keep_s=KEEP_S,
    finished_s=FINISHED_S,
)


class Life(RuleBasedStateMachine):
    """Streams send, connections break, time passes; clients come back with any id they ever saw, in any session."""

    streams = Bundle("streams")
    ids = Bundle("ids")

    def __init__(self) -> None:
        super().__init__()
        self.logs = new_logs(TIGHT)
        self.now = 0.0
        self.sent: dict[Stream, list[bytes]] = {}
        self.session_of: dict[Stream, str] = {}
        self.source: dict[bytes, tuple[Stream, int]] = {}  # what an id stands for

    @rule(target=streams, session=st.sampled_from(SESSIONS))
    def opens(self, session: str) -> Any:
        stream = self.logs.open(session, "first")
        self.sent[stream], self.session_of[stream] = [], session
        self.source[id_of(stream.prime())] = (stream, 0)
        return stream

    @rule(target=ids, stream=streams, size=st.sampled_from([1, 100, 500, 5000]))
    def sends(self, stream: Stream, size: int) -> bytes:
        wire = stream.append(b"x" * size, self.now)
        self.sent[stream].append(wire)
        assert id_of(wire) not in self.source, "ids are unique"
        self.source[id_of(wire)] = (stream, len(self.sent[stream]))
        if stream.kept and size < 1000:
            before = b"%b-%d" % (id_of(wire).rpartition(b"-")[0], len(self.sent[stream]) - 1)
            assert self.logs.replay(self.session_of[stream], before) == (stream, [wire]), "the latest is always kept"
        return id_of(wire)

    @rule(target=ids, stream=streams)
    def primes(self, stream: Stream) -> Any:
        return id_of(stream.prime()) if not self.sent[stream] else multiple()

    @rule(stream=streams, how=st.sampled_from(["attach", "detach", "finish", "drop"]))
    def changes(self, stream: Stream, how: str) -> None:
        if how == "attach":
            stream.attach("second")
        elif how == "detach":
            stream.detach(stream.writer, self.now)
        elif how == "finish":
            stream.finish(self.now)
        else:
            stream.drop()

    @rule(stream=consumes(streams))
    def is_never_heard_of_again(self, stream: Stream) -> None:
        stream.detach(stream.writer, self.now)

    @rule(seconds=st.sampled_from([1.0, FINISHED_S, KEEP_S / 2, KEEP_S]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        for _ in range(2):
            self.logs.sweep(self.now)

    @rule(session=st.sampled_from(SESSIONS))
    def a_session_ends(self, session: str) -> None:
        self.logs.end(session)
        assert not any(one.kept for one, of in self.session_of.items() if of == session)

    @rule(id=ids, session=st.sampled_from(SESSIONS))
    def a_client_comes_back(self, id: bytes, session: str) -> None:
        stream, position = self.source[id]
        try:
            found, events = self.logs.replay(session, id)
        except HttpRefusal:
            may = session == self.session_of[stream] and stream.kept
            assert not (may and position == len(self.sent[stream])), "who missed nothing is never refused"
            return
        assert (found, self.session_of[found]) == (stream, session)
        assert events == self.sent[stream][position:], "all that was missed, and nothing else"

    @rule(id=st.binary(max_size=30), session=st.sampled_from(SESSIONS))
    def somebody_guesses(self, id: bytes, session: str) -> None:
        assert id in self.source or refused(self.logs, session, id)

    @invariant()
    def bounds_hold_and_the_sums_agree(self) -> None:
        total = 0
        for log in self.logs._logs.values():
            costs = sum(len(wire) + EVENT_COST for _, wire in log._events.values())
            assert log.size == costs + STREAM_COST * len(log)
            assert log.size <= TIGHT.size and len(log) <= TIGHT.streams
            for stream in log._streams.values():
                assert sum(number == stream.number for number, _ in log._events) <= TIGHT.events
            total += log.size
        assert total == self.logs.size <= TIGHT.all_size

    def teardown(self) -> None:
        for stream in self.sent:
            stream.detach(stream.writer, self.now)
        for _ in range(2):
            self.logs.sweep(self.now + KEEP_S)
        assert (len(self.logs), self.logs.size, self.logs._sessions) == (0, 0, {})


Life.TestCase.settings = settings(deadline=None)
TestLife = Life.TestCase


def test_a_log_alone_needs_no_registry() -> None:
    log = EventLog("a")
    stream = log.open(None)
    wire = stream.append(b"1", 0)
    assert log.replay(b"a-1-0") == (stream, [wire])
    log.clear()
    assert (log.size, len(log)) == (0, 0)
