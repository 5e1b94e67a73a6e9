"""What one bucket holds, for people: `narthex limits` and the admin API.

In: a bucket, as the limiter reads it. Out: a `State`.
"""

from __future__ import annotations

import msgspec


class State(msgspec.Struct, frozen=True):
    """One bucket, for people. `resets_in`: seconds until some of it is free again, 0 where nothing is used."""

    limit: str
    unit: str
    per: dict[str, str]
    used: int
    most: int
    resets_in: float
    currency: str = ""
