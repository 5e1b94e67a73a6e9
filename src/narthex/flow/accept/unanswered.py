"""Messages of a client that want no answer: notifications, and a legacy client's responses to what it was asked.

In: one of them. Out: what it is about ends, goes on, or is told to a server; the HTTP answer is 202 whatever it was.
Cases: `tests/flow/accept/test_unanswered.py`, `tests/flow/accept/test_exchange.py`.
Source: MCP 2025-11-25, cancellation, progress, roots; MCP 2026-07-28, Streamable HTTP (clients send no responses).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from narthex.errors import CodecError
from narthex.flow.codec.capabilities import ClientCaps
from narthex.flow.codec.jsonrpc import Request
from narthex.flow.codec.revisions import read_meta
from narthex.types import EndpointSpec, Era, Principal, Session

if TYPE_CHECKING:
    from narthex.flow.accept.front import Front

ROOTS_CHANGED = b'{"jsonrpc":"2.0","method":"notifications/roots/list_changed"}'


def take_unanswered(
    front: Front, message: Request, session: Session | None, era: Era, endpoint: EndpointSpec, principal: Principal
) -> None:
    """Do what the message says.

    Raises:
        CodecError: A response of a modern client, or `_meta` of another form.
    """
    params = message.params
    if not message.method:
        if era == "modern":
            raise CodecError("a client of this revision sends no responses")
        if session is not None:
            front.calls.answered(session, message)
        return
    if "_meta" in params:
        read_meta(params)
    if session is None:
        return
    if message.method == "notifications/cancelled" and "requestId" in params:
        front.calls.cancel(session, bytes(params["requestId"]))
    elif message.method == "notifications/progress" and "progressToken" in params:
        front.calls.progressed(session, params)
    elif message.method == "notifications/roots/list_changed" and session.capabilities & ClientCaps.ROOTS_CHANGED:
        _roots_changed(front, session, endpoint, principal)


def _roots_changed(front: Front, session: Session, endpoint: EndpointSpec, principal: Principal) -> None:
    """A legacy client's folders are others. That was promised to the servers of its own sessions alone, when they were
    opened; a modern server knows no such notification, and asks again when it needs them."""
    if endpoint.name not in front.fleet.by_session:
        return
    viewer = front.fleet.viewer(endpoint, principal, session, session.capabilities)
    for name, scope in viewer.scopes.items():
        server = front.fleet.servers.get(name)
        channel = server.ready(scope) if server is not None and server.serves_one_session(scope) else None
        if channel is not None and channel.dialect.era == "legacy":
            channel.notify(ROOTS_CHANGED)
