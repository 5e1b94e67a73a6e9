"""Tables of all commands: in a terminal that is too narrow a row goes on below, and no cell is broken."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narthex.cli.kept import flowed, table_lines, table_width

ROWS = [("name", "since", "reason"), ("ci", "2026-11-27 09:30", "GDPR art. 17"), ("helpdesk-bot", "-", "-")]


@pytest.mark.parametrize(
    ("width", "row"),
    [
        pytest.param(0, ["ci             2026-11-27 09:30   GDPR art. 17"], id="not a terminal"),
        pytest.param(46, ["ci             2026-11-27 09:30   GDPR art. 17"], id="it has room"),
        pytest.param(45, ["ci             2026-11-27 09:30", "    GDPR art. 17"], id="the last column goes below"),
        pytest.param(20, ["ci", "    2026-11-27 09:30", "    GDPR art. 17"], id="each goes below"),
    ],
)
def test_a_row(width: int, row: list[str]) -> None:
    lines = table_lines(ROWS, width)
    assert lines[len(row) : 2 * len(row)] == row
    assert len(lines) == len(row) * len(ROWS), "every row is folded alike"


def test_without_room_columns_in_which_nothing_stands_are_left_out() -> None:
    rows = [("id", "held", "failed"), ("trip-7", "-", "2"), ("trip-8", "-", "-")]
    assert table_lines(rows, 80)[1] == "trip-7   -      2"
    assert table_lines(rows, 20)[1:] == ["trip-7   2", "trip-8   -"]


@pytest.mark.parametrize(
    ("width", "lines"),
    [
        pytest.param(0, ["head one, two"], id="not a terminal"),
        pytest.param(9, ["head one,", "  two"], id="what has no room goes below"),
        pytest.param(3, ["head", "  one,", "  two"], id="a longer word stands alone"),
    ],
)
def test_words_flow(width: int, lines: list[str]) -> None:
    assert flowed(["head", "one,", "two"], "  ", width) == lines


def test_a_colour_takes_no_room() -> None:
    assert len(flowed(["\x1b[32mhead\x1b[0m", "one"], "  ", 8)) == 1
    assert len(flowed(["head", "one"], "  ", 8, gap=2)) == 2


CELLS = st.text("ab", max_size=20)
TABLES = st.integers(1, 4).flatmap(lambda count: st.lists(st.tuples(*[CELLS] * count), min_size=1, max_size=4))


@given(st.integers(1, 60), TABLES)
def test_no_cell_is_lost_or_broken(width: int, rows: list[tuple[str, ...]]) -> None:
    lines = table_lines(rows, width)[len(table_lines(rows, width)) // len(rows) :]
    assert " ".join(lines).split() == [cell for row in rows[1:] for cell in row if cell]
    widest = max(len(cell) for row in rows for cell in row)
    assert all(len(line) <= max(width, widest + 4) for line in lines)
    if table_width(rows) <= width:
        assert len(lines) == len(rows) - 1
