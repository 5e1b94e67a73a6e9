"""The two header lines, as the draft writes them."""

from __future__ import annotations

from narthex.flow.limit.headers import policy_of, template_of
from narthex.types import LimitRule

CALLS = LimitRule("calls", "calls", 60, window=60_000_000)
DAY = LimitRule('a "day"', "bytes", 1024, algorithm="calendar", period="day")
OPEN = LimitRule("open", "concurrent", 4, algorithm="concurrent")


def test_the_policy_names_each_limit_its_quota_its_unit_and_its_window() -> None:
    line = policy_of([CALLS, DAY, OPEN, CALLS])
    assert line == (
        b'RateLimit-Policy: "calls";q=60;w=60, "a \\"day\\"";q=1024;qu="content-bytes", '
        b'"open";q=4;qu="concurrent-requests"\r\n'
    )
    assert policy_of([]) == b""


def test_what_is_left_is_filled_in_for_each_limit_once() -> None:
    line = template_of([CALLS, DAY, CALLS, LimitRule("100%", "calls", 1, window=1)]) % (7, 2, 0, 3, 1, 0)
    assert line == b'RateLimit: "calls";r=7;t=2, "a \\"day\\"";r=0;t=3, "100%";r=1;t=0\r\n'


def test_a_name_breaks_no_line() -> None:
    assert b"\n" not in policy_of([LimitRule("a\r\nX: y é", "calls", 1, window=1)])[:-2]
