"""Amounts in words: each unit at its edges."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narthex.cli.amounts import counted, size, span

UNITS = {"d": 86_400, "h": 3600, "m": 60, "s": 1}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"), (0.2, "1s"), (59.5, "1m"), (61, "1m 1s"), (3599, "59m 59s"), (3600, "1h"), (3601, "1h 1m"),
        (86_399, "1d"), (86_401, "1d 1h"), (29.9 * 86_400, "29d 22h"),
    ],
)  # fmt: skip
def test_a_span(seconds: float, text: str) -> None:
    assert span(seconds) == text


@given(st.floats(0, 1e9))
def test_who_waits_as_long_as_is_said_has_waited_long_enough(seconds: float) -> None:
    said = [(int(word[:-1]), UNITS[word[-1]]) for word in span(seconds).split()]
    assert len(said) <= 2
    assert seconds <= sum(number * length for number, length in said) <= seconds * 1.05 + 1


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1536, "1.5 KiB"), ((1 << 20) - 1, "1.0 MiB"),
        (5 << 30, "5.0 GiB"), (10**15, "909.5 TiB"), (1 << 70, "1048576.0 PiB"),
    ],
)  # fmt: skip
def test_a_size(number: int, text: str) -> None:
    assert size(number) == text


def test_one_is_one() -> None:
    assert [counted(number, "call") for number in (0, 1, 2)] == ["0 calls", "1 call", "2 calls"]
