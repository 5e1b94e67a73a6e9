"""One call under way: drives its walk, relays its answer, and ends it in every way that it can end.

The walk's needs are answered from memory at once; only what must wait parks it, and a callback resumes it: no task for
a call that does not wait. The exchange is the upstream's `Sink` and the client connection's `Exchanging`.
Cases: `tests/flow/accept/test_exchange.py`, `tests/e2e/`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from narthex.errors import ContentBlocked, GatewayError, NotVisible, Overloaded, UpstreamTimeout, UpstreamUnavailable
from narthex.flow.accept.forms import JSON, Events, Splice, answer, answer_error, splice
from narthex.flow.accept.holding import asking, stand
from narthex.flow.accept.inputs import Inputs
from narthex.flow.accept.keeping import Keeping
from narthex.flow.accept.lasting import Lasting, lasting_of, when_recorded
from narthex.flow.accept.metering import Metered
from narthex.flow.accept.replying import Replying
from narthex.flow.accept.unfinished import unfinished
from narthex.flow.codec.bridge import GoesOn, NeedsInput, error_code, progress_for, response_parts
from narthex.flow.codec.failures import HEADER_MISMATCH, code_for, for_era, status_for
from narthex.flow.codec.handshake import answer_push
from narthex.flow.codec.inputs import Ask
from narthex.flow.codec.jsonrpc import BAD_JSON, UNSET, Incoming, Raw, RawMap, encode_error, is_request
from narthex.flow.codec.log_levels import passes
from narthex.flow.codec.param_headers import Said
from narthex.flow.codec.seal import SealError
from narthex.flow.notify.resumability import Stream
from narthex.flow.policy.approvals.holding import Hold
from narthex.flow.policy.check import Check
from narthex.flow.policy.deciding import Question
from narthex.flow.policy.runs.runs import End
from narthex.flow.route.index import Target
from narthex.flow.upstream.era import is_strange
from narthex.flow.upstream.fleet import Viewer
from narthex.flow.upstream.port import Channel, Flight, Outgoing, SessionLost
from narthex.flow.upstream.pushes import CHANGES, NEEDS
from narthex.flow.upstream.server import Server
from narthex.flow.walk import KIND_OF, LOST, Begin, Find, Need, Open, Send, Walk, exchange
from narthex.flow.whole import HttpRequest
from narthex.telemetry.accounts import OUTCOME, outcome_of
from narthex.types import Call, Kind

if TYPE_CHECKING:
    from narthex.flow.accept.front import Front

OVERFLOW: Final = 1024 * 1024
"""Unread bytes that one slow reader may pile up before its call fails: a shared pipe is never paused for it."""
LINGER_S: Final = 2.0
"""How long a server may keep a stream open behind its response."""
STATE_PAUSE_S: Final = 0.2
_OK: Final = OUTCOME["ok"]
_TOOL_ERROR: Final = OUTCOME["tool_error"]
_RPC_ERROR: Final = OUTCOME["rpc_error"]
_CANCELLED: Final = OUTCOME["cancelled"]
_FAILED: Final = -1
_PARKED: Final[Any] = object()
_WAITING: Final[Any] = object()
_log: Final = logging.getLogger("narthex.call")


class Exchange:
    """A call that goes to a server. `only_server` is the one whose state a retry brings."""

    __slots__ = (
        "_answer_size", "_channel", "_connection", "_ending", "_events", "_flight", "_inputs", "_out", "_outcome",
        "_sending", "_server", "_splice", "_status", "_task", "_unheard", "_walk", "answered", "began_at", "call",
        "check", "code", "deadline", "front", "lasting", "metadata_url", "metered", "only_server", "over", "passed",
        "server_name", "size_in", "source", "sse_at", "takes_events", "target_name", "viewer", "word",
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
        self._connection = connection
        self.call = call
        self.viewer = viewer
        self.size_in = size_in
        self.takes_events = takes_events
        self.began_at = began_at
        self.deadline = deadline
        self.answered = self.over = False
        self.only_server = self.server_name = self.target_name = ""
        self.code = self._answer_size = 0
        self.source = ""
        self.sse_at = 0.0
        self._walk: Walk | None = None
        self._task: asyncio.Future[Any] | None = None
        self._server: Server | None = None
        self._channel: Channel | None = None
        self._flight: Flight | None = None
        self._out: Outgoing | None = None
        self._ending: Any = _WAITING
        self._sending = False
        self._events: Events | None = None  # these two: the answer's form, where it is more than one JSON body
        self._splice: Splice | None = None
        self._outcome = _OK
        self._status = 200
        self._inputs: Inputs | None = None
        self._unheard: GatewayError | None = None  # these three are `holding`'s: what a client hears that says nothing,
        self.passed: tuple[str, int] | None = None  # the approval that has let the call pass, and how often,
        self.word: tuple[str, RawMap] | None = None  # and what a modern client's user has said of one
        self.check: Check | None = None  # whether the caller may; None where whoever was let in may
        self.metered: Metered | None = None  # what it takes of the limits; None where it counts in none
        self.lasting: Lasting | None = None  # its records wait for the disk; None where they do not
        self.metadata_url = ""  # for the challenge of one that lacks scopes

    # --- driving the walk

    def start(self, request: HttpRequest) -> None:
        """Run until the call is answered or must wait. The request's headers are kept only where they are needed."""
        call, channel, said = self.call, None, None
        try:
            target = self._found(KIND_OF[call.method], call.name) if call.name else None
            if self.front.durability is not None:
                self.lasting = lasting_of(self, target)
            if target is not None:
                channel = self._reach(target.server)
        except GatewayError as error:
            self.fail(error)
        else:
            if request.params or target is None or target.params:
                said = Said(request.headers, request.repeated, request.params)
            walk = exchange(call, target, channel, said, self.check, limited=self.metered, durable=bool(self.lasting))
            self._walk = walk
            self._step(walk, walk.send, None)

    def _reach(self, name: str) -> Channel | None:
        """The open channel to a server, None when one must be opened.

        Raises:
            NotVisible: A reload has removed the server.
            UpstreamUnavailable: Its breaker is open.
        """
        server = self._name(name)
        if self._inputs is None:  # else it has moved with what was asked
            self.deadline = self.began_at + server.spec.call_timeout_s
        scope = self.viewer.scopes[name]
        channel = server.channels.get(scope)
        if channel is None or not channel.alive:
            return None
        if server.breaker.state != "closed":
            server.check_breaker()
        if self.call.log_level and self.front.levels.due(server, channel, self.call):
            return None
        if server.spec.sharing == "session" and self.front.hub.is_joining(self.call.session, server, scope):
            return None
        return channel

    def _name(self, name: str) -> Server:
        server = self._server = self.front.fleet.servers.get(name)
        self.server_name = name
        if self.only_server and name != self.only_server:
            raise SealError("the state is another server's")
        if server is None:
            raise NotVisible("the server is no longer configured")
        return server

    async def _open(self, server: Server) -> Channel:
        scope = self.viewer.scopes[server.spec.name]
        channel = await server.open(scope)
        if self.call.log_level:
            await self.front.levels.settle(server, channel, self.call)
        if server.serves_one_session(scope):
            await self.front.hub.joined(self.call, server, scope, channel)
        return channel

    def _step(self, walk: Walk, move: Callable[[Any], Need], answer: Any) -> None:
        try:
            need = move(answer)
            while (answer := self._send(need) if need.__class__ is Send else self._meet(need)) is not _PARKED:
                need = walk.send(answer)
        except StopIteration:
            self._close()
        except GatewayError as error:
            self.fail(error)
        except Exception:
            _log.exception("a call failed in the gateway")
            self.fail(GatewayError())

    def _meet(self, need: Need) -> Any:
        fleet = self.front.fleet
        if isinstance(need, Question):
            answer = need.now()
            return self._park(need.later()) if answer is None else answer
        if isinstance(need, Ask):
            return self._ask(need)
        if isinstance(need, Begin) and self.lasting is not None and self.front.record is not None:
            self.lasting.begin(self.front.record)
            return _PARKED
        if isinstance(need, Hold):
            self._name(need.target.server)
            return self._park(stand(self, need))
        if isinstance(need, Open):
            return self._reach(need.server) or self._park(self._open(fleet.servers[need.server]))
        assert isinstance(need, Find)
        target = self._found(need.kind, need.name)
        return target or self._park(fleet.find(self.viewer, need.kind, need.name, need.check))

    def _found(self, kind: Kind, name: str) -> Target | None:
        """Where a name leads by what is in memory, if the caller sees it."""
        target = self.front.fleet.find_now(self.viewer, kind, name) if name else None
        return target if self.check is None else self.check.visible(kind, target)

    def _park(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        self._task = asyncio.ensure_future(coroutine)
        self._task.add_done_callback(self._unpark)
        return _PARKED

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
        server, channel, out, target = self._server, need.channel, need.out, need.target
        assert server is not None
        if self._channel is None:
            if server.in_flight >= server.spec.max_in_flight:
                raise Overloaded(f"server {server.spec.name} has too many calls")
            server.in_flight += 1
        else:
            self._channel.open_calls -= 1
        channel.open_calls += 1
        self._channel, self._out, self.target_name = channel, out, target.name
        if server.spec.idempotent and self.call.method == "tools/call":
            out.resend = self.front.is_idempotent(server.spec, target.name)
        self._ending = _WAITING
        self._sending = True
        duties = self.check.duties if self.check is not None else None
        self._flight = channel.request(out, self if duties is None else Keeping(self, duties))
        self._sending = False
        return _PARKED if self._ending is _WAITING else self._take_ending()

    def _take_ending(self) -> Any:
        ending, self._flight = self._ending, None
        if isinstance(ending, GatewayError):
            raise ending
        return ending

    def _end(self, ending: Any) -> None:
        """The upstream's part is over: resume the walk, unless it is still sending."""
        if self.over or self._ending is not _WAITING:
            return
        self._ending = ending
        if self._sending:
            return
        self._flight, walk = None, self._walk
        assert walk is not None
        if isinstance(ending, GatewayError):
            self._step(walk, walk.throw, ending)
        else:
            self._step(walk, walk.send, ending)

    # --- Sink: what the upstream says

    def started(self, streaming: bool) -> None:
        if not streaming or not self.takes_events or self._events is not None or self._splice is not None:
            return
        self._events = Events()
        if self.call.era == "legacy" or self._channel is None or self._channel.dialect.era == "modern":
            asyncio.get_running_loop().call_soon(self._begin_late)
        else:  # what this server asks may become an error whose HTTP status is no 200: `comment` begins a silent one
            self.sse_at = self.front.clock()
            self.front.calls.streams.add(self)

    def _begin_late(self) -> None:
        """The server has begun a stream and says nothing yet: the client learns at once that it has."""
        if not self.answered and not self.over:
            self.send_event(b"")

    def message(self, message: Incoming) -> None:
        if self.answered:
            return
        if self._inputs is not None and not is_request(message) and self._inputs.took(message):
            return
        if message.method:
            self._notification(message)
            return
        out, channel = self._out, self._channel
        assert out is not None and channel is not None
        if message.id != out.id and not (message.error and message.id in (None, UNSET)):
            self._end(UpstreamUnavailable("the server answered another request", sent=True))
            return
        try:
            parts, tool_error = response_parts(self.call, channel.dialect.era, message)
        except BAD_JSON:
            self._end(UpstreamUnavailable("the server's answer cannot be read", sent=True))
            return
        except (NeedsInput, GoesOn) as need:
            self._unfinished(need)
            return
        except GatewayError as error:
            self._end(error)
            return
        if tool_error:
            self._outcome = _TOOL_ERROR
        elif message.error:
            self._outcome = _RPC_ERROR
            self.code = error_code(message.error)
            self._note_error(self.code, channel)
        self._respond(parts)

    def _note_error(self, code: int, channel: Channel) -> None:
        era = channel.dialect.era
        self._status = status_for(self.call.era, code_for(self.call.era, era, code))
        if is_strange(era, code) and self._server is not None:
            self._server.doubt(channel, code)
        if code == HEADER_MISMATCH and era == "modern" and self._server is not None:
            self._server.list_changed("tools")  # the headers came of what it listed: it has another list now

    def _notification(self, message: Incoming) -> None:
        assert self._channel is not None
        if is_request(message):
            self._asked(message)
            return
        if message.method in CHANGES:
            assert self._server is not None
            self._server.pushed(self.viewer.scopes[self.server_name], self._channel, message)
            return
        try:
            data = progress_for(self.call, message, self._channel.dialect.era)
        except BAD_JSON:
            return
        if message.method == "notifications/message" and not passes(message.params, self.front.hub.level(self.call)):
            return
        if data is not None and self.takes_events:
            self.send_event(data)

    # --- what the server asks of the client

    def _asked(self, message: Incoming) -> None:
        """A request of a server on the stream of this call. A modern server may send none, and a legacy one only
        where it was told what the client can be asked (design §4)."""
        channel, server = self._channel, self._server
        assert channel is not None and server is not None
        alone = channel.dialect.era == "legacy" and server.serves_one_session(self.viewer.scopes[self.server_name])
        if not alone or message.method not in NEEDS:
            if (reply := answer_push(message)) is not None:
                channel.notify(reply)
            return
        self._inputs = self._inputs or Inputs(self)
        self._inputs.pushed(message)

    def give_up(self, error: GatewayError) -> None:
        """End the call with an error that its server does not know of."""
        if self._flight is not None:
            self._flight.cancel(error.public)
        self.failed(error)

    def _unfinished(self, need: NeedsInput | GoesOn) -> None:
        """A modern server's result asks: a modern client gets it as it is, a legacy one is asked. Or it is a task."""
        try:
            if (told := unfinished(self, need)) is not None:
                self._respond(self._result(told[0]), told[1])
                return
        except GatewayError as error:
            self._end(error)
            return
        if self._flight is not None:
            self._flight.cancel("it has been answered")  # what its stream still brings must not end the next round
        assert isinstance(need, NeedsInput)
        self._end(need.required)

    def _result(self, result: bytes | Raw) -> Sequence[Any]:
        return (b'{"jsonrpc":"2.0","id":', self.call.id_json, b',"result":', result, b"}")

    def _ask(self, ask: Ask) -> Any:
        """Ask a legacy client what a modern server wants to know, or we. A state alone asks nothing: time passes."""
        if not ask.required.asked:
            return self._park(asyncio.sleep(STATE_PAUSE_S, {}))
        if ask.about is not None and self.call.era == "modern":
            self.end_round(asking(self, ask), OUTCOME["approval_required"])
            self._close()
            return _PARKED
        self._unheard = ask.about and ask.about.refusal
        self._inputs = self._inputs or Inputs(self)
        self._inputs.ask(ask.required.asked)
        return _PARKED

    def go_on(self, answer: Any) -> None:
        """What the walk waits for is here: what a legacy client answers a modern server, say."""
        if (walk := self._walk) is not None and not self.over:
            self._step(walk, walk.send, answer)

    def attach(self, connection: Replying, call: Call, size_in: int, *, takes_events: bool, answers: RawMap) -> None:
        """A modern client is back with a retry of this call, which has gone on without it."""
        assert self._inputs is not None
        self._connection, self.call, self.size_in, self.takes_events = connection, call, size_in, takes_events
        self.began_at = self.front.clock()
        self._events, self._answer_size = None, 0
        connection.exchange = self
        try:
            self._inputs.retried(answers)
        except GatewayError as error:
            self.fail(error, by_client=True)

    def can_push(self) -> bool:
        """Is there a stream on which the client can be asked?"""
        return self.takes_events and (self._connection is not None or self.log is not None)

    @property
    def log(self) -> Stream | None:
        """What was sent, for a client that lost its connection; None where nothing is kept."""
        return self._events.log if self._events is not None else None

    def end_round(self, result: bytes, outcome: int = _OK) -> None:
        """Answer the client's request with a result that asks, and let go of its connection."""
        parts = self._result(result)
        self.front.calls.streams.discard(self)
        when_recorded(self.lasting, partial(self._end_round, (b"".join(parts),)))
        self.front.account(self, outcome, self._answer_size)

    def _end_round(self, parts: Sequence[Any]) -> None:
        self._write(parts, sum(map(len, parts)))
        self._connection = None
        self.resume()  # nobody is left who reads too slowly

    @property
    def call_s(self) -> float:
        """How long the server may work on the call."""
        assert self._server is not None
        return self._server.spec.call_timeout_s

    def reply(self, body: bytes) -> None:
        """Send the server its answer."""
        if self._channel is not None:
            self._channel.notify(body)

    def send_event(self, message: bytes) -> None:
        """Send one message (empty: only the head) to the client, beginning the stream with the first. Where the client
        has gone, it is kept for it."""
        connection, events = self._connection, self._events
        if connection is None:
            if events is not None:
                events.keep(message, self.front.clock())
            return
        if events is None:
            events = self._events = Events()
        head = event = b""
        if not events.begun:
            self.front.calls.streams.add(self)
            head, event = events.head(connection), self.front.hub.keep(self)
        if message:
            event += events.event(message, self.front.clock())
        data = head + connection.frame(event)
        if not data:
            return
        connection.write(data)
        self._answer_size += len(event)
        self.sse_at = self.front.clock()
        if connection.paused and connection.unread() > OVERFLOW:
            self._end(ContentBlocked("the client reads too slowly"))

    def _respond(self, parts: Sequence[Any], end: End | None = None) -> None:
        self.answered = True
        if self.check is not None:
            self.check.end(end or ("done" if self._outcome == _OK else "failed"))
        self.deadline = self.front.tick + 1.0 + LINGER_S
        self._answer_size += (size := sum(map(len, parts)))
        lines = self.metered.answered(self._answer_size, parts) if self.metered is not None else b""
        if self.lasting is None:
            self._write(parts, size, lines)
        else:
            self.lasting.hold(partial(self._write, (b"".join(parts),), size, lines))
        self.front.account(self, self._outcome, self._answer_size)

    def _write(self, parts: Sequence[Any], size: int, lines: bytes = b"") -> None:
        answer(self._connection, self._events, self._status, parts, size, lines, self.front.clock)

    def kept(self, log: Stream) -> None:
        """From now on what is sent is kept in `log`."""
        assert self._events is not None
        self._events.log = log

    def resumed(self, connection: Replying, missed: bytes) -> None:
        """A legacy client that lost the connection is back on another one, and gets what it has missed."""
        events = self._events
        assert events is not None and events.log is not None
        events.log.attach(self)
        before, self._connection = self._connection, connection
        connection.exchange = self
        if before is not None:
            before.end_body()
        events.resume(connection, missed)
        self.sse_at = self.front.clock()

    def splice(self, head: bytes, total: int) -> bool:
        """Take a large answer as it arrives, when its first bytes leave no doubt what it is."""
        connection, channel, out = self._connection, self._channel, self._out
        if connection is None or channel is None or out is None or self.answered:
            return False
        asked = self.check is not None and self.check.asks_how_it_ends
        asked = asked or self.lasting is not None or (self.metered is not None and self.metered.reads)
        if asked or self._events is not None or self._splice is not None:
            return False
        spliced = splice(self.call, out.id, channel.dialect.era, head)
        if spliced is None:
            return False
        start, self._splice = spliced
        self._answer_size = total - self._splice.skip + len(start) + len(self._splice.extra)
        lines = self.metered.lines() if self.metered is not None else b""
        connection.write(connection.begin_body(200, JSON, self._answer_size, lines) + start)
        return True

    def chunk(self, data: bytes) -> None:
        if self._connection is not None and self._splice is not None:
            self._splice.piece(self._connection, data)

    def finished(self) -> None:
        if self._inputs is not None and self._inputs.detached:
            self._inputs.ended(None)
            return
        if self._splice is not None and not self.answered:
            self.answered = True
            if self.check is not None:
                self.check.end("done")
            if self.metered is not None:
                self.metered.answered(self._answer_size)
            self.deadline = self.front.tick + 1.0 + LINGER_S
            if self._connection is not None:
                self._splice.end(self._connection)
                self.front.account(self, _OK, self._answer_size)
        if not self.answered:
            self._end(UpstreamUnavailable("the server ended its answer without a response", sent=True))
        elif self._sending:
            self._ending = None
        elif not self.over and self._walk is not None:
            self._flight = None
            self._step(self._walk, self._walk.send, None)

    def failed(self, error: GatewayError) -> None:
        if self._inputs is not None and self._inputs.detached:
            self._inputs.ended(error)
            return
        if self.answered:
            self._end(None)
        elif isinstance(error, SessionLost):
            if self._server is not None:
                self._server.breaker.success(self.front.clock())  # it answered
            begun = self._events is not None or self._splice is not None
            self._end(UpstreamUnavailable("the server ended our session", sent=True) if begun else LOST)
        else:
            self._end(error)

    # --- Exchanging: what the client's side does

    def client_gone(self) -> None:
        """The client closed: for a modern one that cancels, for a legacy one it does not (2025-11-25, transports)."""
        self._connection = None
        if self.call.era == "modern" and not self.answered:
            self.cancel("the client closed the stream")
        elif not self.answered or self.lasting is not None:
            self.resume()  # nobody is left who reads too slowly
            if (log := self.log) is not None:
                log.detach(self, self.front.clock())

    def cancel(self, reason: str) -> None:
        """Give the call up and tell the server."""
        if self.over:
            return
        self._outcome = _CANCELLED
        if self._flight is not None:
            self._flight.cancel(reason)
        self._settle()
        if not self.answered:
            self.front.account(self, _CANCELLED, self._answer_size)
            if (connection := self._connection) is not None:
                if self._splice is not None:
                    connection.abort()
                else:
                    connection.end_body((self._events or Events()).head(connection))
                    self._connection = None  # it goes on with its next request
        self._close()

    def pause(self) -> None:
        if self._flight is not None and not self.answered:  # what is answered is read to its end
            self._flight.pause()

    def resume(self) -> None:
        if self._flight is not None:
            self._flight.resume()

    # --- the end

    def expire(self) -> None:
        """The deadline has passed."""
        if self.lasting is not None and self.lasting.expire():
            return
        if self._flight is not None:
            self._flight.cancel("deadline")
            self._flight = None
        if self.answered:
            self._close()
            return
        if self._inputs is not None and self._inputs.waits:
            late = UpstreamTimeout("the client did not answer in time what the server asks")
            self.fail(self._unheard or late, by_client=True)
            return
        self.fail(UpstreamTimeout(f"server {self.server_name or '?'} did not answer in time"))

    def end_stream(self) -> None:
        """The gateway stops: end the call now, with an error that says so."""
        if self._flight is not None:
            self._flight.cancel("the gateway is stopping")
            self._flight = None
        self.fail(Overloaded("the gateway is stopping"))

    def comment(self, now: float) -> None:
        """Keep an idle event stream alive through proxies: begin it, if it has not."""
        if self._connection is not None and not self.answered:
            self.sse_at = now
            if self._events is not None and not self._events.begun:
                self.send_event(b"")
            else:
                self._connection.write(self._connection.frame(b":\n\n"))

    def fail(self, error: GatewayError, *, by_client: bool = False) -> None:
        """Answer with an error, in the form that has been begun, and end. `by_client`: the server is not to blame."""
        if self.over:
            return
        self._outcome = _FAILED
        if self._flight is not None:
            self._flight.cancel("the call has failed")
        if self._server is not None and self._out is not None and not by_client:
            self._server.failed(error)
        if self._inputs is not None:
            self._inputs.withdraw("the call has failed")
        self._settle(error)
        if not self.answered:
            self.answered = True
            decision_id = self.front.new_id()
            body = encode_error(self.front.decode_id(self.call.id_json), for_era(error, self.call.era), decision_id)
            when_recorded(self.lasting, partial(self.write_error, error, body))
            self.front.account(self, outcome_of(error), self._answer_size + len(body), error, decision_id)
        self._close()

    def write_error(self, error: GatewayError, body: bytes) -> None:
        """Write an error's body, in the form that has been begun."""
        status, now = self.front.status_of(error, self.call.era), self.front.clock()
        lines = self.front.error_lines(error, status, self.metadata_url)
        answer_error(self._connection, self._events, self._splice, status, body, lines, now)

    def _settle(self, error: GatewayError | None = None) -> None:
        """What was reserved is used as far as it was sent; the first to say so is heard."""
        if self.metered is not None:
            self.metered.ended(sent=self._out is not None, error=error)
        if self.check is not None:
            self.check.end("failed" if self._out is not None else "unsent")

    def _close(self) -> None:
        if self.over:
            return
        self.over = True
        self._settle()
        if self._walk is not None:
            self._walk.close()
        if self._task is not None:
            self._task.cancel()
        if (channel := self._channel) is not None:
            assert self._server is not None
            channel.last_used = self.front.tick
            self._server.call_ended(channel, worked=self._outcome not in (_CANCELLED, _FAILED))
        self._flight = None
        if self._inputs is not None:
            self._inputs.close()
        if self.lasting is None or not self.lasting.holds:
            self.leave()

    def leave(self) -> None:
        """It is over, and nothing waits any more: nobody knows of it from now on."""
        if self._events is not None and (log := self._events.log) is not None:
            self.front.hub.let_go(log)
        self.front.calls.active.discard(self)
        if self._events is not None or self.call.session is not None:
            self.front.calls.forget(self)
        if not self.answered and self._connection is not None:
            self._connection.abort()
        self._connection = None
