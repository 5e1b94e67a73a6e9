"""What a walk needs, met: from memory at once, or by parking it until a callback brings the answer.

In: an exchange and a need of its walk. Out: the answer, or `PARKED`; then `Exchange.go_on` or the end of a task brings
it. `Send` is met by the exchange itself. What a new kind of need takes is a row in `meet`, or, for one that is answered
from memory or by a coroutine and needs nothing of the driver, a subclass of `Question` and no row at all.
Cases: `tests/flow/accept/test_exchange.py`, `tests/flow/accept/test_holding.py`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from narthex.errors import GatewayError, NotVisible
from narthex.flow.accept.holding import asking, stand
from narthex.flow.accept.inputs import Inputs
from narthex.flow.cache.recall import Joined
from narthex.flow.codec.inputs import Ask
from narthex.flow.codec.seal import SealError
from narthex.flow.limit.reserve import Reserve
from narthex.flow.otherwise import FindNamed
from narthex.flow.policy.approvals.holding import Hold
from narthex.flow.policy.deciding import Decide, Look, Question
from narthex.flow.route.names import SEPARATOR, canonical, shown_name
from narthex.flow.route.target import Target
from narthex.flow.upstream.port import Channel
from narthex.flow.upstream.server import Server
from narthex.flow.walk import Begin, Find, Need, Open
from narthex.telemetry.accounts import OUTCOME
from narthex.types import Kind

if TYPE_CHECKING:
    from narthex.flow.accept.exchange import Exchange

PARKED: Final[Any] = object()
"""In the place of an answer: it comes later, or the exchange has ended."""
_ROOMS: Final[tuple[tuple[type[Any], str], ...]] = (
    (Begin, "disk"), (Hold, "approval"), (Open, "connection"), (Ask, "client"), (Reserve, "limits"), (Joined, "cache"),
    (Look, "policy"), (Decide, "policy"), (Find, "listing"), (FindNamed, "listing"),
)  # fmt: skip
STATE_PAUSE_S: Final = 0.2
"""Before a modern server is asked again that wants nothing but time."""


def meet(one: Exchange, need: Need) -> Any:
    """The answer to a need, or `PARKED`. Raises what ends the call."""
    if isinstance(need, Reserve) or isinstance(need, Question):  # noqa: SIM101 - the first is told by its class alone
        answer = need.now()
        return one.park(need.later()) if answer is None else answer
    if isinstance(need, Ask):
        return _ask(one, need)
    if isinstance(need, Begin) and one.lasting is not None and one.front.record is not None:
        one.definition = need.target.definition
        one.lasting.begin(one.front.record)
        return PARKED
    if isinstance(need, Hold):
        turn_to(one, need.target.server)
        return one.park(stand(one, need))
    if isinstance(need, Open):
        return reach(one, need.server) or one.park(_opened(one, need.server))
    if isinstance(need, FindNamed):
        return _named(one, need)
    assert isinstance(need, Find)
    target = found(one, need.kind, need.name)
    return target or one.park(one.front.fleet.find(one.viewer, need.kind, need.name, need.check))


def room_of(need: Need) -> str:
    """What a call waits for, as its record calls it."""
    for kind, room in _ROOMS:
        if isinstance(need, kind):
            return room
    return "other"


def found(one: Exchange, kind: Kind, name: str) -> Target | None:
    """Where a name leads by what is in memory, if the caller sees it."""
    target = one.front.fleet.find_now(one.viewer, kind, name) if name else None
    return target if one.check is None else one.check.visible(kind, target)


def _named(one: Exchange, need: FindNamed) -> Any:
    """Another tool of the endpoint, by its canonical name."""
    spec, (server, _, name) = one.viewer.spec, need.name.partition(SEPARATOR)
    shown = shown_name(server, name, naming=spec.naming, max_name=spec.max_name)
    target = found(one, "tools", shown)
    return _beside(one, need, target) if target is not None else one.park(_looked_for(one, need, shown))


async def _looked_for(one: Exchange, need: FindNamed, shown: str) -> tuple[Target, bool] | None:
    try:
        target = await one.front.fleet.find(one.viewer, "tools", shown, need.check)
    except GatewayError:  # its server is away, or hidden: then there is none
        return None
    return _beside(one, need, target)


def _beside(one: Exchange, need: FindNamed, target: Target | None) -> tuple[Target, bool] | None:
    """The tool, if it is that one, and not another of the same shown name; and does it give what the other does?"""
    view = one.viewer.views.get("tools")
    if target is None or view is None or canonical(target.server, target.name) != need.name:
        return None
    return target, view.index.has_same_output(need.asked, need.name)


def turn_to(one: Exchange, name: str) -> Server:
    """From now on the call is one of this server. Raises NotVisible: a reload has removed it."""
    server = one.server = one.front.fleet.servers.get(name)
    one.server_name = name
    if one.only_server and name != one.only_server:
        raise SealError("the state is another server's")
    if server is None:
        raise NotVisible("the server is no longer configured")
    return server


def reach(one: Exchange, name: str) -> Channel | None:
    """The open channel to a server, None when one must be opened.

    Raises:
        NotVisible: A reload has removed the server.
        UpstreamUnavailable: Its breaker is open.
    """
    server, front = turn_to(one, name), one.front
    if one.inputs is None:  # else it has moved with what was asked
        one.deadline = one.began_at + server.spec.call_timeout_s
    scope = one.viewer.scopes[name]
    channel = server.channels.get(scope)
    if channel is None or not channel.alive:
        return None
    if server.breaker.state != "closed":
        server.check_breaker()
    if one.call.log_level and front.levels.due(server, channel, one.call):
        return None
    if server.spec.sharing == "session" and front.hub.is_joining(one.call.session, server, scope):
        return None
    return channel


async def _opened(one: Exchange, name: str) -> Channel:
    call, front = one.call, one.front
    server, scope = front.fleet.servers[name], one.viewer.scopes[name]
    channel = await server.open(scope)
    if call.log_level:
        await front.levels.settle(server, channel, call)
    if server.serves_one_session(scope):
        await front.hub.joined(call, server, scope, channel)
    return channel


def _ask(one: Exchange, ask: Ask) -> Any:
    """Ask a legacy client what a modern server wants to know, or we. A state alone asks nothing: time passes."""
    if not ask.required.asked:
        return one.park(asyncio.sleep(STATE_PAUSE_S, {}))
    if ask.about is not None and one.call.era == "modern":
        one.end_round(asking(one, ask), OUTCOME["approval_required"])
        one.close()
        return PARKED
    one.unheard = ask.about and ask.about.refusal
    one.inputs = one.inputs or Inputs(one)
    one.inputs.ask(ask.required.asked)
    return PARKED
