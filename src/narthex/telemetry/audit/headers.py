"""The first line of a segment: which chain it is of, and what stands before it.

In: a line. Out: a `Header`, or None. Cases: `tests/telemetry/audit/test_segments.py`.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from narthex.flow.codec.jsonrpc import BAD_JSON
from narthex.telemetry.audit.checkpoints import Head


class Header(msgspec.Struct, omit_defaults=True):
    """`open` begins a chain, `previous` is the head of the one before it, `torn` how many bytes of a line a crash has
    left behind that; `segment` goes on with the chain that `previous` is the head of. `held`: heads that were kept
    beside the store, as far as `previous` does not say them."""

    v: int
    id: str
    time: str
    event: Literal["open", "segment"]
    chain: str
    key: str
    gateway: str
    previous: Head | None = None
    torn: int | None = None
    held: tuple[Head, ...] = ()


_decode = msgspec.json.Decoder(Header).decode


def read_header(line: bytes) -> Header | None:
    """None where a line is no first line of a segment."""
    try:
        found = _decode(line)
    except BAD_JSON:
        return None
    return found if found.event == "open" or found.previous is not None else None
