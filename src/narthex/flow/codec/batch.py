"""JSON-RPC batches, which one revision has: 2025-03-26. Several messages in one body, their answers in one body.

In: a body. Out: its messages as bytes, each for `jsonrpc` to read; and responses as one body. What is wrong with one
message (a number, a missing method) is found when it is read, and answered in its place; what is wrong with the batch
refuses it whole.
Cases: `tests/flow/codec/test_batch.py`. Source: JSON-RPC 2.0 §6; MCP 2025-03-26, basic/index ("Batching"), transports
("Sending Messages", 3: requests and notifications, or responses), lifecycle (`initialize` is never part of a batch).
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from narthex.errors import CodecError, ParseError
from narthex.flow.codec.jsonrpc import BAD_JSON, Raw

REVISION = "2025-03-26"
"""The only one with batches."""
MOST = 64
"""Messages of a batch: each may become a call of its own."""
MOST_BYTES = 1024 * 1024


class _Kind(msgspec.Struct):
    method: str = ""
    result: Raw = Raw()
    error: Raw = Raw()


# An array as a struct of as many members: the first one too many ends the reading, before a million become objects.
_Messages = msgspec.defstruct(
    "_Messages", [(f"m{n}", Raw, Raw()) for n in range(MOST)], array_like=True, forbid_unknown_fields=True
)
_decode_messages = msgspec.json.Decoder(_Messages).decode
_decode_kind = msgspec.json.Decoder(_Kind).decode
_NO_KIND = _Kind()


def is_batch(body: bytes) -> bool:
    """Does this body begin as an array does? A few white space characters before it are allowed for."""
    return body[:1] == b"[" or body[:64].lstrip(b" \t\r\n")[:1] == b"["


def split_batch(body: bytes) -> list[bytes]:
    """The messages of a batch, in their order.

    Raises:
        ParseError: Not JSON.
        CodecError: No array, an empty one, too many or too large; an array in it, `initialize` in it, or responses
            beside requests.
    """
    if len(body) > MOST_BYTES:
        raise CodecError("the batch is too large")
    try:
        messages = [bytes(raw) for raw in msgspec.structs.astuple(_decode_messages(body)) if raw]
    except msgspec.ValidationError as error:
        raise CodecError(f"a batch is an array of at most {MOST} messages", detail=str(error)) from None
    except BAD_JSON as error:
        raise ParseError("the body is not JSON", detail=str(error)) from None
    if not messages:
        raise CodecError("a batch must not be empty")
    _refuse_mixed([_kind(message) for message in messages])
    return messages


def _kind(message: bytes) -> _Kind:
    """What kind of message it is, as far as a batch must know. Raises CodecError for a batch in a batch."""
    if message.startswith(b"["):
        raise CodecError("a batch must not hold another")
    try:
        return _decode_kind(message)
    except BAD_JSON:
        return _NO_KIND  # it is refused by itself, when it is read


def _refuse_mixed(kinds: Sequence[_Kind]) -> None:
    if any(kind.method == "initialize" for kind in kinds):
        raise CodecError("initialize must not be part of a batch")
    asked = any(kind.method for kind in kinds)
    if asked and any(kind.result or kind.error for kind in kinds):
        raise CodecError("a batch holds requests and notifications, or responses")


def join_batch(responses: Sequence[bytes]) -> bytes:
    """Responses as one body. Empty where there is none (only notifications came): then the answer has no body."""
    return b"[%b]" % b",".join(responses) if responses else b""
