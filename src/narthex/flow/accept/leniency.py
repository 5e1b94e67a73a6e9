"""Requests whose headers do not say what their bodies say: why, in the log, and what an endpoint lets pass.

`headers: lenient` lets a request pass that lacks `Mcp-Method` or `Mcp-Name`, as some clients' do. What a header says it
must say truly, here as everywhere: a proxy in front may have acted on it. The reason is logged once for each client of
an endpoint; how a client calls itself is its own affair, so only so many are told apart.
Cases: `tests/flow/accept/test_leniency.py`. Source: MCP 2026-07-28, Streamable HTTP transport ("Server Validation").
"""

from __future__ import annotations

import logging

import msgspec

from narthex.errors import GatewayError, HeaderMismatch
from narthex.flow.codec.headers import NAMED_BY, with_missing
from narthex.flow.codec.inbound import read_params
from narthex.flow.codec.jsonrpc import BAD_JSON, RawMap, Request, read_string
from narthex.flow.codec.revisions import META_CLIENT, read_meta
from narthex.flow.whole import HttpRequest
from narthex.types import EndpointSpec

MOST_TOLD = 256
"""Reasons that are logged, until the next reload."""
_LONGEST = 64
_log = logging.getLogger("narthex.front")


class _Info(msgspec.Struct):
    name: str = ""
    version: str = ""


_decode_info = msgspec.json.Decoder(_Info).decode


class Leniency:
    """What was told, and to whom it applies."""

    def __init__(self) -> None:
        self._told: set[tuple[str, ...]] = set()

    def read(
        self, message: Request, version: str, request: HttpRequest, endpoint: EndpointSpec, mismatch: HeaderMismatch
    ) -> tuple[RawMap, str]:
        """What `read_params` would have read, had the client sent what is missing.

        Raises:
            HeaderMismatch: The endpoint is strict, or a header is not missing but wrong.
        """
        method, params = message.method, message.params
        try:
            name = read_string(params, NAMED_BY[method]) if method in NAMED_BY else None
            headers, missing = with_missing(request.headers, method, name)
            if not missing:
                raise mismatch
            found = read_params(message, version, "modern", headers, request.repeated)
        except GatewayError:
            self._tell(endpoint, params, mismatch.public, "refused: %s: %s", mismatch.public, mismatch.detail)
            raise
        lacks = " and ".join(missing)
        if endpoint.headers == "strict":
            self._tell(endpoint, params, lacks, "refused: %s missing; `headers: lenient` lets such pass", lacks)
            raise mismatch
        self._tell(endpoint, params, lacks, "let pass without %s", lacks)
        return found

    def _tell(self, endpoint: EndpointSpec, params: RawMap, what: str, text: str, *said: str) -> None:
        client = _client(params)
        key = (endpoint.name, client, what)
        if key not in self._told and len(self._told) < MOST_TOLD:
            self._told.add(key)
            _log.warning(f"endpoint %s, client %s: {text}", endpoint.name, client, *said)


def _client(params: RawMap) -> str:
    """How the client calls itself, quoted."""
    try:
        info = _decode_info(read_meta(params)[META_CLIENT])
    except (*BAD_JSON, GatewayError, KeyError):
        return "unnamed"
    return repr(f"{info.name[:_LONGEST]} {info.version[:_LONGEST]}".strip())
