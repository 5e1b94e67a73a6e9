"""Which MCP does a server over HTTP speak? Probe once, and open a channel of that kind.

A modern probe first; what is no modern answer is asked to `initialize`; what refuses that is tried as the old HTTP+SSE.
401 and 403 say nothing about the era, and neither does a server that is down: no verdict is drawn from a failure.
Source: MCP 2026-07-28, basic/versioning ("era detection"); 2025-11-25, transports ("backwards compatibility").
"""

from __future__ import annotations

import re

from narthex.errors import ParseError, UpstreamUnavailable
from narthex.flow.codec.bridge import error_code
from narthex.flow.codec.handshake import (
    INITIALIZED,
    dialect_from_discover,
    dialect_from_initialize,
    discover_body,
    initialize_body,
    is_modern_error,
)
from narthex.flow.codec.jsonrpc import Incoming, decode_incoming
from narthex.flow.codec.revisions import LATEST_LEGACY, MODERN
from narthex.flow.held import Held
from narthex.flow.upstream.connection import Answer, HttpPool, ask
from narthex.flow.upstream.http import HttpChannel, refused, request_head
from narthex.flow.upstream.port import Dialect
from narthex.types import Era, ServerSpec

_SESSION_ID = re.compile(rb"[!-~]{1,1024}")
_PROBE_ID = 1


class OldTransport(Exception):
    """The server takes no POST as Streamable HTTP does: it may speak HTTP+SSE."""


async def open_http(spec: ServerSpec, pool: HttpPool, held: Held, era: Era | None) -> HttpChannel:
    """Negotiate with a server and return a channel to it.

    Args:
        era: What is already known or configured; None probes.
    Raises:
        UpstreamUnavailable: Unreachable, refusing, or speaking something else.
        OldTransport: Neither era over Streamable HTTP, by its status.
    """
    if era != "legacy":
        dialect = await _discover(spec, pool, forced=era == "modern")
        if dialect is not None:
            return HttpChannel(spec, pool, dialect, held)
    return await _initialize(spec, pool, held)


async def _discover(spec: ServerSpec, pool: HttpPool, *, forced: bool) -> Dialect | None:
    head = request_head(spec, pool, Dialect(era="modern", version=MODERN[0]))
    body = discover_body(_PROBE_ID)
    answer = await _post(spec, pool, head + b"Mcp-Method: server/discover\r\n", body)
    _refuse_credential(spec, answer)
    message = _response(answer)
    if message is not None and message.result and answer.status == 200:
        return dialect_from_discover(message.result)
    if message is not None and message.error and is_modern_error(error_code(message.error)):
        raise UpstreamUnavailable(
            f"server {spec.name} speaks no protocol version of ours", detail=repr(answer.data[:200])
        )
    if forced:
        raise UpstreamUnavailable(f"server {spec.name} does not speak MCP {MODERN[0]}", detail=f"HTTP {answer.status}")
    return None


async def _initialize(spec: ServerSpec, pool: HttpPool, held: Held) -> HttpChannel:
    # 2025-11-25 sends no version header before it is negotiated.
    head = request_head(spec, pool, Dialect(era="legacy", version=""))
    answer = await _post(spec, pool, head, initialize_body(_PROBE_ID, LATEST_LEGACY))
    _refuse_credential(spec, answer)
    message = _response(answer)
    if message is None or not message.result:
        if answer.status in (400, 404, 405):
            raise OldTransport
        if answer.status != 200:
            raise refused(spec.name, answer.status)
        raise UpstreamUnavailable(f"server {spec.name} refused to initialize", detail=repr(answer.data[:200]))
    session = answer.headers.get(b"mcp-session-id")
    if session is not None and not _SESSION_ID.fullmatch(session):
        raise UpstreamUnavailable(f"server {spec.name} gave a session id that is not visible ASCII")
    dialect = dialect_from_initialize(message.result, session.decode() if session else None)
    channel = HttpChannel(spec, pool, dialect, held)
    # Awaited: a server may refuse calls until it has seen this.
    await _post(spec, pool, request_head(spec, pool, dialect), INITIALIZED)
    return channel


async def _post(spec: ServerSpec, pool: HttpPool, head: bytes, body: bytes) -> Answer:
    data = b"%bContent-Length: %d\r\n\r\n%b" % (head, len(body), body)
    return await ask(pool, data, max_answer=min(spec.max_answer, 1 << 20))


def _response(answer: Answer) -> Incoming | None:
    """The JSON-RPC response in an answer of either form, None where there is none."""
    for data in answer.events or [answer.data]:
        try:
            message = decode_incoming(data)
        except ParseError:
            continue
        if message.result or message.error:
            return message
    return None


def _refuse_credential(spec: ServerSpec, answer: Answer) -> None:
    if answer.status in (401, 403) or answer.status == 429 or answer.status >= 500 or 300 <= answer.status < 400:
        raise refused(spec.name, answer.status)
