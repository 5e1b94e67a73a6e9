"""A period is what people say, and never another one."""

from __future__ import annotations

import pytest

from narthex.telemetry.audit.report.period import read_period


@pytest.mark.parametrize(
    ("text", "since", "until"),
    [
        ("2026", "2026-01-01", "2027-01-01"),
        ("2026-Q1", "2026-01-01", "2026-04-01"),
        ("2026-Q4", "2026-10-01", "2027-01-01"),
        ("2026-02", "2026-02-01", "2026-03-01"),
        ("2026-12", "2026-12-01", "2027-01-01"),
        ("2024-02-29", "2024-02-29", "2024-03-01"),
        ("2026-12-31", "2026-12-31", "2027-01-01"),
        ("2026-10-01..2026-11-15", "2026-10-01", "2026-11-15"),
    ],
)
def test_periods(text: str, since: str, until: str) -> None:
    period = read_period(text)
    assert (period.since, period.until) == (f"{since}T00:00:00.000000Z", f"{until}T00:00:00.000000Z")
    assert period.label == text


@pytest.mark.parametrize(
    "text",
    ["", "last month", "2026-Q5", "2026-13", "2026-02-30", "26", "2026-11-27T09", "2026-11..2026-10", "2026..",
     "..2026", "2026-11..2026-11", "9999", "9999-12-31", "0000", "2026-Q1-01", "٢٠٢٦"],
)  # fmt: skip
def test_what_is_no_period(text: str) -> None:
    with pytest.raises(ValueError):
        read_period(text)
