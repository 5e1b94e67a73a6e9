"""A modern client is back with a retry of a call that is held for it: may it still make this call? Then it goes on.

In: the retry, and which call its state names. Out: the held call with the client's connection attached, or a refusal.
Decided from memory at once; where an engine is asked, this is the connection's `Exchanging` meanwhile.
Cases: `tests/flow/accept/test_inputs.py`, `tests/flow/accept/test_retrying.py`.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from narthex.errors import Denied, GatewayError
from narthex.flow.accept.recording import turned_of
from narthex.flow.accept.replying import Replying
from narthex.flow.codec.handles import HeldCall
from narthex.flow.codec.jsonrpc import RawMap, encode
from narthex.flow.codec.param_headers import check_param_headers
from narthex.flow.codec.seal import SealError
from narthex.flow.policy.check import Check
from narthex.flow.policy.deciding import Question
from narthex.flow.policy.decision import UNKNOWN_OBLIGATION
from narthex.flow.route.target import Target
from narthex.flow.walk import Walk, again
from narthex.flow.whole import HttpRequest
from narthex.types import Call

if TYPE_CHECKING:
    from narthex.flow.accept.exchange import Exchange
    from narthex.flow.accept.front import Front
    from narthex.telemetry.traces import Trace

_log = logging.getLogger("narthex.front")


class Retrying:
    """One retry, until its call goes on or is refused."""

    def __init__(
        self,
        front: Front,
        connection: Replying,
        call: Call,
        state: HeldCall,
        takes_events: bool,
        answers: RawMap,
        size_in: int,
        trace: Trace | None,
        began_at: float,
    ) -> None:
        self._front = front
        self._connection: Replying | None = connection
        self._call = call
        self._state = state
        self._takes_events = takes_events
        self._answers = answers
        self._size_in = size_in
        self._source = ""
        self._walk: Walk | None = None
        self._check: Check | None = None
        self._trace = trace
        self._began_at = began_at

    def start(self, request: HttpRequest, check: Check | None) -> None:
        """Go on at once, or wait for what has to be decided.

        Raises:
            SealError: The call is over.
            HeaderMismatch: Its headers do not say what those of the held call did.
            NotVisible, Denied, InsufficientScope: This caller may not make that call any more, or not like this.
        """
        held, call = self._held(), self._call
        if self._connection is not None:
            self._source = self._front.source(self._connection, request)
        if call.method == "tools/call":
            found = self._front.fleet.find_now(held.viewer, "tools", call.name)
            if found is not None:
                check_param_headers(found.params, request.headers, request.repeated, call.params.get("arguments"))
        if check is None:
            self._go_on()
            return
        name = held.target_name
        target = Target(held.server_name, name, encode(name), definition=held.definition)
        if held.check is not None:
            check.held = held.check.taken
        approved = held.approved is not None and bool(held.approved.passed)
        self._check, self._walk = check, again(call, target, check, approved=approved)
        self._step(None)

    def _held(self) -> Exchange:
        held = self._front.calls.held.get(self._state.call)
        if held is None:
            raise SealError("the call is over")
        return held

    def _step(self, answer: Any) -> None:
        """Raises what the walk refuses with."""
        assert self._walk is not None
        try:
            while True:
                need = self._walk.send(answer)
                assert isinstance(need, Question)
                answer = need.now()
                if answer is None:
                    if self._connection is not None:
                        self._connection.exchange = self
                    asyncio.ensure_future(need.later()).add_done_callback(self._answered)
                    return
        except StopIteration:
            self._go_on()

    def _answered(self, task: asyncio.Future[Any]) -> None:
        connection, front = self._connection, self._front
        if connection is None or task.cancelled():
            return
        try:
            self._step(task.result())
        except Exception as error:
            if not isinstance(error, GatewayError):
                _log.error("a retry failed in the gateway", exc_info=error)
                error = GatewayError()
            connection.exchange = None
            turned = turned_of(self._call, self._source, self._size_in, self._began_at, self._check)
            front.refuse(connection, front.decode_id(self._call.id_json), error, self._call.era, turned=turned)

    def _go_on(self) -> None:
        held, connection = self._held(), self._connection  # it may have ended while it was decided
        if connection is None:
            return
        before, now = (one.duties if one is not None else None for one in (held.check, self._check))
        if before != now:  # by what it demanded then, what the server says is on its way already
            raise Denied(UNKNOWN_OBLIGATION, detail="the policy demands something else of a result on its way")
        del self._front.calls.held[self._state.call]
        connection.exchange = held
        held.check, held.trace = self._check, self._trace
        held.attach(connection, self._call, self._size_in, takes_events=self._takes_events, answers=self._answers)

    # --- Exchanging

    def client_gone(self) -> None:
        self._connection = None

    def pause(self) -> None: ...

    def resume(self) -> None: ...
