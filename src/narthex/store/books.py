"""The books of a running gateway: opened where something is to be taken down, and read into its limits at the start.

In: each snapshot that is put in force. Out: limits that count on where a process before this one stopped, and a ledger
that takes down what calls spend. Nothing of this is on the path of a call. Cases: `tests/store/test_books.py`.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from narthex.flow.accept.metering import Metering
from narthex.flow.limit.limiter import is_lasting
from narthex.store.ledger import Ledger, read_uses
from narthex.types import Snapshot


class Books:
    """Keeps the ledger of a process. `apply` follows the configuration, `close` writes what is left."""

    def __init__(self) -> None:
        self._ledger: Ledger | None = None
        self._counters: frozenset[bytes] = frozenset()

    @property
    def problem(self) -> str:
        """Why nothing can be taken down at present; empty while all is well."""
        return self._ledger.problem if self._ledger is not None else ""

    async def prepare(self, snapshot: Snapshot, metering: Metering) -> None:
        """Open the store that a configuration names, before it is put in force.

        Raises:
            StoreError: It cannot be used; everything is as it was.
        """
        before, path = self._ledger, Path(snapshot.store)
        if before is not None and before.path == path:
            return
        if not (snapshot.prices or any(map(is_lasting, snapshot.quotas))):
            return
        self._ledger = await asyncio.to_thread(Ledger, path)
        self._counters = frozenset()
        metering.book = self._ledger.add
        if before is not None:
            await asyncio.to_thread(before.close)

    async def restore(self, metering: Metering) -> None:
        """Count on in limits that are new to this process. Raises StoreError."""
        lasting = frozenset(limit.counter for limit in metering.limiter.limits if limit.lasting)
        fresh, self._counters = lasting - self._counters, lasting
        if self._ledger is not None and fresh:
            now = metering.time() + metering.ahead
            uses = await asyncio.to_thread(read_uses, self._ledger.path, now)
            metering.limiter.restore((use for use in uses if use.counter in fresh), metering.ahead)

    async def close(self) -> None:
        """Write what is left."""
        if self._ledger is not None:
            await asyncio.to_thread(self._ledger.close)
