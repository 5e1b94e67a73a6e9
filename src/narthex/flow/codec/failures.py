"""An error in the words of the client's era: its code, and the HTTP status that it goes out with.

| code | from | a modern client gets | a legacy client gets |
| --- | --- | --- | --- |
| -32002 resource not found | any server | -32602: 2026-07-28 must not emit it | as it is |
| -32020 the headers do not match | modern server, us | as it is, 400 | -32603: its headers say nothing of the kind |
| -32021 the client lacks a capability | modern server, us | as it is, 400 | -32600: not to be asked by this client |
| -32022 version not supported | modern server | as it is, 400 | -32603: the version is between us and the server |
| -32020 … -32099 | legacy server | -32603: they are the specification's, and mean something else now | as it is |
| -32601 method not found | anybody | as it is, 404 | as it is |
| any other | anybody | as it is | as it is |

Where no status is named it is 200. The message and `data` stay. -32042 (URL elicitation) is no failure to a modern
client: see `inputs.url_required`. Cases: `tests/flow/codec/test_failures.py`, one row a rule.
Source: MCP 2026-07-28, basic/index ("Error Codes"), Streamable HTTP transport, the schema's words on -32021; the
schemas of 2025-11-25 and before, which know none of -32020 to -32022; JSON-RPC 2.0 §5.1.
"""

from __future__ import annotations

from collections.abc import Mapping

from narthex.errors import GatewayError
from narthex.types import Era

HEADER_MISMATCH = -32020
_STATUS: Mapping[int, int] = {-32020: 400, -32021: 400, -32022: 400, -32601: 404}
_FOR_LEGACY: Mapping[int, int] = {-32020: -32603, -32021: -32600, -32022: -32603}
_OF_THE_SPECIFICATION = range(-32099, -32019)


def code_for(client: Era, server: Era, code: int) -> int:
    """The code that a client gets for a server's."""
    if client == "legacy":
        return _FOR_LEGACY.get(code, code) if server == "modern" else code
    if code == -32002:
        return -32602
    return -32603 if server == "legacy" and code in _OF_THE_SPECIFICATION else code


def status_for(client: Era, code: int) -> int:
    """The HTTP status of a server's error, as far as it can still be chosen."""
    return _STATUS.get(code, 200) if client == "modern" else 200


def for_era(error: GatewayError, client: Era) -> GatewayError:
    """An error of ours, with the code that this client gets."""
    error.code = code_for(client, "modern", error.code)
    return error
