"""What a server asks or tells a client on a stream that many calls share: whose is it?

In: a message of the server, on whose behalf the channel was opened, its open calls. Out: the call that it belongs to,
or the answer that refuses it. Pure. Cases: `tests/flow/upstream/test_pushes.py`, one row a rule.
Source: MCP 2025-11-25, lifecycle (only declared capabilities), transports (requests should relate to a call); MCP
2026-07-28, subscriptions (stamps); design §4 ("a push that belongs to no open call is refused").
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from narthex.flow.codec.handshake import answer_push, refuse_push
from narthex.flow.codec.jsonrpc import BAD_JSON, Incoming
from narthex.flow.codec.subscriptions import LIST_KINDS, META_SUBSCRIPTION
from narthex.flow.upstream.port import Behalf, Own, Sink

NEEDS = {"sampling/createMessage": "sampling", "elicitation/create": "elicitation", "roots/list": "roots"}
"""The client capability that each request of a server needs."""
CHANGES = frozenset(
    {
        *(f"notifications/{kind}/list_changed" for kind in LIST_KINDS),
        "notifications/resources/updated",
        "notifications/tasks",
        "notifications/tasks/status",
        "notifications/subscriptions/acknowledged",
    }
)
"""Notifications for those who listen, whoever calls."""
NO_CALL = "no call is open that this request could belong to"
MANY_CALLS = "several calls are open: send the request on the stream of the call that it belongs to"


class _Meta(msgspec.Struct):
    subscription: int | str | None = msgspec.field(name=META_SUBSCRIPTION, default=None)


class _Stamped(msgspec.Struct):
    meta: _Meta = msgspec.field(name="_meta", default_factory=_Meta)


_decode_stamped = msgspec.json.Decoder(_Stamped).decode


def subscription_of(message: Incoming) -> int | None:
    """The request of ours on whose stream a notification came, where one pipe carries all streams (stdio)."""
    try:
        stamp = _decode_stamped(message.params).meta.subscription
    except BAD_JSON:
        return None
    return stamp if isinstance(stamp, int) else None


def can_be_asked(behalf: Behalf) -> bool:
    """Does the channel serve one client that has said it can be asked something?"""
    return behalf.one_session and not behalf.capabilities.keys().isdisjoint(NEEDS.values())


def client_calls(calls: Mapping[int, Sink]) -> list[Sink]:
    """Those of the open calls that a client waits for."""
    return [sink for sink in calls.values() if not isinstance(sink, Own)]


def place_request(message: Incoming, behalf: Behalf, calls: Mapping[int, Sink]) -> Sink | bytes:
    """The call that a server's request belongs to, or our answer to it.

    A ping needs nobody. Anything else needs a channel of one client session, and exactly one open call: with more than
    one nobody could say whose it is. That call's client may lack what is needed; then the call itself has an answer.
    """
    id_ = message.id
    assert isinstance(id_, (int, str))
    needed = NEEDS.get(message.method)
    owners = client_calls(calls) if behalf.one_session and needed is not None else []
    if len(owners) == 1:
        return owners[0]
    if not behalf.one_session or needed not in behalf.capabilities:
        answer = answer_push(message)
        assert answer is not None
        return answer
    return refuse_push(id_, MANY_CALLS if owners else NO_CALL)


def place_notification(message: Incoming, behalf: Behalf, calls: Mapping[int, Sink]) -> Sink | None:
    """The call that a notification is told to: log messages and the like, where only one call can have caused them."""
    if not behalf.one_session or message.method in CHANGES:
        return None
    owners = client_calls(calls)
    return owners[0] if len(owners) == 1 else None
