"""Pages of lists as bytes, made once for all who are shown the same. Pure; one for a process.

In: an `Index`, a selection of it, a place to go on from. Out: the bytes of the page. Bounded in number and in bytes:
the page used longest ago goes first. Cases: `tests/flow/route/test_bodies.py`.

A page is kept under what it shows, not under where that came from: whoever finds one here had its every byte from his
own upstreams already. So nothing private passes between principals. The tenant is part of the key all the same, as of
every key (design §4).
"""

from __future__ import annotations

from collections import OrderedDict

from narthex.flow.route.index import MEMBER, Index
from narthex.types import Kind

Body = tuple[bytes, bytes | None]
"""The end of a list result, from its items on (`"tools":[…]}`), and the last place shown; None on the last page."""
_Key = tuple[str, Kind, int, int, bytes, bytes | None]
_OVERHEAD = 512
"""Bytes of an entry beside its body: key, digest, places."""


class Bodies:
    """The pages used last.

    Args:
        most: Pages. most_bytes: Their bytes together; a larger one is made anew each time.
    """

    __slots__ = ("_kept", "_most", "_most_bytes", "size")

    def __init__(self, most: int = 4096, most_bytes: int = 64 * 1024 * 1024) -> None:
        self.size = 0
        self._most = most
        self._most_bytes = most_bytes
        self._kept: OrderedDict[_Key, Body] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def page(self, tenant: str, index: Index, shown: int | None = None, after: bytes | None = None) -> Body:
        """The page of `shown` behind the place `after`. `list_head` and these bytes are the result."""
        fragments = index.fragments
        bound = fragments.bound
        key = (tenant, index.kind, bound.items, bound.size, fragments.digest(shown), after)
        body = self._kept.get(key)
        if body is not None:
            self._kept.move_to_end(key)
            return body
        items, last = fragments.page(shown, after)
        body = b'"%b":[%b]}' % (MEMBER[index.kind].encode(), b",".join(items)), last
        self._keep(key, body)
        return body

    def _keep(self, key: _Key, body: Body) -> None:
        if _size(body) > self._most_bytes:
            return
        self._kept[key] = body
        self.size += _size(body)
        while len(self._kept) > self._most or self.size > self._most_bytes:
            self.size -= _size(self._kept.popitem(last=False)[1])


def _size(body: Body) -> int:
    return len(body[0]) + _OVERHEAD
