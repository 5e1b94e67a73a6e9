"""A place in a trace, as W3C Trace Context says it: of the small shared types, for calls and those that they go to.

Read by `flow.codec.trace_context`. Cases: `tests/flow/codec/test_trace_context.py`.
"""

from __future__ import annotations

from typing import Final

import msgspec

PARENT: Final = "traceparent"
STATE: Final = "tracestate"
_encode: Final = msgspec.json.Encoder().encode


class Context:
    """Where a call comes from: a trace, the span in it that sent the call, its flags, and what vendors say of it.

    `by_header`: it came in headers, and goes on as it came: in headers alone.
    """

    __slots__ = ("by_header", "flags", "span_id", "state", "trace_id")

    def __init__(
        self, trace_id: str, span_id: str, flags: int = 0, state: str = "", *, by_header: bool = False
    ) -> None:
        self.trace_id: Final = trace_id
        self.span_id: Final = span_id
        self.flags: Final = flags
        self.state: Final = state
        self.by_header: Final = by_header

    @property
    def parent(self) -> str:
        """As `traceparent` says it."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags:02x}"

    @property
    def lines(self) -> bytes:
        """As header lines."""
        state = f"tracestate: {self.state}\r\n" if self.state else ""
        return f"traceparent: {self.parent}\r\n{state}".encode()

    def into(self, meta: dict[str, msgspec.Raw]) -> dict[str, msgspec.Raw]:
        """`_meta` of a request that says so, and what else it said."""
        said = {**meta, PARENT: msgspec.Raw(_encode(self.parent))}
        if self.state:
            said[STATE] = msgspec.Raw(_encode(self.state))
        else:
            said.pop(STATE, None)  # of another parent
        return said
