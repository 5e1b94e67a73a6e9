"""Kept answers of a given size, for tests of what holds them."""

from __future__ import annotations

from collections.abc import Hashable

from narthex.flow.cache.lots import Lots
from narthex.flow.cache.results import Result
from narthex.flow.cache.shelves import OVERHEAD, Kept


def kept_as(
    key: Hashable, tenant: str = "t", size: int = OVERHEAD + 10, at: float = 0.0, for_s: float = 10.0,
    lots: Lots | None = None, names: tuple[Hashable, ...] = (),
) -> Kept:  # fmt: skip
    """One of so many bytes in all, fresh for half of its time."""
    result = Result(b"x" * (size - OVERHEAD), b"", 60.0, has_ttl=False, private=False)
    entered = lots.enter(names) if lots is not None else ()
    return Kept(key, tenant, result, entered, at, at + for_s / 2, at + for_s)
