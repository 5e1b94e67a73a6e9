"""Long work in slices, so that the loop has its turn in between: which of ten thousand tools somebody sees, say.

In: a generator that pauses. Out: its value. Cases: `tests/flow/policy/test_slices.py`. Source: design §3 ("Nothing over
1 ms runs on the loop").
"""

from __future__ import annotations

from collections.abc import Generator
from types import coroutine
from typing import TypeVar

T = TypeVar("T")

SLICE = 500
"""Names that are looked at between two pauses: well under a millisecond."""


def finished(work: Generator[None, None, T]) -> T:
    """Its value, now."""
    while True:
        try:
            next(work)
        except StopIteration as done:
            value: T = done.value
            return value


async def in_slices(work: Generator[None, None, T]) -> T:
    """Its value, with a turn of the loop at each pause."""
    while True:
        try:
            next(work)
        except StopIteration as done:
            value: T = done.value
            return value
        await _turn()


@coroutine
def _turn() -> Generator[None, None, None]:
    """What `asyncio.sleep(0)` is made of: a pure room knows no loop."""
    yield
