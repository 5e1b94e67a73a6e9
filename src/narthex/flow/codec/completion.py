"""What a `completion/complete` speaks of: the argument that is being typed, and those that are there already.

In: the parameters as they came. Out: both as one map, and the parameters that say exactly this. Cases:
`tests/flow/codec/test_completion.py`. Source: MCP 2026-07-28 and 2025-11-25, completion.
"""

from __future__ import annotations

import msgspec

from narthex.errors import InvalidParams
from narthex.flow.codec.jsonrpc import BAD_JSON, Raw, RawMap, encode


class _Argument(msgspec.Struct):
    name: str
    value: str


class _Context(msgspec.Struct):
    arguments: dict[str, str] = {}


def completed(params: RawMap) -> tuple[RawMap, RawMap]:
    """The arguments that a completion speaks of, with the one that is being typed: what conditions are asked of; and
    the parameters that say exactly this, to be sent where one was."""
    try:
        typed = msgspec.json.decode(params["argument"], type=_Argument)
        rest = msgspec.json.decode(params["context"], type=_Context) if "context" in params else _Context()
    except (*BAD_JSON, KeyError):
        raise InvalidParams("params.argument must be an object with name and value") from None
    others = {name: value for name, value in rest.arguments.items() if name != typed.name}
    told = {"argument": Raw(encode(typed))}
    if "context" in params:
        told["context"] = Raw(encode(_Context(others)))
    return {"arguments": Raw(encode({**others, typed.name: typed.value}))}, told
