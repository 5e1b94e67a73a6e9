"""What a frame makes of an entry is, byte for byte, what is written without one."""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from narthex.flow.limit.spending import Taken
from narthex.flow.policy.admission import Admission
from narthex.flow.policy.check import Check
from narthex.flow.policy.decision import GRANTED, Decision
from narthex.flow.route.target import Target
from narthex.flow.upstream.port import Dialect
from narthex.telemetry.frames import FILLED, MOST, RENEW_S, Frames
from narthex.telemetry.record import LONGEST, Entry, line_of
from narthex.types import LOCAL
from tests.telemetry.test_record import ENTRY, ID, WHO

CALL = replace(
    ENTRY, arguments_digest="sha256:" + "ab" * 32, result_digest="sha256:" + "cd" * 32, definition=b"\x5c" * 32,
    dialect=Dialect("legacy", "2025-11-25", session_id="s1"), upstream_status=200, admission_seconds=3e-5,
    answer_seconds=9e-6,
)  # fmt: skip


ADMISSION = Admission(WHO, "default", None, None)


def checked(rule: str = "the rule", name: str = "search") -> Check:
    one = Check(ADMISSION)
    one.decision, one.target = Decision("allow", GRANTED, rule, 7), Target("github", name, b"")
    return one


SAME = checked()


def again(**what: Any) -> Check:
    """The same, but for this."""
    one = Check(ADMISSION)
    for name in Check.__slots__:
        setattr(one, name, what.get(name, getattr(SAME, name)))
    return one


def shortened(frames: Frames, entry: Entry) -> bytes:
    """The line of an entry, from the frame that it has after it has come twice."""
    frames.short(entry)
    short = frames.short(entry)
    assert short is not None and short.done is None
    return short.line(ID)


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
    raw = request.encode(errors="replace")
    frames, check = Frames(os.urandom), checked(name=name)
    first = replace(CALL, name=name, check=check, cost=(5, "USD"), server_seconds=server)
    shortened(frames, first)
    digest = "sha256:" + "0" * 64
    first = replace(first, result_digest=digest)
    entry = replace(
        first,
        request=raw,
        bytes_in=bytes_in,
        bytes_out=bytes_out,
        seconds=seconds,
        at=at,
        arguments_digest=digest,
        server_seconds=server and server / 3 + 1e-3,
        admission_seconds=admission,
        answer_seconds=behind,
    )
    short = frames.short(entry)
    assert short is not None
    assert short.line(ID) == line_of(entry, ID)


HEX = "0123456789abcdef"
spans = st.just("") | st.text(HEX, min_size=16, max_size=16)


@given(trace=st.text(HEX, min_size=32, max_size=32), parent=spans, span=spans)
def test_it_is_the_same_line_in_a_trace(trace: str, parent: str, span: str) -> None:
    frames, shape = Frames(os.urandom), ("a" * 32, parent and "b" * 16, span and "c" * 16)
    shortened(frames, replace(CALL, trace=shape))
    entry = replace(CALL, trace=(trace, parent, span))
    short = frames.short(entry)
    assert short is not None
    assert short.line(ID) == line_of(entry, ID)


def test_only_what_comes_again_has_a_frame() -> None:
    frames = Frames(os.urandom)
    assert frames.short(CALL) is None
    assert frames.short(CALL) is not None


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"reason": "denied"}, id="a refusal"),
        pytest.param({"decision_id": ID}, id="an error with its id"),
        pytest.param({"done": print}, id="somebody waits for it"),
        pytest.param({"begun": ENTRY}, id="it says where it began"),
        pytest.param({"arguments_digest": ""}, id="without arguments"),
        pytest.param({"result_digest": ""}, id="without a result"),
        pytest.param({"waits": {"disk": 0.1}}, id="it has waited"),
        pytest.param({"tokens": (1, 2, "estimate")}, id="its tokens are counted"),
        pytest.param({"taken": Taken((), ())}, id="it takes more of limits than the one before, or less"),
        pytest.param({"answer_seconds": 0.0}, id="nobody has answered it"),
        pytest.param({"notes": {}}, id="what it said is kept, or why not"),
        pytest.param({"request": b""}, id="without an id"),
        pytest.param(
            {"check": again(watched=(Decision("hold", "run_labels", "few", 5),))}, id="a rule has held its run"
        ),
        pytest.param({"request": b"1" * (LONGEST + 1)}, id="an id that is left out"),
        pytest.param({"name": "\ud800"}, id="no Unicode: whoever writes it says so"),
    ],
)
def test_what_is_a_record_of_its_own(change: dict[str, Any]) -> None:
    frames, entry = Frames(os.urandom), replace(CALL, **change)
    assert all(frames.short(entry) is None for _ in range(4))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"principal": LOCAL}, id="another caller"),
        pytest.param({"source": "10.0.0.8"}, id="from elsewhere"),
        pytest.param({"outcome": 2}, id="another outcome"),
        pytest.param({"check": checked("another rule")}, id="another rule decided"),
        pytest.param({"check": checked(name="other")}, id="of another thing"),
        pytest.param(
            {"check": again(granted=Decision("allow", GRANTED, "the first", 3))}, id="granted by another rule"
        ),
        pytest.param({"check": again(admission=Admission(WHO, "default", None, None))}, id="when other rules apply"),
        pytest.param({"config": "f00"}, id="another configuration"),
        pytest.param({"cost": (1, "EUR")}, id="another cost"),
        pytest.param({"definition": b"\1" * 32}, id="of a tool that is listed otherwise"),
        pytest.param({"upstream_status": 202}, id="another status"),
        pytest.param({"dialect": Dialect("legacy", "2025-11-25", session_id="s2")}, id="in another session"),
    ],
)
def test_what_is_not_the_same_has_another_frame(change: dict[str, Any]) -> None:
    frames = Frames(os.urandom)
    shortened(frames, replace(CALL, check=SAME))
    other = replace(CALL, **{"check": SAME, **change})
    assert frames.short(other) is None
    assert shortened(frames, other) == line_of(other, ID)


def test_a_member_of_an_entry_is_filled_in_or_found_by() -> None:
    assert set(Entry.__struct_fields__) > FILLED


def test_a_crowd_does_not_grow_it_nor_make_it_work() -> None:
    frames = Frames(os.urandom)
    for number in range(MOST):
        assert frames.short(replace(CALL, session=str(number), at=1.0)) is None
    late = replace(CALL, at=2.0)
    assert [frames.short(late) for _ in range(3)] == [None] * 3, "it is full, and begins anew no more than now and then"
    much_later = replace(CALL, at=2.0 + 2 * RENEW_S)
    assert [frames.short(much_later) is None for _ in range(3)] == [True, True, False]


def test_marks_without_chance_stand_where_they_are_meant() -> None:
    frames = Frames(bytes)
    assert shortened(frames, CALL) == line_of(CALL, ID)
