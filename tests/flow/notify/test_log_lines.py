"""Log messages that wait to be passed on: in order, bounded, and what is left out is counted."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from narthex.flow.notify.log_lines import MOST_BYTES, MOST_LINES, MOST_SOURCES, Batch, LogLines, left_out


def test_the_first_says_that_something_waits() -> None:
    lines: LogLines[str] = LogLines()
    assert lines.put("a", b"{}")
    assert not lines.put("a", b'{"x":1}')
    assert not lines.put("b", b"{}")
    assert lines.take() == {"a": Batch([b"{}", b'{"x":1}'], 9), "b": Batch([b"{}"], 2)}
    assert lines.take() == {}
    assert lines.put("a", b"{}")


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(2, MOST_BYTES + 10)), max_size=300))
def test_every_message_is_there_or_counted_and_no_batch_is_larger_than_its_bounds(said: list[tuple[str, int]]) -> None:
    lines: LogLines[str] = LogLines()
    for source, size in said:
        lines.put(source, b"x" * size)
    taken = lines.take()
    for source, batch in taken.items():
        assert len(batch.lines) + batch.left_out == sum(one == source for one, _ in said)
        assert len(batch.lines) <= MOST_LINES
        assert batch.size == sum(map(len, batch.lines)) <= MOST_BYTES


def test_sources_are_bounded() -> None:
    lines: LogLines[int] = LogLines()
    for source in range(MOST_SOURCES + 5):
        lines.put(source, b"{}")
    assert len(lines.take()) == MOST_SOURCES


def test_what_was_left_out_is_said() -> None:
    assert json.loads(left_out("github", 7)) == {
        "level": "warning",
        "logger": "narthex",
        "data": "7 log messages of server github were left out: too many at a time",
    }
