"""Spans of requests: decided at their begin whether there are any, made when they end, of what is known anyway.

In: a request's `_meta` and headers; a request that has ended. Out: `Trace`, which goes with a call and says what its
server is told; `Ended` in a bounded queue, which `otlp.export` empties. Nothing is rendered here, and a call that is
not sampled costs one draw. Used from the event loop only. Cases: `tests/telemetry/test_traces.py`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from random import getrandbits
from typing import Final, Literal, NamedTuple

from narthex.flow.codec.jsonrpc import RawMap
from narthex.flow.codec.trace_context import PARENT, SAMPLED, Context, in_headers, in_meta

CAPACITY: Final = 16_384
"""Calls whose spans may wait to be sent: some megabytes."""


class Asked(NamedTuple):
    """What a server was asked beside the call itself, and how that ended: `code` is the JSON-RPC error that it answered
    with, `reason` why there was no answer."""

    span_id: str
    server: str
    method: str
    sent_at: float
    heard_at: float
    code: int
    reason: str


class Trace:
    """The trace of one request. `context` is what its server is told; None: what the client has said goes on as it is.

    `asked`: what servers were asked on its behalf beside that; once it is `over`, nothing is.
    """

    __slots__ = ("_bits", "asked", "context", "link", "over", "parent", "sampled", "span_id", "trace_id")

    def __init__(
        self,
        trace_id: str,
        span_id: str,
        parent: Context | None,
        link: Context | None,
        context: Context | None,
        sampled: bool,
        bits: Callable[[int], int] = getrandbits,
    ) -> None:
        self._bits = bits
        self.asked: tuple[Asked, ...] = ()
        self.over = False
        self.trace_id: Final = trace_id
        self.span_id: Final = span_id
        self.parent: Final = parent
        self.link: Final = link
        self.context: Final = context
        self.sampled: Final = sampled

    def child(self) -> Context:
        """The place of another span in this one, where it is sampled."""
        like = self.context
        assert like is not None
        return Context(self.trace_id, f"{self._bits(64) or 1:016x}", like.flags, like.state)


class Ended(NamedTuple):
    """A request that has ended, as texts and numbers: nothing large, nothing that keeps the call.

    `sent_at` and `heard_at` are when it was sent to its server, and when that has answered; 0.0: neither. Times are of
    the monotonic clock. `outcome` is an index in `accounts.OUTCOMES`.
    """

    trace: Trace
    method: str
    name: str
    endpoint: str
    server: str
    tenant: str
    client: str
    session: str
    version: str
    request: bytes
    source: str
    outcome: int
    reason: str
    code: int
    decision_id: str
    config: str
    bytes_in: int
    bytes_out: int
    began_at: float
    sent_at: float
    heard_at: float
    ended_at: float


class Tracer:
    """Decides which calls are traced, and gathers what has become of them.

    Args:
        ratio: The share of calls without a parent that are sampled.
        parent: `follow`: a parent decides for its children; `ignore`: the ratio does, so that no client decides what
            this gateway does.
        chance: 0 ≤ x < 1. bits: so many random bits; ids are no secrets.
    """

    def __init__(
        self,
        ratio: float,
        parent: Literal["follow", "ignore"],
        *,
        chance: Callable[[], float],
        bits: Callable[[int], int],
        capacity: int = CAPACITY,
    ) -> None:
        self.ended: Final[deque[Ended]] = deque()
        self.dropped = 0
        """Calls whose spans found no room."""
        self._ratio, self._follows = ratio, parent == "follow"
        self._chance, self._bits, self._capacity = chance, bits, capacity

    def begin(self, meta: RawMap, headers: Mapping[bytes, bytes]) -> Trace | None:
        """The trace of a call that has come; None where it has none, and none is begun."""
        if PARENT not in meta and b"traceparent" not in headers:
            if self._chance() >= self._ratio:
                return None
            return self._sampled(f"{self._bits(128) or 1:032x}", None, None)
        told, link = in_meta(meta), in_headers(headers)
        parent = told or link
        if parent is None:
            return self._sampled(f"{self._bits(128) or 1:032x}", None, None) if self._chance() < self._ratio else None
        sampled = bool(parent.flags & SAMPLED) if self._follows else self._chance() < self._ratio
        if sampled:
            return self._sampled(parent.trace_id, parent, link if told is not None else None)
        if link is not None and told is not None:  # what the server hears is the parent in both places
            link = Context(told.trace_id, told.span_id, told.flags, told.state, by_header=True)
        return Trace(parent.trace_id, "", parent, None, link, False)

    def _sampled(self, trace_id: str, parent: Context | None, link: Context | None) -> Trace:
        flags = parent.flags | SAMPLED if parent is not None else SAMPLED
        state = parent.state if parent is not None else ""
        span_id, child = self._bits(64) or 1, self._bits(64) or 1
        context = Context(trace_id, f"{child:016x}", flags, state)
        return Trace(trace_id, f"{span_id:016x}", parent, link, context, True, self._bits)

    def add(self, ended: Ended) -> None:
        """A sampled request has ended. Never waits."""
        ended.trace.over = True
        if len(self.ended) >= self._capacity:
            self.dropped += 1
        else:
            self.ended.append(ended)

    def put_back(self, batch: list[Ended]) -> int:
        """What could not be sent waits again, before what came since. Returns how many found no room: the oldest."""
        room = max(self._capacity - len(self.ended), 0)
        self.ended.extendleft(reversed(batch[len(batch) - room :] if room else []))
        return max(len(batch) - room, 0)
