"""Fuzz target for what telemetry reads of others: trace contexts, and what a collector answers."""

from __future__ import annotations

from narthex.flow.codec.jsonrpc import Raw
from narthex.flow.codec.trace_context import in_headers, in_meta, read_context
from narthex.telemetry.otlp.wire import read_rejected


def fuzz_trace(data: bytes) -> None:
    """What is read of a context can be sent on: as one header line each, and in `_meta`; an answer is a number."""
    parent, _, state = data.partition(b"\0")
    for found in (read_context(parent, state), in_headers({b"traceparent": parent, b"tracestate": state})):
        if found is not None:
            again = read_context(found.parent.encode(), found.state.encode())
            assert again is not None
            assert (again.trace_id, again.span_id, again.state) == (found.trace_id, found.span_id, found.state)
            assert found.lines.count(b"\r\n") == found.lines.count(b"\n") == 1 + bool(found.state)
            told = in_meta(found.into({"traceparent": Raw(parent), "tracestate": Raw(state)}))
            assert told is not None
            assert (told.trace_id, told.state) == (found.trace_id, found.state)
    in_meta({"traceparent": Raw(parent), "tracestate": Raw(state)})
    assert 0 <= read_rejected(data) <= 1 << 31
