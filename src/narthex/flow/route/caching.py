"""For how long, and by whom, a list may be kept: what upstreams say of theirs, and what we say of ours.

In: the members of an upstream's result; then how fresh the merged list is and whom it is for. Out: `Hints`, and the
members that stand before the items of a list result.
Cases: `tests/flow/route/test_caching.py`. Source: MCP 2026-07-28, caching (`ttlMs`, `cacheScope`, all pages of a list
share one scope), pagination, basic ("Per-response protocol fields": every result should say who answers).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import msgspec

from narthex.flow.codec.jsonrpc import BAD_JSON, RawMap, encode
from narthex.flow.codec.offers import SERVER_INFO
from narthex.flow.codec.revisions import META_SERVER
from narthex.flow.route.index import Missing
from narthex.types import Era

_SERVER = b"%b:%b" % (encode(META_SERVER), encode(SERVER_INFO))
_META = b'"_meta":{%b},' % _SERVER
_HEAD = {
    False: b'{"resultType":"complete","cacheScope":"private","ttlMs":%d,',
    True: b'{"resultType":"complete","cacheScope":"public","ttlMs":%d,',
}


class Hints(msgspec.Struct, frozen=True):
    """What a result says of its keeping: seconds (infinite where it says none), and whether it is the same for all."""

    ttl_s: float = math.inf
    public: bool = False


def read_hints(members: RawMap) -> Hints:
    """What one page says. What is malformed may not be kept and is for nobody else; a list is not lost for it."""
    ttl_s = math.inf
    if "ttlMs" in members:
        try:
            ttl_s = max(0.0, msgspec.json.decode(members["ttlMs"], type=float) / 1000)
        except BAD_JSON:
            ttl_s = 0.0
    return Hints(ttl_s, bytes(members.get("cacheScope", b"")) == b'"public"')


def strictest(hints: Iterable[Hints]) -> Hints:
    """What holds for all of them together: the pages of a list. Of nothing nothing is said."""
    known = list(hints)
    return Hints(min((one.ttl_s for one in known), default=math.inf), bool(known) and all(one.public for one in known))


def ms_left(until: float, now: float, most_ms: int) -> int:
    """Whole milliseconds until `until` (both in seconds of one clock), at least 0, at most `most_ms`."""
    left_ms = (until - now) * 1000
    return most_ms if left_ms >= most_ms else max(0, int(left_ms))


def list_head(
    era: Era, *, ttl_ms: int, public: bool, cursor: str | None = None, missing: Sequence[Missing] = ()
) -> bytes:
    """A list result as far as its items: `list_head(…)` and the bytes of `Bodies.page` are the whole.

    What changes with every answer stands here, so that the items' bytes serve all of them, in both eras.

    Args:
        public: `Index.public`, and nobody's rights were asked: who shows a selection says False, even of a full one,
            for another caller's may not be.
        cursor: The last place shown, sealed; None on the last page.
    """
    tail = b"" if cursor is None else b'"nextCursor":%b,' % encode(cursor)
    if era == "legacy":
        return b'{"_meta":{%b},%b' % (_lost(missing), tail) if missing else b"{" + tail
    meta = b'"_meta":{%b,%b},' % (_SERVER, _lost(missing)) if missing else _META
    return _HEAD[public] % ttl_ms + meta + tail


def _lost(missing: Sequence[Missing]) -> bytes:
    """The member of `_meta` that names the servers whose items are not here."""
    return b'"narthex/missing":%b' % encode([{"server": one.server, "reason": one.reason} for one in missing])
