"""Where the periods of a calendar begin and end, by the clock on the wall of a place.

In: a moment (microseconds since 1970), a period, a zone. Out: the period's first moment and the first behind it.
A day has 23 or 25 hours where clocks are set. Cases: `tests/flow/limit/test_calendar.py`.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from narthex.types import Period

SECOND = 1_000_000
"""All times of this room are whole microseconds."""


def period_of(at: int, period: Period, zone: str) -> tuple[int, int]:
    """The hour, day, week (from Monday) or month that holds `at`."""
    place = ZoneInfo(zone)
    local = datetime.fromtimestamp(at // SECOND, place)
    if period == "hour":  # an hour that comes twice is two hours
        begin = at // SECOND - local.minute * 60 - local.second
        return begin * SECOND, (begin + 3600) * SECOND
    first = local.replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
    if period == "week":
        first -= timedelta(days=first.weekday())
    elif period == "month":
        first = first.replace(day=1)
    if period == "day":
        after = first + timedelta(days=1)
    elif period == "week":
        after = first + timedelta(days=7)
    else:
        after = (first + timedelta(days=32)).replace(day=1)
    return _moment(first, place), _moment(after, place)


def _moment(local: datetime, place: ZoneInfo) -> int:
    """The first moment of a local day; where midnight is left out, the first that there is."""
    return int(local.replace(tzinfo=place).timestamp()) * SECOND
