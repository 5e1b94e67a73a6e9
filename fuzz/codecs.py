"""The smaller codecs, fed with any bytes: annotated tools, capabilities, batches, typed handles.

In: any bytes. Promises: read, or refused with an error of ours; what goes out is well-formed whatever came in.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

from narthex.errors import CodecError, HeaderMismatch, InvalidParams, ParseError
from narthex.flow.codec import batch, capabilities, param_headers
from narthex.flow.codec.handles import Approving, Handles, HeldCall, Origin, Relayed, Task
from narthex.flow.codec.headers import decode_value
from narthex.flow.codec.jsonrpc import Raw
from narthex.flow.codec.seal import KeyRing, SealError

TOKEN = frozenset(b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")


def fuzz_param_headers(data: bytes) -> None:
    """A schema, arguments and a header: whatever they say, lines are lines, and our own agree with the arguments."""
    schema, _, rest = data.partition(b"\0")
    arguments, _, header = rest.partition(b"\0")
    try:
        plan = param_headers.read_plan(schema)
    except param_headers.BadAnnotation:
        return
    assert len({param.key for param in plan}) == len(plan)
    assert all(set(param.key) <= TOKEN and param.path for param in plan)
    raw = Raw(arguments) if arguments else None
    try:
        lines = param_headers.param_lines(plan, raw)
    except (InvalidParams, ParseError):
        return
    sent = dict(line.split(b": ", 1) for line in lines.split(b"\r\n")[:-1])
    assert all(set(name) <= TOKEN and decode_value(value) is not None for name, value in sent.items())
    param_headers.check_param_headers(plan, {name.lower(): sent[name] for name in sent}, frozenset(), raw)
    for param in plan:
        with suppress(HeaderMismatch):
            param_headers.check_param_headers((param,), {param.key: header}, frozenset(), raw)


def fuzz_capabilities(data: bytes) -> None:
    """What a client can do: bits that say again what is declared for them, and nothing that it did not say."""
    try:
        bits = capabilities.bits_of(data)
    except InvalidParams:
        return
    said = capabilities.capabilities_of(bits)
    assert capabilities.bits_of(json.dumps(said).encode()) == bits
    assert set(said) <= set(json.loads(data.decode(), parse_int=str))


def fuzz_batch(data: bytes) -> None:
    """Messages that another reader finds too, in their order; joined again they are the same batch."""
    try:
        messages = batch.split_batch(data)
    except CodecError:
        return
    assert 0 < len(messages) <= batch.MOST
    assert batch.split_batch(batch.join_batch(messages)) == messages
    try:
        whole: list[Any] = json.loads(data, parse_int=str, parse_float=str)
    except (RecursionError, UnicodeDecodeError):
        return  # their strings are looked at when each is read
    assert [json.loads(message, parse_int=str, parse_float=str) for message in messages] == whole


HANDLES = Handles(KeyRing([b"k" * 32]), now=lambda: 0.0, random=lambda count: b"n" * count)
OWNER = ("tenant", "issuer", "subject", "client", "endpoint")
ORIGIN = Origin("tools/call", "add", b"{}")
MADE = {
    HANDLES.cursor(OWNER, "tools", "view", b"add", ttl_s=9): b"add",
    HANDLES.state(OWNER, ORIGIN, Relayed("s", b'"x"'), ttl_s=9): Relayed("s", b'"x"'),
    HANDLES.state(OWNER, ORIGIN, HeldCall("s", 1, "c"), ttl_s=9): HeldCall("s", 1, "c"),
    HANDLES.state(OWNER, ORIGIN, Approving("s", "a", "r"), ttl_s=9): Approving("s", "a", "r"),
    HANDLES.task(OWNER, Task("s", "t", "modern"), ttl_s=9): Task("s", "t", "modern"),
}


def fuzz_handles(data: bytes) -> None:
    """Nothing opens but what was made, and as what it was made; every other text is refused in one way."""
    for made in MADE:
        changed = bytearray(made, "ascii")
        for place, byte in zip(data[::2], data[1::2], strict=False):
            changed[place % len(changed)] = byte
        for handle in (data.decode("latin-1"), changed.decode("latin-1"), made[: len(data)] + data.decode("latin-1")):
            for opened in (
                lambda text: HANDLES.open_cursor(text, OWNER, "tools", "view"),
                lambda text: HANDLES.open_state(text, OWNER, ORIGIN),
                lambda text: HANDLES.open_task(text, OWNER),
            ):
                with suppress(SealError):
                    assert opened(handle) == MADE[handle]
