"""One call under way: drives its walk, hears its server and its client, and ends it in every way that it can end.

The walk's needs are met from memory at once (`needs.py`); only what must wait parks it, and a callback resumes it: no
task for a call that does not wait. What the client gets is written by its `Response`. The exchange is the upstream's
`Sink` and the client connection's `Exchanging`. Cases: `tests/flow/accept/test_exchange.py`, `tests/e2e/`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from narthex.errors import ContentBlocked, GatewayError, Overloaded, UpstreamTimeout, UpstreamUnavailable
from narthex.flow.accept.caching import Caching
from narthex.flow.accept.hearing import hear, result
from narthex.flow.accept.holding import Approved
from narthex.flow.accept.inputs import Inputs
from narthex.flow.accept.keeping import Keeping
from narthex.flow.accept.lasting import Lasting, lasting_of, when_recorded
from narthex.flow.accept.metering import Metered
from narthex.flow.accept.needs import PARKED, found, meet, reach, room_of
from narthex.flow.accept.refusals import error_lines, status_of
from narthex.flow.accept.relayed import MOST_KEPT, Relayed
from narthex.flow.accept.replying import Replying
from narthex.flow.accept.response import Response
from narthex.flow.codec.failures import for_era
from narthex.flow.codec.jsonrpc import Incoming, RawMap, encode_error
from narthex.flow.codec.param_headers import Said
from narthex.flow.notify.resumability import Stream
from narthex.flow.policy.check import Check
from narthex.flow.policy.runs.runs import End
from narthex.flow.route.target import Target
from narthex.flow.upstream.fleet import Viewer
from narthex.flow.upstream.port import Channel, Flight, Outgoing, SessionLost
from narthex.flow.upstream.server import Server
from narthex.flow.walk import KIND_OF, LOST, Need, Send, Walk, exchange
from narthex.flow.whole import HttpRequest
from narthex.telemetry.accounts import OUTCOME, outcome_of
from narthex.telemetry.asking import on_behalf
from narthex.types import Call

if TYPE_CHECKING:
    from narthex.flow.accept.front import Front
    from narthex.telemetry.traces import Trace

LINGER_S: Final = 2.0
"""How long a server may keep a stream open behind its response."""
_OK: Final = OUTCOME["ok"]
_TOOL_ERROR: Final = OUTCOME["tool_error"]
_RPC_ERROR: Final = OUTCOME["rpc_error"]
_CANCELLED: Final = OUTCOME["cancelled"]
_FAILED: Final = -1
_WAITING: Final[Any] = object()
_log: Final = logging.getLogger("narthex.call")


class Exchange:
    """A call that goes to a server. `only_server` is the one whose state a retry brings."""

    __slots__ = (
        "_ending", "_sending", "_steps", "_task", "_waits_for", "_waits_since", "_walk", "ahead_s", "answer",
        "answered", "approved", "began_at", "caching", "call", "channel", "check", "code", "deadline", "definition",
        "flight", "front", "heard_at", "inputs", "lasting", "metadata_url", "metered", "only_server", "out",
        "outcome", "over", "response", "sent_at", "server", "server_name", "size_in", "source", "takes_events",
        "target_name", "trace", "unheard", "viewer", "waits",
    )  # fmt: skip

    def __init__(
        self,
        front: Front,
        connection: Replying | None,
        call: Call,
        viewer: Viewer,
        size_in: int,
        takes_events: bool,
        began_at: float,
        deadline: float,
    ) -> None:
        self.front = front
        self.response = Response(connection, front.clock)
        self.call = call
        self.viewer = viewer
        self.size_in = size_in
        self.takes_events = takes_events
        self.began_at = began_at
        self.deadline = deadline
        self.answered = self.over = False
        self.only_server = self.server_name = self.target_name = ""
        self.definition = b""  # SHA-256 of what is called, as its server listed it; empty: it has not
        self.code = 0
        self.source = ""
        self._walk: Walk | None = None
        self._task: asyncio.Future[Any] | None = None
        self.server: Server | None = None  # whose call it is, as soon as that is known
        self.channel: Channel | None = None
        self.flight: Flight | None = None
        self.out: Outgoing | None = None
        self._steps = 0
        self._waits_for = ""
        self._waits_since = 0.0
        self.waits: dict[str, float] | None = None  # seconds that it has waited, by what for; None: it has not
        self.ahead_s = 0.0  # of these, before its server was asked
        self._ending: Any = _WAITING
        self._sending = False
        self.outcome = _OK
        self.inputs: Inputs | None = None
        self.unheard: GatewayError | None = None  # what a client hears that says nothing when it is asked
        self.approved: Approved | None = None  # what people have said of it; None: nothing
        self.check: Check | None = None  # whether the caller may; None where whoever was let in may
        self.metered: Metered | None = None  # what it takes of the limits; None where it counts in none
        self.caching: Caching | None = None  # what the cache does for it; None: nothing
        self.lasting: Lasting | None = None  # its records wait for the disk; None where they do not
        self.answer: Sequence[Any] | Relayed = ()  # what the client is answered, until that is recorded
        self.sent_at = self.heard_at = 0.0  # when its server was first asked, and when that has answered
        self.trace: Trace | None = None  # the trace that it is part of; None where nobody traces it
        self.metadata_url = ""  # for the challenge of one that lacks scopes

    # --- driving the walk

    def start(self, request: HttpRequest) -> None:
        """Run until the call is answered or must wait. The request's headers are kept only where they are needed."""
        call, channel, said = self.call, None, None
        try:
            target = found(self, KIND_OF[call.method], call.name) if call.name else None
            if self.front.durability is not None:
                self.lasting = lasting_of(self, target)
            if target is not None and target.caching is None:  # what is answered from memory asks no server
                channel = reach(self, target.server)
        except GatewayError as error:
            self.fail(error)
        else:
            if request.params or target is None or target.params:
                said = Said(request.headers, request.repeated, request.params)
            recalls = self if self.front.cache is not None else None
            walk = exchange(
                call, target, channel, said, self.check,
                limited=self.metered, durable=bool(self.lasting), recalls=recalls,
            )  # fmt: skip
            self._walk = walk
            self._step(walk, walk.send, None)

    def renew(self, target: Target) -> None:
        """Run as a call that no client waits for: what it is answered is kept."""
        walk = self._walk = exchange(self.call, target, durable=bool(self.lasting))
        self._step(walk, walk.send, None)

    def recalling(self) -> Caching:
        """What this call asks of the cache."""
        cache = self.front.cache
        assert cache is not None
        self.caching = Caching(self, cache)
        return self.caching

    def _step(self, walk: Walk, move: Callable[[Any], Need], answer: Any) -> None:
        if self._waits_for:
            self.stop_waiting()
        self._steps = step = self._steps + 1
        try:
            need = move(answer)
            while (answer := self._send(need) if need.__class__ is Send else meet(self, need)) is not PARKED:
                need = walk.send(answer)
            if need.__class__ is not Send and step == self._steps:  # else it has gone on meanwhile
                self._waits_for, self._waits_since = room_of(need), self.front.clock()
        except StopIteration:
            self._walk = None  # it has ended by itself: closing it would raise in it
            self.close()
        except GatewayError as error:
            self.fail(error)
        except Exception:
            _log.exception("a call failed in the gateway")
            self.fail(GatewayError())

    def stop_waiting(self) -> None:
        """What it waits for is here, or it waits no longer."""
        room, self._waits_for = self._waits_for, ""
        if room:
            seconds = self.front.clock() - self._waits_since
            waits = self.waits = self.waits or {}
            waits[room] = waits.get(room, 0.0) + seconds
            if not self.sent_at:
                self.ahead_s += seconds

    def park(self, coming: Awaitable[Any]) -> Any:
        self._task = asyncio.ensure_future(coming if self.trace is None else on_behalf(self.trace, coming))
        self._task.add_done_callback(self._unpark)
        return PARKED

    def _unpark(self, task: asyncio.Future[Any]) -> None:
        self._task = None
        if task.cancelled():
            return
        error, walk = task.exception(), self._walk
        if self.over or walk is None:
            return
        if error is None:
            self._step(walk, walk.send, task.result())
        else:
            self._step(walk, walk.throw, error)

    def _send(self, need: Send) -> Any:
        server, channel, out, target = self.server, need.channel, need.out, need.target
        assert server is not None
        if self.channel is None:
            if server.in_flight >= server.spec.max_in_flight:
                raise Overloaded(f"server {server.spec.name} has too many calls")
            server.in_flight += 1
        else:
            self.channel.open_calls -= 1
        channel.open_calls += 1
        self.channel, self.out, self.target_name, self.definition = channel, out, target.name, target.definition
        if server.spec.idempotent and self.call.method == "tools/call":
            out.resend = self.front.is_idempotent(server.spec, target.name)
        if not self.sent_at:
            self.sent_at = self.front.clock()
        self._ending = _WAITING
        self._sending = True
        duties = self.check.duties if self.check is not None else None
        self.flight = channel.request(out, self if duties is None else Keeping(self, duties))
        self._sending = False
        return PARKED if self._ending is _WAITING else self._take_ending()

    def _take_ending(self) -> Any:
        ending, self.flight = self._ending, None
        if isinstance(ending, GatewayError):
            raise ending
        return ending

    def turn_back(self, ending: Any) -> None:
        """The upstream's part is over: resume the walk, unless it is still sending."""
        if self.over or self._ending is not _WAITING:
            return
        self._ending = ending
        if self._sending:
            return
        self.flight, walk = None, self._walk
        assert walk is not None
        if isinstance(ending, GatewayError):
            self._step(walk, walk.throw, ending)
        else:
            self._step(walk, walk.send, ending)

    # --- Sink: what the upstream says

    def started(self, streaming: bool) -> None:
        if not streaming or not self.takes_events or self.response.has_form:
            return
        self.response.stream()
        if self.call.era == "legacy" or self.channel is None or self.channel.dialect.era == "modern":
            asyncio.get_running_loop().call_soon(self._begin_late)
        else:  # what this server asks may become an error whose HTTP status is no 200: `comment` begins a silent one
            self.response.quiet_since = self.front.clock()
            self.front.calls.streams.add(self)

    def _begin_late(self) -> None:
        """The server has begun a stream and says nothing yet: the client learns at once that it has."""
        if not self.answered and not self.over:
            self.send_event(b"")

    def message(self, message: Incoming) -> None:
        hear(self, message)

    def give_up(self, error: GatewayError) -> None:
        """End the call with an error that its server does not know of."""
        if self.flight is not None:
            self.flight.cancel(error.public)
        self.failed(error)

    def go_on(self, answer: Any) -> None:
        """What the walk waits for is here: what a legacy client answers a modern server, say."""
        if (walk := self._walk) is not None and not self.over:
            self._step(walk, walk.send, answer)

    def attach(self, connection: Replying, call: Call, size_in: int, *, takes_events: bool, answers: RawMap) -> None:
        """A modern client is back with a retry of this call, which has gone on without it."""
        assert self.inputs is not None
        self.call, self.size_in, self.takes_events = call, size_in, takes_events
        self.began_at = self.front.clock()
        self.sent_at = self.began_at if self.sent_at else 0.0
        self._waits_for, self.waits, self.ahead_s = "", None, 0.0  # that was the call before
        self.response.attach(connection)
        self.answer = ()
        connection.exchange = self
        try:
            self.inputs.retried(answers)
        except GatewayError as error:
            self.fail(error, by_client=True)

    def can_push(self) -> bool:
        """Is there a stream on which the client can be asked?"""
        return self.takes_events and (self.response.connection is not None or self.response.log is not None)

    def end_round(self, members: bytes, outcome: int = _OK) -> None:
        """Answer the client's request with a result that asks, and let go of its connection."""
        self.answer = parts = result(self, members)
        self.front.calls.streams.discard(self)
        when_recorded(self.lasting, partial(self._end_round, (b"".join(parts),)))
        self.front.account(self, outcome, self.response.size)

    def _end_round(self, parts: Sequence[Any]) -> None:
        self.response.write(parts, sum(map(len, parts)))
        self.response.let_go()
        self.resume()  # nobody is left who reads too slowly

    @property
    def call_s(self) -> float:
        """How long the server may work on the call."""
        assert self.server is not None
        return self.server.spec.call_timeout_s

    def reply(self, body: bytes) -> None:
        """Send the server its answer."""
        if self.channel is not None:
            self.channel.notify(body)

    def send_event(self, message: bytes) -> None:
        """Send one message (empty: only the head) to the client, beginning the stream with the first. Where the client
        has gone, it is kept for it."""
        first = b""
        if (begins := self.response.stream()) is not None:
            if self.metered is not None:
                begins.lines = self.metered.lines()
            self.front.calls.streams.add(self)
            first = self.front.hub.keep(self)
        if not self.response.say(message, first):
            self.turn_back(ContentBlocked("the client reads too slowly"))

    def respond(self, parts: Sequence[Any], end: End | None = None) -> None:
        response, self.answer = self.response, parts
        self.answered = True
        self.heard_at = self.front.clock()
        if self.check is not None:
            self.check.end(end or ("done" if self.outcome == _OK else "failed"))
        self.deadline = self.front.tick + 1.0 + LINGER_S
        response.size += (size := sum(map(len, parts)))
        lines = self.metered.answered(response.size, parts) if self.metered is not None else b""
        if self.lasting is None:
            response.write(parts, size, lines)
        else:
            self.lasting.hold(partial(response.write, (b"".join(parts),), size, lines))
        self.front.account(self, self.outcome, response.size)

    def kept(self, log: Stream) -> None:
        """From now on what is sent is kept in `log`."""
        assert self.response.events is not None
        self.response.events.log = log

    def resumed(self, connection: Replying, missed: bytes) -> None:
        """A legacy client that lost the connection is back on another one, and gets what it has missed."""
        log = self.response.log
        assert log is not None
        log.attach(self)
        connection.exchange = self
        self.response.resume(connection, missed)

    def splice(self, head: bytes, total: int) -> bool:
        """Take a large answer as it arrives, when its first bytes leave no doubt what it is."""
        channel, out = self.channel, self.out
        if channel is None or out is None or self.answered or self.lasting is not None:
            return False
        if (self.check is not None and self.check.asks_how_it_ends) or (
            self.metered is not None and (self.metered.reads or self.metered.instead is not None)
        ):
            return False
        if self.caching is not None:
            if self.caching.leads:
                return False
            self.caching.begins_to_answer()
        lines = self.metered.lines() if self.metered is not None else b""
        if not self.response.splice(self.call, out.id, channel.dialect.era, head, total, lines):
            return False
        if self.front.record is not None and (spliced := self.response.spliced) is not None:
            self.answer = Relayed(spliced.skip, spliced.extra, keep=total <= MOST_KEPT)
        return True

    def chunk(self, data: bytes) -> None:
        if isinstance(self.answer, Relayed):
            self.answer.piece(data)
        self.response.piece(data)

    def finished(self) -> None:
        if self.inputs is not None and self.inputs.detached:
            self.inputs.ended(None)
            return
        response = self.response
        if response.spliced is not None and not self.answered:
            self.answered = True
            self.heard_at = self.front.clock()
            if self.check is not None:
                self.check.end("done")
            if self.metered is not None:
                self.metered.answered(response.size)
            self.deadline = self.front.tick + 1.0 + LINGER_S
            response.end_pieces()
            if not self.over:  # a client that has gone, of a call that went on: it was answered none the less
                self.front.account(self, _OK, response.size)
        if not self.answered:
            self.turn_back(UpstreamUnavailable("the server ended its answer without a response", sent=True))
        elif self._sending:
            self._ending = None
        elif not self.over and self._walk is not None:
            self.flight = None
            self._step(self._walk, self._walk.send, None)

    def failed(self, error: GatewayError) -> None:
        if self.inputs is not None and self.inputs.detached:
            self.inputs.ended(error)
            return
        if self.answered:
            self.turn_back(None)
        elif isinstance(error, SessionLost):
            if self.server is not None:
                self.server.breaker.success(self.front.clock())  # it answered
            lost = UpstreamUnavailable("the server ended our session", sent=True)
            self.turn_back(lost if self.response.has_form else LOST)
        else:
            self.turn_back(error)

    # --- Exchanging: what the client's side does

    def client_gone(self) -> None:
        """The client closed: for a modern one that cancels, for a legacy one it does not (2025-11-25, transports)."""
        self.response.let_go()
        if self.call.era == "modern" and not self.answered:
            self.cancel("the client closed the stream")
        elif not self.answered or self.lasting is not None:
            self.resume()  # nobody is left who reads too slowly
            if (log := self.response.log) is not None:
                log.detach(self, self.front.clock())

    def cancel(self, reason: str) -> None:
        """Give the call up and tell the server."""
        if self.over:
            return
        self.outcome = _CANCELLED
        if self.flight is not None:
            self.flight.cancel(reason)
        self._settle()
        if not self.answered:
            self.front.account(self, _CANCELLED, self.response.size)
            self.response.break_off()
        self.close()

    def pause(self) -> None:
        if self.caching is not None and self.caching.leads:
            return  # others wait for the answer; it is held whole in any case
        if self.flight is not None and not self.answered:  # what is answered is read to its end
            self.flight.pause()

    def resume(self) -> None:
        if self.flight is not None:
            self.flight.resume()

    # --- the end

    def expire(self) -> None:
        """The deadline has passed."""
        if self.lasting is not None and self.lasting.expire():
            return
        if self.flight is not None:
            self.flight.cancel("deadline")
            self.flight = None
        if self.answered:
            self.close()
            return
        if self.inputs is not None and self.inputs.waits:
            late = UpstreamTimeout("the client did not answer in time what the server asks")
            self.fail(self.unheard or late, by_client=True)
            return
        self.fail(UpstreamTimeout(f"server {self.server_name or '?'} did not answer in time"))

    def end_stream(self) -> None:
        """The gateway stops: end the call now, with an error that says so."""
        if self.flight is not None:
            self.flight.cancel("the gateway is stopping")
            self.flight = None
        self.fail(Overloaded("the gateway is stopping"))

    def comment(self, now: float) -> None:
        """Keep an idle event stream alive through proxies: begin it, if it has not."""
        events = self.response.events
        if self.answered:
            return
        if events is not None and not events.begun:
            self.send_event(b"")
        else:
            self.response.comment(now)

    def fail(self, error: GatewayError, *, by_client: bool = False) -> None:
        """Answer with an error, in the form that has been begun, and end. `by_client`: the server is not to blame."""
        if self.over:
            return
        self.outcome = _FAILED
        if self.flight is not None:
            self.flight.cancel("the call has failed")
        if self.server is not None and self.out is not None and not by_client:
            self.server.failed(error)
        if self.inputs is not None:
            self.inputs.withdraw("the call has failed")
        self._settle(error)
        if not self.answered:
            self.answered = True
            decision_id = self.front.new_id()
            body = encode_error(self.front.decode_id(self.call.id_json), for_era(error, self.call.era), decision_id)
            when_recorded(self.lasting, partial(self.write_error, error, body))
            self.front.account(self, outcome_of(error), self.response.size + len(body), error, decision_id)
        self.close()

    def write_error(self, error: GatewayError, body: bytes) -> None:
        """Write an error's body, in the form that has been begun."""
        status = status_of(error, self.call.era)
        self.response.write_error(status, body, error_lines(error, status, self.metadata_url))

    def _settle(self, error: GatewayError | None = None) -> None:
        """What was reserved is used as far as it was sent; the first to say so is heard."""
        if self.metered is not None:
            self.metered.ended(sent=self.out is not None, error=error)
        if self.check is not None:
            self.check.end("failed" if self.out is not None else "unsent")
        if self.caching is not None:
            self.caching.settled(error)

    def close(self) -> None:
        if self.over:
            return
        self.over = True
        self._settle()
        if self._walk is not None:
            self._walk.close()
        if self._task is not None:
            self._task.cancel()
        if (channel := self.channel) is not None:
            assert self.server is not None
            channel.last_used = self.front.tick
            self.server.call_ended(channel, worked=self.outcome not in (_CANCELLED, _FAILED))
        self.flight = None
        if self.inputs is not None:
            self.inputs.close()
        if self.lasting is None or not self.lasting.holds:
            self.leave()

    def leave(self) -> None:
        """It is over, and nothing waits any more: nobody knows of it from now on."""
        response = self.response
        if (log := response.log) is not None:
            self.front.hub.let_go(log)
        self.front.calls.active.discard(self)
        if response.events is not None or self.call.session is not None:
            self.front.calls.forget(self)
        if not self.answered:
            response.abort()
        response.let_go()
        self.caching = self.lasting = None  # they hold it, and it them: what is over is to go at once
