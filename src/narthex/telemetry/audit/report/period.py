"""The time that a report is of, as people say it.

In: `2026`, `2026-Q4`, `2026-11`, `2026-11-27`, or `FROM..TO`. Out: two times as records have them. Pure.
Cases: `tests/telemetry/audit/report/test_period.py`.
"""

from __future__ import annotations

import re
from datetime import date, timedelta

import msgspec

from narthex.telemetry.audit.reading import moment

_PERIOD = re.compile(r"(\d{4})(?:-(?:Q([1-4])|(\d\d)(?:-(\d\d))?))?", re.ASCII)


class Period(msgspec.Struct, frozen=True):
    """`until` is left out."""

    label: str
    since: str
    until: str


def brief(time: str) -> str:
    """A time as it is typed: a day where it is the first moment of one."""
    return time.removesuffix("T00:00:00.000000Z")


def read_period(text: str) -> Period:
    """Raises ValueError: it is none."""
    if ".." in text:
        first, _, last = text.partition("..")
        since, until = moment(first), moment(last)
        if since >= until:
            raise ValueError(text)
        return Period(text, since, until)
    match = _PERIOD.fullmatch(text)
    if match is None:
        raise ValueError(text)
    year, quarter, month, day = (int(part) if part else 0 for part in match.groups())
    try:
        if day:
            start = date(year, month, day)
            end = start + timedelta(days=1)
        else:
            months = 1 if month else 3 if quarter else 12
            start = date(year, month or (quarter * 3 - 2 if quarter else 1), 1)
            after = start.month - 1 + months
            end = date(year + after // 12, after % 12 + 1, 1)
    except OverflowError:
        raise ValueError(text) from None
    return Period(text, moment(start.isoformat()), moment(end.isoformat()))
