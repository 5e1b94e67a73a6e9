"""May an answer be kept, for how long, and what is given when it is asked for again.

In: a server's answer to a call. Out: a `Result`, which has the answer for askers of both eras; or None. What is no
plain, complete answer is never kept: errors of either kind, tasks, questions. What a server says of keeping can only
make less of it: `ttlMs` and `cacheScope` shorten and narrow what the operator's rule allows, never the reverse.
Cases: `tests/flow/cache/test_results.py`. Source: MCP 2026-07-28, caching (`ttlMs`, `cacheScope`; "Retries … MUST NOT
be cached"), basic ("`resultType`").
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from narthex.flow.codec.bridge import missing_members
from narthex.flow.codec.jsonrpc import BAD_JSON, Answered, Incoming, Raw, RawMap, decode_map, encode
from narthex.flow.route.caching import read_hints
from narthex.types import Era

_NEEDS: Final = {
    "tools/call": ("content", "structuredContent"),
    "prompts/get": ("messages",),
    "resources/read": ("contents",),
}
"""Members one of which an answer has; a result without is something else."""
_OF_ONE_REQUEST: Final = frozenset({"progressToken", "traceparent", "tracestate", "baggage"})
"""Members of `_meta` that speak of the request that was answered; another's answer does not have them."""
_OF_A_TASK: Final = "io.modelcontextprotocol/related-task"


class Result:
    """A result without its opening brace, and what stands ahead of it for a legacy and for a modern asker.

    `ttl_s`: how long the server lets it be kept. `has_ttl`: it tells its reader, who is told what is left of that.
    `private`: the server says it is for nobody but who asked.
    """

    __slots__ = ("_legacy", "_modern", "_rest", "has_ttl", "private", "size", "ttl_s")

    def __init__(self, rest: bytes, extra: bytes, ttl_s: float, *, has_ttl: bool, private: bool) -> None:
        comma = b"" if rest.startswith(b"}") else b","
        self._rest: Final = rest
        self._legacy: Final = b'"ttlMs":%d' + comma if has_ttl else b""
        self._modern: Final = self._legacy + extra + (comma if extra else b"")
        self.ttl_s: Final = ttl_s
        self.has_ttl: Final = has_ttl
        self.private: Final = private
        self.size: Final = len(rest) + len(self._modern)

    def parts(self, id_json: bytes, era: Era, age_s: float) -> Sequence[bytes]:
        """The response to a request with this id, in pieces to write."""
        head = self._modern if era == "modern" else self._legacy
        if self.has_ttl:
            head = head % max(0, int((self.ttl_s - age_s) * 1000))
        return (b'{"jsonrpc":"2.0","id":', id_json, b',"result":{', head, self._rest, b"}")


def result_of(method: str, era: Era, message: Incoming) -> Result | None:
    """What can be kept of an answer of a server of this era; None: nothing of it may be."""
    result = message.result
    if message.error or not result:
        return None
    try:
        members = message.members if message.__class__ is Answered else decode_map(result)
        return _result(method, era, bytes(result), members)
    except BAD_JSON:
        return None


def _result(method: str, era: Era, raw: bytes, members: RawMap) -> Result | None:
    if not _is_plain(method, members):
        return None
    hints = read_hints(members)
    has_ttl = "ttlMs" in members
    if hints.ttl_s <= 0:
        return None
    extra = missing_members(method, members) if era == "legacy" else b""
    meta = decode_map(members["_meta"]) if "_meta" in members else {}
    if _OF_A_TASK in meta:
        return None
    told = meta.keys() & _OF_ONE_REQUEST
    if told or has_ttl:
        kept = {key: value for key, value in members.items() if key != "ttlMs"}
        if told:
            kept["_meta"] = Raw(encode({key: value for key, value in meta.items() if key not in told}))
        raw = encode(kept)
    private = "cacheScope" in members and not hints.public
    return Result(raw[1:], extra, hints.ttl_s, has_ttl=has_ttl, private=private)


def _is_plain(method: str, members: RawMap) -> bool:
    """A complete answer, and no error."""
    return (
        any(name in members for name in _NEEDS[method])
        and bytes(members.get("isError", b"false")) == b"false"
        and bytes(members.get("resultType", b'"complete"')) == b'"complete"'
        and "task" not in members
    )


def age_of(at: float, now: float) -> float:
    """Seconds, never below 0."""
    return max(0.0, now - at)


class Terms(msgspec.Struct, frozen=True):
    """From when to when a result may be given: fresh, and then while it is renewed."""

    fresh_until: float
    ends_at: float


def terms_of(result: Result, ttl_s: float, stale_s: float, now: float, most_s: float | None = None) -> Terms | None:
    """By the rule, by what the server lets, and by what a policy lets (`most_s`); None: not at all.

    A server that says how long is not given beyond that, however stale the rule would have it.
    """
    for bound in (result.ttl_s, most_s):
        if bound is not None and bound < ttl_s + stale_s:
            ttl_s, stale_s = min(ttl_s, bound), max(0.0, bound - ttl_s)
    return Terms(now + ttl_s, now + ttl_s + stale_s) if ttl_s > 0 else None
