"""A prepared list: any selection of its items as pages of bytes, and as a digest that says whether two show the same.

In: items, each a name and its bytes, in the servers' order. Out: pages and digests. `shown` is a bitset, bit i for the
i-th item as added (what lies beyond says nothing); None is all of them.
Cases: `tests/flow/route/test_fragments.py`. Source: MCP 2025-11-25 and 2026-07-28, pagination (stable cursors).

Order: what fits one page is shown as the servers order it. What does not is shown by `place`, which depends on an
item's name alone, and a page that goes on behind a place always is. So whatever comes or goes between two pages, an
item that stays is shown, and shown once.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from hashlib import sha256
from itertools import compress
from operator import itemgetter

import msgspec

from narthex.flow.codec.jsonrpc import Raw

Page = tuple[tuple[bytes | Raw, ...], bytes | None]
"""Items in the order they are shown, and the place of the last of them; None where nothing follows."""
MOST_PLACE = 256
"""Bytes. Sealed as a cursor, it fits into a handle with as much room again for what else a handle holds."""
MOST_DIGESTS = 4096
"""Selections whose digests are kept: sets of rights, not callers."""

_STEM = MOST_PLACE - sha256().digest_size
_BIT = bytes.maketrans(b"01", b"\0\1")


class PageBound(msgspec.Struct, frozen=True):
    """The most that one page holds. An item larger than `size` bytes has a page of its own."""

    items: int = 1000
    size: int = 1024 * 1024


PAGE = PageBound()


def place_of(name: str) -> bytes:
    """Where a name stands when a list is paged: by its UTF-8, a long one by its beginning and its SHA-256.

    A long name's place is longer than any short one's, so no two names have the same.
    """
    whole = name.encode()
    return whole if len(whole) < MOST_PLACE else whole[:_STEM] + sha256(whole).digest()


class Fragments(msgspec.Struct, frozen=True, eq=False):
    """The items' bytes with the SHA-256 of each, in the servers' order, and once more in the order of their places.

    `by_place` brings what is given for each item into that order. `known` are digests already made.
    """

    items: tuple[bytes | Raw, ...]
    digests: tuple[bytes, ...]
    places: tuple[bytes, ...]
    placed: tuple[bytes | Raw, ...]
    placed_digests: tuple[bytes, ...]
    by_place: Callable[[bytes], Sequence[int]]
    bound: PageBound
    known: dict[int | None, bytes] = {}

    def digest(self, shown: int | None = None) -> bytes:
        """SHA-256 over those of the items shown, in the order shown: the same if and only if the pages are."""
        found = self.known.get(shown)
        if found is None:
            bits = self._bits(shown)
            if self._fits(bits):
                parts = compress(self.digests, bits)
            else:
                parts = compress(self.placed_digests, self.by_place(bits))
            found = sha256(b"".join(parts)).digest()
            if len(self.known) >= MOST_DIGESTS:
                del self.known[next(iter(self.known))]
            self.known[shown] = found
        return found

    def page(self, shown: int | None = None, after: bytes | None = None) -> Page:
        """The items shown behind the place `after`, as many as one page holds; None begins."""
        bits = self._bits(shown)
        if after is None and self._fits(bits):
            return tuple(compress(self.items, bits)), None
        first = 0 if after is None else bisect_right(self.places, after)
        rest = zip(self.places[first:], self.placed[first:], strict=True)
        taken: list[bytes | Raw] = []
        size, last = 0, b""
        for place, item in compress(rest, self.by_place(bits)[first:]):
            size += len(item) + 1  # and a comma, or the bracket behind the last
            if taken and (len(taken) == self.bound.items or size > self.bound.size):
                return tuple(taken), last
            taken.append(item)
            last = place
        return tuple(taken), None

    def _bits(self, shown: int | None) -> bytes:
        """A byte for each item, 1 for those shown: what `compress` takes."""
        count = len(self.items)
        if shown is None:
            return b"\1" * count
        return f"{shown & ((1 << count) - 1):0{count}b}".encode().translate(_BIT)[::-1]

    def _fits(self, bits: bytes) -> bool:
        count = bits.count(1)
        if count <= 1:
            return True
        return count <= self.bound.items and sum(map(len, compress(self.items, bits))) + count <= self.bound.size


class Preparing:
    """Makes `Fragments`, an item at a time: ten thousand at once would stop the loop."""

    def __init__(self, bound: PageBound = PAGE) -> None:
        self._bound = bound
        self._items: list[bytes | Raw] = []
        self._digests: list[bytes] = []
        self._places: list[bytes] = []
        self._placed: list[bytes | Raw] = []
        self._placed_digests: list[bytes] = []
        self._ranks: list[int] = []

    def add(self, name: str, item: bytes | Raw) -> None:
        """The next item. No two have the same name."""
        place, digest = place_of(name), sha256(item).digest()
        at = bisect_right(self._places, place)
        self._places.insert(at, place)
        self._placed.insert(at, item)
        self._placed_digests.insert(at, digest)
        self._ranks.insert(at, len(self._items))
        self._items.append(item)
        self._digests.append(digest)

    def done(self) -> Fragments:
        """What was added."""
        return Fragments(
            tuple(self._items),
            tuple(self._digests),
            tuple(self._places),
            tuple(self._placed),
            tuple(self._placed_digests),
            itemgetter(*self._ranks) if len(self._ranks) > 1 else tuple,
            self._bound,
        )
