"""What servers are asked on behalf of a traced request beside the call itself: a list, a handshake, a subscription.

In: the trace that a task works for, kept in its context, as tasks that it begins have it too. Out: a CLIENT span for
each such request, in `Trace.asked`; several who wait for one answer cause one request, and it is the first one's. Where
nobody is traced it costs a look. Cases: `tests/telemetry/test_asking.py`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final, TypeVar

from narthex.errors import GatewayError
from narthex.telemetry.traces import Asked, Trace
from narthex.trace import Context

MOST: Final = 64
"""Requests of one trace that have a span: an endpoint may have as many servers, and a list hundreds of pages."""
T = TypeVar("T")
_works_for: Final[ContextVar[Trace | None]] = ContextVar("narthex_works_for", default=None)


async def on_behalf(trace: Trace | None, coming: Awaitable[T]) -> T:
    """Wait for `coming` in a task of its own, whose requests to servers are of this trace, if that is sampled."""
    if trace is not None and trace.sampled:
        _works_for.set(trace)
    return await coming


class Asking:
    """A request under way: `method` may become known late, `code` is the JSON-RPC error that it was answered with.

    `context` is what the server is told.
    """

    __slots__ = ("code", "context", "method")

    def __init__(self, method: str, context: Context) -> None:
        self.method = method
        self.code = 0
        self.context: Final = context


@contextmanager
def asking(server: str, method: str, clock: Callable[[], float]) -> Iterator[Asking | None]:
    """Around a request of ours to a server; None where it is of no trace. `clock`: monotonic seconds."""
    trace = _works_for.get()
    if trace is None or trace.over or len(trace.asked) >= MOST:
        yield None
        return
    one, began_at, reason = Asking(method, trace.child()), clock(), ""
    try:
        yield one
    except BaseException as error:
        reason = error.reason if isinstance(error, GatewayError) else "cancelled"
        raise
    finally:
        trace.asked += (Asked(one.context.span_id, server, one.method, began_at, clock(), one.code, reason),)
