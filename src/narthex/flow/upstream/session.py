"""Legacy Streamable HTTP for one client session alone: a channel that knows its open calls.

What a server asks on the GET stream names no call. So that it can reach the one to whom it belongs, the calls under way
are kept, by id. On channels that many share there is no need, and a call costs nothing more there.
Cases: `tests/flow/upstream/test_stream.py`.
"""

from __future__ import annotations

from narthex.errors import GatewayError
from narthex.flow.codec.jsonrpc import Incoming
from narthex.flow.held import Held
from narthex.flow.upstream.connection import HttpPool
from narthex.flow.upstream.port import Behalf, Dialect, Flight, Outgoing, Own, Sink
from narthex.flow.upstream.resuming import LegacyChannel
from narthex.types import ServerSpec


class SessionChannel(LegacyChannel):
    """See `port.Channel`. `calls` are those that a client waits for."""

    def __init__(self, spec: ServerSpec, pool: HttpPool, dialect: Dialect, held: Held, behalf: Behalf) -> None:
        super().__init__(spec, pool, dialect, held, behalf)
        self.calls: dict[int, Sink] = {}

    def request(self, out: Outgoing, sink: Sink) -> Flight:
        if isinstance(sink, Own):
            return super().request(out, sink)
        call = _Call(self.calls, out.id, sink)
        call.flight = super().request(out, call)
        return call


class _Call:
    """A call that stands in `calls` until it is answered or given up: the sink of its answer, and the caller's flight.

    What comes behind an answer asks nobody any more.
    """

    __slots__ = ("_calls", "_id", "_sink", "flight")

    flight: Flight

    def __init__(self, calls: dict[int, Sink], id_: int, sink: Sink) -> None:
        self._calls = calls
        self._id = id_
        self._sink = sink
        calls[id_] = self

    # --- Sink

    def started(self, streaming: bool) -> None:
        self._sink.started(streaming)

    def message(self, message: Incoming) -> None:
        if not message.method:
            self._calls.pop(self._id, None)
        self._sink.message(message)

    def splice(self, head: bytes, total: int) -> bool:
        return self._sink.splice(head, total)

    def chunk(self, data: bytes) -> None:
        self._sink.chunk(data)

    def finished(self) -> None:
        self._calls.pop(self._id, None)
        self._sink.finished()

    def failed(self, error: GatewayError) -> None:
        self._calls.pop(self._id, None)
        self._sink.failed(error)

    # --- Flight

    def pause(self) -> None:
        self.flight.pause()

    def resume(self) -> None:
        self.flight.resume()

    def cancel(self, reason: str) -> None:
        self._calls.pop(self._id, None)
        self.flight.cancel(reason)
