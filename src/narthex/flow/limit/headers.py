"""What a limited call's answer says of its limits: `RateLimit-Policy` and `RateLimit`.

In: the limits that a call counts in, and what is left of each. Out: header lines: a client can slow down in time.
Cases: `tests/flow/limit/test_headers.py`. Source: draft-ietf-httpapi-ratelimit-headers-10, §3 and §4; RFC 9651 §3.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from narthex.types import LimitRule

_UNITS = {"calls": "", "concurrent": ';qu="concurrent-requests"', "bytes": ';qu="content-bytes"'}


def is_told(rule: LimitRule) -> bool:
    """Is a client told of this limit? What money is left is the operator's business, and a soft one stops nobody."""
    return rule.unit != "money" and not rule.soft


def policy_of(rules: Sequence[LimitRule]) -> bytes:
    """The line that says which limits there are; empty where a client is told of none."""
    items = dict.fromkeys(_policy(rule) for rule in rules)
    return f"RateLimit-Policy: {', '.join(items)}\r\n".encode() if items else b""


def template_of(rules: Sequence[LimitRule]) -> bytes:
    """The line that says how much is left, to be filled with amount and seconds of each limit: until there is more."""
    items = [_string(name).replace("%", "%%") + ";r=%d;t=%d" for name in dict.fromkeys(rule.name for rule in rules)]
    return f"RateLimit: {', '.join(items)}\r\n".encode()


def _policy(rule: LimitRule) -> str:
    unit = _UNITS.get(rule.unit, f';qu="{rule.unit}"')
    window = f";w={max(1, rule.window // 1_000_000)}" if rule.window else ""
    return f"{_string(rule.name)};q={rule.most}{unit}{window}"


def _string(text: str) -> str:
    """A structured field's string: printable ASCII, two characters escaped."""
    return '"' + re.sub(r'(["\\])', r"\\\1", re.sub(r"[^\x20-\x7e]", "?", text)) + '"'
