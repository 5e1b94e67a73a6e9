"""Where the state of a limit is kept, a bucket a key: in many small dicts, so that no step of upkeep takes long.

In: keys of 15 bytes (`keys.digest`). Out: the dict that a key belongs to; `sweep` removes what has run out, some dicts
at a time. One dict of a million entries takes some hundredths of a second each time that it grows: no call may wait
for that. Cases: `tests/flow/limit/test_buckets.py`. Measured: `python bench/limits.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

SHARDS = 2048
MOST = 1_000_000
"""Buckets of one limit. Beyond, keys share buckets: a caller that makes up keys is limited all the more."""
OVERFLOW = 2
"""Bytes of a key that count then."""

Shard = dict[bytes, Any]


class Buckets:
    """All buckets of one limit."""

    __slots__ = ("_at", "_seen", "count", "shards")

    def __init__(self) -> None:
        self.shards: tuple[Shard, ...] = tuple({} for _ in range(SHARDS))
        self.count = 0
        """How many there are, as of the last whole sweep and what was added since."""
        self._at = 0
        self._seen = 0

    def place(self, key: bytes, most: int = MOST) -> tuple[Shard, bytes]:
        """Where a key's bucket is, or will be, and under which key."""
        shard = self.shards[hash(key) % SHARDS]
        if key not in shard:
            if self.count >= most:
                return shard, key[:OVERFLOW]
            self.count += 1
        return shard, key

    def sweep(self, is_over: Callable[[Any], bool], most: int) -> tuple[int, bool]:
        """Remove buckets that hold nothing any more, looking at `most` of them or a little over.

        Returns:
            At how many it looked, and whether it has come to the end of a round.
        """
        looked = 0
        while looked < most:
            shard = self.shards[self._at]
            if shard:
                looked += len(shard)
                for key in [key for key, bucket in shard.items() if is_over(bucket)]:
                    del shard[key]
                if not shard:
                    shard.clear()  # gives the table back, too
                self._seen += len(shard)
            self._at = (self._at + 1) % SHARDS
            if self._at == 0:
                self.count, self._seen = self._seen, 0
                return looked, True
        return looked, False

    def __len__(self) -> int:
        return sum(map(len, self.shards))


class Elsewhere(Buckets):
    """Stands for buckets that another process keeps: here is none, and every key is whole."""

    __slots__ = ()

    def place(self, key: bytes, most: int = MOST) -> tuple[Shard, bytes]:
        return self.shards[0], key
