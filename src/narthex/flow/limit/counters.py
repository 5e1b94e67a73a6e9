"""What is kept of one bucket: small, and nothing that the collector looks at, as there may be a million of them.

In, out: whole numbers, as the algorithms (`algorithms.py`) write and read them.
"""

from __future__ import annotations

import msgspec


class Window(msgspec.Struct, gc=False):
    """A sliding window: `level` is the sum of its entries, the newest is `last` at `at`, `log` has those before it.

    The log is packed pairs (time, amount), oldest first; it may begin with some that have left the window. Nothing in
    here is looked at by the collector: a million of these must not make it slow.
    """

    level: int
    at: int
    last: int
    log: bytes = b""


class Count(msgspec.Struct, gc=False):
    """What was used in the period that began at `start`."""

    start: int
    used: int
