"""JSON-RPC messages as they are decoded: their members, and nothing that is done with them.

Apart from `jsonrpc`, because that is compiled: a struct in compiled code does not know the types of its members.
"""

from __future__ import annotations

import msgspec

Raw = msgspec.Raw
UNSET = msgspec.UNSET
UnsetType = msgspec.UnsetType
RawMap = dict[str, msgspec.Raw]
Id = int | str


class Request(msgspec.Struct):
    """One message from a client. A notification has no `id` (UNSET); a response `result` or `error`, and no method."""

    jsonrpc: str
    method: str = ""
    id: Id | UnsetType | None = UNSET
    params: RawMap = {}
    result: Raw = Raw()
    error: Raw = Raw()


class Incoming(msgspec.Struct):
    """One message of an upstream: a response (`result` or `error`), a request (`method`, `id`), or a notification."""

    jsonrpc: str = ""
    id: Id | UnsetType | None = UNSET
    method: str = ""
    params: Raw = Raw()
    result: Raw = Raw()
    error: Raw = Raw()


class Answered(Incoming):
    """A response whose `result` has been read one level deep already."""

    members: RawMap = {}


class ErrorObject(msgspec.Struct):
    """`error` of a response."""

    code: int
    message: str = ""
    data: Raw | UnsetType = UNSET
