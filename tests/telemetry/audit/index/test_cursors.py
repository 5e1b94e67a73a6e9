"""A cursor goes on with the question that it was given for, and with no other."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narthex.telemetry.audit.index.cursors import read_cursor, show_cursor
from narthex.telemetry.audit.matching import Wanted

ASKED = Wanted(principal="ada")


@given(st.integers(1, (1 << 63) - 1))
def test_a_cursor_is_read_back(place: int) -> None:
    text = show_cursor(ASKED, place)
    assert read_cursor(ASKED, text) == place and text.isascii() and len(text) == 20


def test_no_next_page() -> None:
    assert show_cursor(ASKED, 0) == ""


@pytest.mark.parametrize("text", ["", "x", "ü", "AAAA", show_cursor(Wanted(), 7), show_cursor(ASKED, 7)[:-4] + "AAAA"])
def test_what_is_no_cursor_of_this_question(text: str) -> None:
    with pytest.raises(ValueError):
        read_cursor(ASKED, text)


@given(st.text())
def test_nothing_else_is_raised(text: str) -> None:
    with suppress(ValueError):
        read_cursor(ASKED, text)
