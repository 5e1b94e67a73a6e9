"""Which MCP does a server over HTTP speak? Ask, and open a channel of that kind.

A modern probe first, unless the server is known as legacy; what is no modern answer is asked to `initialize`; what
refuses that is tried as the old HTTP+SSE. 401 and 403 say nothing about the era, and neither does a server that is
down: no verdict is drawn from a failure.
Source: MCP 2026-07-28, basic/versioning ("era detection"); 2025-11-25, transports ("backwards compatibility").
"""

from __future__ import annotations

import re

from narthex.errors import GatewayError, ParseError, UpstreamUnavailable
from narthex.flow.codec.bridge import error_code
from narthex.flow.codec.handshake import (
    INITIALIZED,
    NoDiscovery,
    dialect_from_discover,
    dialect_from_initialize,
    discover_body,
    initialize_body,
    is_modern_error,
    wants_handshake,
)
from narthex.flow.codec.jsonrpc import Incoming, decode_incoming
from narthex.flow.codec.revisions import LATEST_LEGACY, MODERN
from narthex.flow.held import Held
from narthex.flow.upstream.connection import Answer, HttpPool, ask_as
from narthex.flow.upstream.http import HttpChannel, refused, request_head
from narthex.flow.upstream.port import NOBODY, Behalf, Dialect
from narthex.flow.upstream.resuming import LegacyChannel
from narthex.flow.upstream.session import SessionChannel
from narthex.types import Era, ServerSpec

_SESSION_ID = re.compile(rb"[!-~]{1,1024}")
_PROBE_ID = 1
_REFUSALS = frozenset({"HTTP 400", "HTTP 404", "HTTP 405"})


class OldTransport(Exception):
    """The server takes no POST as Streamable HTTP does: it may speak HTTP+SSE."""


class NotInitialized(UpstreamUnavailable):
    """The server answered `initialize`, with something else than a result."""


def is_refusal(error: GatewayError) -> bool:
    """Did the server say by its status alone that it knows nothing of such a request?"""
    return isinstance(error, UpstreamUnavailable) and error.detail in _REFUSALS


async def open_http(
    spec: ServerSpec, pool: HttpPool, held: Held, known: Era | None, behalf: Behalf = NOBODY
) -> HttpChannel:
    """Negotiate with a server and return a channel to it.

    Args:
        known: What it spoke when last asked, which is tried first; None for a server that is to be asked.
    Raises:
        UpstreamUnavailable: Unreachable, refusing, or speaking something else than is configured.
        OldTransport: Neither era over Streamable HTTP, by its status.
    """
    if spec.era == "legacy":
        return await _initialize(spec, pool, held, behalf)
    if spec.era == "auto" and known == "legacy":
        try:
            return await _initialize(spec, pool, held, behalf)
        except (OldTransport, NotInitialized):
            dialect = await discover(spec, pool, behalf)
            if dialect is None:
                raise
            return HttpChannel(spec, pool, dialect, held, behalf)
    dialect = await discover(spec, pool, behalf)
    if dialect is not None:
        return HttpChannel(spec, pool, dialect, held, behalf)
    return await _initialize(spec, pool, held, behalf)


async def discover(spec: ServerSpec, pool: HttpPool, behalf: Behalf = NOBODY) -> Dialect | None:
    """What a modern server offers; None for one that is none.

    Raises:
        UpstreamUnavailable: It says nothing of its era, or is not modern though it is configured so.
    """
    head = request_head(spec, pool, Dialect(era="modern", version=MODERN[0]))
    body = discover_body(_PROBE_ID, behalf.capabilities)
    answer = await _post(spec, pool, head + b"Mcp-Method: server/discover\r\n", body, behalf)
    _refuse_credential(spec, answer)
    message = _response(answer)
    if message is not None and spec.era == "auto" and wants_handshake(message):
        return None
    if message is not None and message.result and answer.status == 200:
        try:
            return dialect_from_discover(message.result)
        except NoDiscovery:
            if spec.era == "modern":
                raise
            return None
    if message is not None and message.error and is_modern_error(error_code(message.error)):
        raise UpstreamUnavailable(
            f"server {spec.name} speaks no protocol version of ours", detail=repr(answer.data[:200])
        )
    if spec.era == "modern":
        raise UpstreamUnavailable(f"server {spec.name} does not speak MCP {MODERN[0]}", detail=f"HTTP {answer.status}")
    return None


async def _initialize(spec: ServerSpec, pool: HttpPool, held: Held, behalf: Behalf) -> HttpChannel:
    # 2025-11-25 sends no version header before it is negotiated.
    head = request_head(spec, pool, Dialect(era="legacy", version=""))
    answer = await _post(spec, pool, head, initialize_body(_PROBE_ID, LATEST_LEGACY, behalf.capabilities), behalf)
    _refuse_credential(spec, answer)
    message = _response(answer)
    if message is None or not message.result:
        if answer.status in (400, 404, 405):
            raise OldTransport
        if answer.status != 200:
            raise refused(spec.name, answer.status)
        raise NotInitialized(f"server {spec.name} refused to initialize", detail=repr(answer.data[:200]))
    session = answer.headers.get(b"mcp-session-id")
    if session is not None and not _SESSION_ID.fullmatch(session):
        raise UpstreamUnavailable(f"server {spec.name} gave a session id that is not visible ASCII")
    dialect = dialect_from_initialize(message.result, session.decode() if session else None)
    if behalf.one_session:
        channel: HttpChannel = SessionChannel(spec, pool, dialect, held, behalf)
    else:
        channel = LegacyChannel(spec, pool, dialect, held, behalf)
    # Awaited: a server may refuse calls until it has seen this.
    await _post(spec, pool, request_head(spec, pool, dialect), INITIALIZED, behalf)
    return channel


async def _post(spec: ServerSpec, pool: HttpPool, head: bytes, body: bytes, behalf: Behalf) -> Answer:
    rest = b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    return await ask_as(behalf.shown, pool, head, rest, max_answer=min(spec.max_answer, 1 << 20))


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
