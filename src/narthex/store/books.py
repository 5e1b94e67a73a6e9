"""The books of a running gateway: opened where something is to be taken down, and read into its limits at the start.

In: each snapshot that is put in force. Out: limits that count on where a process before this one stopped, and a ledger
that takes down what calls spend. Nothing of this is on the path of a call. Cases: `tests/store/test_books.py`.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from narthex.errors import StoreError
from narthex.flow.accept.metering import Metering
from narthex.flow.limit.limiter import counter_of, is_lasting
from narthex.flow.limit.spending import Use
from narthex.types import Snapshot

if TYPE_CHECKING:
    from narthex.store.ledger import Ledger


class Books:
    """Keeps the ledger of a process. `apply` follows the configuration, `close` writes what is left."""

    def __init__(self) -> None:
        self._ledger: Ledger | None = None
        self._counters: frozenset[bytes] = frozenset()
        self._uses: list[Use] = []
        self.name = ""
        """What the ledger is called; empty where nothing lasts."""

    @property
    def problem(self) -> str:
        """Why nothing can be taken down at present; empty while all is well."""
        return self._ledger.problem if self._ledger is not None else ""

    async def prepare(self, snapshot: Snapshot, metering: Metering) -> None:
        """Open the store that a configuration names, and read what its limits are to count on, before it is in force.

        Raises:
            StoreError: It cannot be used; everything is as it was.
        """
        before, store = self._ledger, snapshot.store
        lasting = frozenset(map(counter_of, filter(is_lasting, snapshot.quotas)))
        if not (snapshot.prices or lasting):
            return
        from narthex.store.ledger import Ledger, name_of, read_uses  # a database: only where something is kept

        opened = before is None or before.where != store
        ledger = await asyncio.to_thread(partial(Ledger, store, kept=snapshot.costs)) if opened else before
        fresh = lasting if opened else lasting - self._counters
        try:
            uses = await asyncio.to_thread(read_uses, store, metering.time() + metering.ahead) if fresh else []
            name = await asyncio.to_thread(name_of, store)
        except StoreError:
            if opened and ledger is not None:
                await asyncio.to_thread(ledger.close)
            raise
        self._uses = [use for use in uses if use.counter in fresh]
        if ledger is not None:
            ledger.kept = snapshot.costs
        if opened and ledger is not None:
            self._ledger, metering.book, metering.tab, self.name = ledger, ledger.add, ledger.tab, name
            if before is not None:
                await asyncio.to_thread(before.close)

    def restore(self, metering: Metering) -> None:
        """The configuration is in force: count on in limits that are new to this process."""
        uses, self._uses = self._uses, []
        if metering.counters is None:
            metering.limiter.restore(uses, metering.ahead)
        self._counters = frozenset(limit.counter for limit in metering.limiter.limits if limit.lasting)

    async def all_uses(self, since: int) -> list[Use]:
        """All that lasts at a time (microseconds since 1970), with what was spent up to now. Raises StoreError."""
        from narthex.store.ledger import read_uses

        if self._ledger is None:
            return []
        if not await asyncio.to_thread(self._ledger.flush):
            problem = self._ledger.problem or "the store takes too long"
            raise StoreError(f"what calls cost cannot be written: {problem}")
        return await asyncio.to_thread(read_uses, self._ledger.where, since)

    async def close(self) -> None:
        """Write what is left."""
        if self._ledger is not None:
            await asyncio.to_thread(self._ledger.close)
