"""What the server of a call says while it runs: its response, how far it is, what has changed, what it asks.

In: messages of the server, in their order. Out: the response for the client, in its era's words; or the way on of the
walk, where the answer is another question, or cannot be taken for one.
Cases: `tests/flow/accept/test_exchange.py`, `tests/flow/accept/test_inputs.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from narthex.errors import GatewayError, UpstreamUnavailable
from narthex.flow.accept.inputs import Inputs
from narthex.flow.accept.unfinished import unfinished
from narthex.flow.codec.bridge import GoesOn, NeedsInput, error_code, progress_for, response_parts
from narthex.flow.codec.failures import HEADER_MISMATCH, code_for, status_for
from narthex.flow.codec.handshake import answer_push
from narthex.flow.codec.jsonrpc import BAD_JSON, UNSET, Incoming, Raw, is_request
from narthex.flow.codec.log_levels import passes
from narthex.flow.codec.notes import noted
from narthex.flow.upstream.era import is_strange
from narthex.flow.upstream.port import Channel
from narthex.flow.upstream.pushes import CHANGES, NEEDS
from narthex.telemetry.accounts import OUTCOME

if TYPE_CHECKING:
    from narthex.flow.accept.exchange import Exchange

INSTEAD: Final = "io.narthex/instead"
"""The member of a result's `_meta` that says that another tool has answered."""
_TOOL_ERROR: Final = OUTCOME["tool_error"]
_RPC_ERROR: Final = OUTCOME["rpc_error"]


def hear(one: Exchange, message: Incoming) -> None:
    """Do what a message of the server asks for. What comes behind its response is nothing any more."""
    if one.answered or (one.inputs is not None and not is_request(message) and one.inputs.took(message)):
        return
    if message.method:
        _notified(one, message)
        return
    out, channel = one.out, one.channel
    assert out is not None and channel is not None
    if message.id != out.id and not (message.error and message.id in (None, UNSET)):
        one.turn_back(UpstreamUnavailable("the server answered another request", sent=True))
        return
    try:
        parts, tool_error = response_parts(one.call, channel.dialect.era, message)
    except BAD_JSON:
        one.turn_back(UpstreamUnavailable("the server's answer cannot be read", sent=True))
        return
    except (NeedsInput, GoesOn) as need:
        _unfinished(one, need)
        return
    except GatewayError as error:
        one.turn_back(error)
        return
    if tool_error:
        one.outcome = _TOOL_ERROR
    elif message.error:
        one.outcome = _RPC_ERROR
        one.code = error_code(message.error)
        _note_error(one, one.code, channel)
    if one.caching is not None:
        one.caching.answered(message, channel.dialect.era)
    if one.metered is not None and (instead := one.metered.instead) is not None:
        told = noted(b"".join(parts), INSTEAD, instead)
        parts = parts if told is None else result(one, told)
    one.respond(parts)


def result(one: Exchange, members: bytes | Raw) -> Sequence[Any]:
    """The response to the client with this result, in pieces."""
    return (b'{"jsonrpc":"2.0","id":', one.call.id_json, b',"result":', members, b"}")


def _note_error(one: Exchange, code: int, channel: Channel) -> None:
    era, server = channel.dialect.era, one.server
    one.response.status = status_for(one.call.era, code_for(one.call.era, era, code))
    if is_strange(era, code) and server is not None:
        server.doubt(channel, code)
    if code == HEADER_MISMATCH and era == "modern" and server is not None:
        server.list_changed("tools")  # the headers came of what it listed: it has another list now


def _notified(one: Exchange, message: Incoming) -> None:
    channel, server = one.channel, one.server
    assert channel is not None and server is not None
    if one.caching is not None:
        one.caching.heard(message)
    if is_request(message):
        _asked(one, message)
        return
    if message.method in CHANGES:
        server.pushed(one.viewer.scopes[one.server_name], channel, message)
        return
    try:
        data = progress_for(one.call, message, channel.dialect.era)
    except BAD_JSON:
        return
    if message.method == "notifications/message" and not passes(message.params, one.front.hub.level(one.call)):
        return
    if data is not None and one.takes_events:
        one.send_event(data)


def _asked(one: Exchange, message: Incoming) -> None:
    """A request of a server on the stream of this call. A modern server may send none, and a legacy one only where it
    was told what the client can be asked (design §4)."""
    channel, server = one.channel, one.server
    assert channel is not None and server is not None
    alone = channel.dialect.era == "legacy" and server.serves_one_session(one.viewer.scopes[one.server_name])
    if not alone or message.method not in NEEDS:
        if (reply := answer_push(message)) is not None:
            channel.notify(reply)
        return
    one.inputs = one.inputs or Inputs(one)
    one.inputs.pushed(message)


def _unfinished(one: Exchange, need: NeedsInput | GoesOn) -> None:
    """A modern server's result asks: a modern client gets it as it is, a legacy one is asked. Or it is a task."""
    if one.metered is not None and one.metered.instead is not None:  # the client would come back to the one it named
        one.turn_back(UpstreamUnavailable("the tool that answers in the place of this one wants more", sent=True))
        return
    if one.caching is not None:
        one.caching.spoil()
    try:
        if (told := unfinished(one, need)) is not None:
            one.respond(result(one, told[0]), told[1])
            return
    except GatewayError as error:
        one.turn_back(error)
        return
    if one.flight is not None:
        one.flight.cancel("it has been answered")  # what its stream still brings must not end the next round
    assert isinstance(need, NeedsInput)
    one.turn_back(need.required)
