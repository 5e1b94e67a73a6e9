"""Where periods begin and end: a row a rule."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narthex.flow.limit.calendar import SECOND, period_of
from narthex.types import Period


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * SECOND


@pytest.mark.parametrize(
    ("period", "zone", "moment", "start", "end"),
    [
        pytest.param("day", "UTC", "2026-11-27T10:00", "2026-11-27T00:00", "2026-11-28T00:00", id="a day"),
        pytest.param("day", "UTC", "2026-11-27T00:00", "2026-11-27T00:00", "2026-11-28T00:00", id="begins at midnight"),
        pytest.param("day", "Asia/Tokyo", "2026-11-27T20:00", "2026-11-27T15:00", "2026-11-28T15:00", id="of a place"),
        pytest.param(
            "day", "Europe/Lisbon", "2026-10-25T10:00", "2026-10-24T23:00", "2026-10-26T00:00", id="25 hours in autumn"
        ),
        pytest.param(
            "day", "Europe/Lisbon", "2026-03-29T10:00", "2026-03-29T00:00", "2026-03-29T23:00", id="23 hours in spring"
        ),
        pytest.param("week", "UTC", "2026-11-29T23:59", "2026-11-23T00:00", "2026-11-30T00:00", id="from Monday"),
        pytest.param(
            "month", "UTC", "2026-12-31T23:59", "2026-12-01T00:00", "2027-01-01T00:00", id="over a year's end"
        ),
        pytest.param("month", "UTC", "2028-02-29T00:00", "2028-02-01T00:00", "2028-03-01T00:00", id="a leap year"),
        pytest.param(
            "hour", "Asia/Kolkata", "2026-11-27T10:10", "2026-11-27T09:30", "2026-11-27T10:30", id="half hours"
        ),
    ],
)
def test_a_period(period: Period, zone: str, moment: str, start: str, end: str) -> None:
    assert period_of(at(moment), period, zone) == (at(start), at(end))


@given(
    st.integers(10**15, 4 * 10**15),
    st.sampled_from(("hour", "day", "week", "month")),
    st.sampled_from(("UTC", "Europe/Lisbon", "America/Sao_Paulo", "Australia/Lord_Howe", "Asia/Kathmandu")),
)
def test_every_moment_is_in_its_period_and_periods_follow_each_other(moment: int, period: Period, zone: str) -> None:
    start, end = period_of(moment, period, zone)
    assert start <= moment < end
    assert period_of(end, period, zone)[0] == end
    assert period_of(start, period, zone) == (start, end)
