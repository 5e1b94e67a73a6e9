"""What a frame makes of an entry is, byte for byte, what is written without one."""

from __future__ import annotations

import os
from collections import deque
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from narthex.flow.policy.admission import Admission
from narthex.flow.policy.check import Check
from narthex.flow.policy.decision import GRANTED, Decision
from narthex.flow.route.target import Target
from narthex.flow.upstream.port import Dialect
from narthex.telemetry.audit.chain import Chain, follow
from narthex.telemetry.frames import MOST, OPEN, RENEW_S, Frames, Short, seal_all
from narthex.telemetry.record import Entry, line_of
from narthex.telemetry.stamps import Ids
from tests.telemetry.test_record import ENTRY, ID, WHO

CALL = replace(
    ENTRY, arguments_digest="sha256:" + "ab" * 32, result_digest="sha256:" + "cd" * 32, definition=b"\x5c" * 32,
    dialect=Dialect("legacy", "2025-11-25", session_id="s1"), upstream_status=200, admission_seconds=3e-5,
    answer_seconds=9e-6,
)  # fmt: skip


def checked(rule: str = "the rule", name: str = "search") -> Check:
    one = Check(Admission(WHO, "default", None, None))
    one.decision, one.target = Decision("allow", GRANTED, rule, 7), Target("github", name, b"")
    return one


LIKE = ("the same",)


def learnt(*entries: Entry, random: Any = os.urandom) -> Frames:
    """What a journal knows that has seen these, which are alike."""
    frames = Frames(random, lambda _: None)
    for one in entries:
        frames.learn(LIKE, (), one, one.at)
    return frames


def short_of(frames: Frames, entry: Entry) -> Short:
    """What of the entry is handed over, if it is like the others."""
    frame = frames.find(LIKE)
    assert frame is not None
    waits = entry.waits or {}
    return Short(
        frame, entry.request, entry.bytes_in, entry.bytes_out, entry.seconds, entry.server_seconds,
        entry.admission_seconds, entry.answer_seconds, entry.arguments_digest, entry.result_digest, entry.trace,
        entry.at, begins=entry.event == "begin", begun=entry.begun, disk_seconds=waits.get("disk", 0.0),
        done=entry.done,
    )  # fmt: skip


def line(frames: Frames, entry: Entry) -> bytes:
    """Its line of the chain, up to its number."""
    return short_of(frames, entry).sealed(ID, 77)


def numbered(entry: Entry) -> bytes:
    return line_of(entry, ID)[:-1] + b',"seq":77'


sizes = st.integers(0, 1 << 40)


@given(
    request=st.integers(-5, 1 << 63).map(str) | st.text(max_size=20).map(lambda text: f'"{text}"'),
    bytes_in=sizes,
    bytes_out=sizes,
    seconds=st.floats(0, 3600),
    admission=st.floats(-1e-9, 3600),
    behind=st.floats(1e-9, 3600),
    server=st.floats(0, 3600),
    at=st.floats(1.5e9, 2e9),
    name=st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
)
def test_it_is_the_same_line(
    request: str,
    bytes_in: int,
    bytes_out: int,
    seconds: float,
    server: float,
    at: float,
    name: str,
    admission: float,
    behind: float,
) -> None:
    digest = "sha256:" + "0" * 64
    first = replace(CALL, name=name, check=checked(name=name), cost=(5, "USD"), server_seconds=server)
    frames = learnt(first, replace(first, result_digest=digest))
    entry = replace(
        first,
        result_digest=digest,
        request=request.encode(errors="replace"),
        bytes_in=bytes_in,
        bytes_out=bytes_out,
        seconds=seconds,
        at=at,
        arguments_digest=digest,
        server_seconds=server and server / 3 + 1e-3,
        admission_seconds=admission,
        answer_seconds=behind,
    )
    assert line(frames, entry) == numbered(entry)


@given(
    begin=st.integers(1, 1 << 50),
    disk=st.floats(0, 60),
    seconds=st.floats(0, 3600),
    server=st.sampled_from([0.0, 2e-3]),
    admission=st.floats(-1e-9, 60),
    behind=st.floats(1e-9, 60),
)
def test_it_is_the_same_line_of_a_call_whose_begin_was_recorded(
    begin: int, disk: float, seconds: float, server: float, admission: float, behind: float
) -> None:
    first = replace(CALL, server_seconds=server, begun=replace(CALL, seq=3), waits={"disk": 1e-4})
    entry = replace(
        first, begun=replace(CALL, seq=begin), waits={"disk": disk}, seconds=seconds, admission_seconds=admission,
        answer_seconds=behind,
    )  # fmt: skip
    assert line(learnt(first, first), entry) == numbered(entry)


@given(size=sizes, at=st.floats(1.5e9, 2e9), trace=st.sampled_from([CALL.trace, ("a" * 32, "b" * 16, "")]))
def test_it_is_the_same_line_of_the_record_that_a_call_begins(
    size: int, at: float, trace: tuple[str, str, str]
) -> None:
    first = replace(
        CALL, event="begin", result_digest="", bytes_out=0, seconds=0.0, server_seconds=0.0, answer_seconds=0.0,
        trace=trace,
    )  # fmt: skip
    entry = replace(first, bytes_in=size, at=at, request=b'"x"', arguments_digest="sha256:" + "0" * 64)
    assert line(learnt(first, first), entry) == numbered(entry)


HEX = "0123456789abcdef"
spans = st.just("") | st.text(HEX, min_size=16, max_size=16)


@given(trace=st.text(HEX, min_size=32, max_size=32), parent=spans, span=spans)
def test_it_is_the_same_line_in_a_trace(trace: str, parent: str, span: str) -> None:
    first = replace(CALL, trace=("a" * 32, parent and "b" * 16, span and "c" * 16))
    entry = replace(CALL, trace=(trace, parent, span))
    assert line(learnt(first, first), entry) == numbered(entry)


def test_it_is_the_same_line_without_arguments() -> None:
    entry = replace(CALL, arguments_digest="")
    assert line(learnt(entry, entry), entry) == numbered(entry)


def test_only_what_comes_again_has_a_frame() -> None:
    assert learnt(CALL).find(LIKE) is None
    assert learnt(CALL, CALL).find(LIKE) is not None
    assert learnt(CALL, CALL).find(("another",)) is None


def test_what_is_no_unicode_has_no_frame_and_whoever_writes_it_says_so() -> None:
    entry = replace(CALL, name="\ud800")
    assert learnt(entry, entry, entry).find(LIKE) is None


def test_what_a_frame_leaves_open_are_members_of_an_entry() -> None:
    assert set(Entry.__struct_fields__) > OPEN


def test_a_crowd_does_not_grow_it_nor_make_it_work() -> None:
    frames = learnt()
    for number in range(MOST):
        frames.learn((number,), (), CALL, 1.0)
    assert all(frames.find((number,)) is None for number in range(MOST))

    def found(now: float) -> list[bool]:
        known = []
        for _ in range(3):
            frames.learn(LIKE, (), CALL, now)
            known.append(frames.find(LIKE) is not None)
        return known

    assert found(2.0) == [False] * 3, "it is full, and begins anew no more than now and then"
    assert found(2.0 + 2 * RENEW_S) == [False, False, True]


def test_marks_without_chance_stand_where_they_are_meant() -> None:
    assert line(learnt(CALL, CALL, random=bytes), CALL) == numbered(CALL)


@pytest.mark.parametrize(
    ("most", "sealed"),
    [
        pytest.param(9, 3, id="up to one that has no frame"),
        pytest.param(2, 2, id="up to so many"),
        pytest.param(0, 0, id="none"),
    ],
)
def test_those_at_the_front_of_a_queue_are_sealed(most: int, sealed: int) -> None:
    frames, chain, lines = learnt(CALL, CALL), Chain("a/0/b"), [b"the line before\n"]
    done = [None, print, None]
    shorts = [short_of(frames, replace(CALL, at=1e9 + number, done=done[number])) for number in range(3)]
    waiting: list[Short] = []
    queue = deque([*shorts, CALL, shorts[0]])
    assert seal_all(queue, most, Ids(os.urandom), chain, lines, waiting) == sealed == chain.seq
    assert [one.seq for one in shorts] == [*range(1, sealed + 1), 0, 0, 0][:3]
    assert waiting == shorts[1:2][: max(0, sealed - 1)]
    assert list(queue) == [*shorts[sealed:], CALL, shorts[0]]
    head = bytes(32)
    for seq, one in enumerate(lines[1:]):
        head = follow(one, seq, head)
    assert head == chain.head
