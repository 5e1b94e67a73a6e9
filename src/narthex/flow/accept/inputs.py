"""What the server of one call asks of its client, until the client has answered: pushed, or held.

A legacy client gets each question as a request on the stream of its call, and answers with a POST of its own. A modern
client gets a result that asks (`input_required`) and calls again; a legacy server's call stays open meanwhile, detached
from every connection, for at most `HOLD_S`. Made for a call only when its server asks.
Cases: `tests/flow/accept/test_inputs.py`, and `test_inputs_{ends,attacks,machine}.py` beside it; `tests/conformance/`.
Source: `codec/inputs.py`; MCP 2025-11-25, cancellation, lifecycle ("Timeouts"); design §4.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from narthex.errors import ContentBlocked, GatewayError, MissingCapability, Overloaded, UpstreamUnavailable
from narthex.flow.codec.bridge import client_bits
from narthex.flow.codec.handles import HeldCall, owner_of
from narthex.flow.codec.handshake import cancelled_body, refuse_push, refuse_undeclared
from narthex.flow.codec.inputs import (
    MAY_ASK,
    Asked,
    Undeclared,
    check_asked,
    input_required,
    origin_of,
    progress_body,
    push_body,
    pushed,
    read_answer,
    refusal,
    reply_body,
    withdrawn_id,
)
from narthex.flow.codec.jsonrpc import Incoming, Raw, RawMap
from narthex.flow.upstream.notice import MOST_NOTICES

if TYPE_CHECKING:
    from narthex.flow.accept.exchange import Exchange

GATHER_S = 0.02
"""How long further requests of a legacy server are awaited before its modern client is told."""
HOLD_S = 120.0
"""How long a client may take to answer."""
LONGEST_S = 3600.0
"""How long a call may last whose server asks again and again: every call has an end (design §5)."""
MOST_PUSHED = 256
"""Questions that a legacy server may ask for one call, one after the other."""
MOST_OPEN = MOST_NOTICES
"""Those of them that may be open at a time: so many answers go to a server at once, more would be dropped."""
MAX_LATE = 1024 * 1024
"""Bytes of a response that is kept for a client that is away (design §3: held is a whole message of at most 1 MiB)."""


class Inputs:
    """The open questions of one call.

    `detached`: a modern client has been told what is asked, and has not come back; what the server says is kept.
    """

    def __init__(self, exchange: Exchange) -> None:
        self.detached = False
        self._gathering: asyncio.TimerHandle | None = None
        self._exchange = exchange
        self._until = exchange.front.clock() + LONGEST_S
        self._open: dict[str, Asked] = {}
        self._pushed: dict[int, str] = {}
        self._answers: dict[str, Raw] = {}
        self._response: Incoming | None = None
        self._ending: GatewayError | None = None
        self._ended = False
        self._hold = ""
        self._asks = 0
        self._counted = False

    @property
    def waits(self) -> bool:
        """Is it the client's turn?"""
        return self.detached or bool(self._open)

    # --- asking

    def pushed(self, message: Incoming) -> None:
        """A legacy server asks on the stream of the call. Where the client cannot be asked, it is told so; a modern
        client learns what it lacks (`docs/decisions/questions-nobody-can-answer.md`)."""
        exchange, id_ = self._exchange, message.id
        assert isinstance(id_, (int, str))
        try:
            self._push(message)
        except Undeclared as error:
            exchange.reply(refuse_undeclared(id_, message.method, partly=error.partly))
            if exchange.call.era == "modern":
                exchange.give_up(error)
        except Overloaded as error:
            exchange.reply(refuse_push(id_, error.public))
            exchange.give_up(error)
        except GatewayError as error:
            exchange.reply(refuse_push(id_, error.public))

    def _push(self, message: Incoming) -> None:
        """Put one more question to the client.

        Raises:
            Undeclared: The client did not say that it can be asked this. Overloaded: Too many calls wait already.
            MissingCapability, UpstreamUnavailable: It cannot be asked this now.
        """
        if self._asks >= MOST_PUSHED or len(self._open) >= MOST_OPEN:
            raise UpstreamUnavailable("the server asks too much", sent=True)
        if self._exchange.call.era == "modern" and self._exchange.call.method not in MAY_ASK:
            raise MissingCapability(f"the answer to {self._exchange.call.method} may ask its client nothing")
        asked = pushed(message, str(self._asks + 1))
        check_asked((*self._open.values(), asked), client_bits(self._exchange.call))
        self._put(asked)
        self._asks += 1
        if self._exchange.call.era == "modern" and not self.detached and self._gathering is None:
            self._gathering = asyncio.get_running_loop().call_later(GATHER_S, self._gathered)

    def _gathered(self) -> None:
        """What the server asked at once is told at once: a client that must come back need come only once."""
        self._gathering = None
        if self._open and not self._exchange.over:
            self._tell()

    def ask(self, asked: tuple[Asked, ...]) -> None:
        """A modern server's result asks; a legacy client is to be asked all of it.

        Raises:
            MissingCapability: It cannot be asked now. Overloaded: Too many calls wait already.
        """
        self._answers = {}
        for one in asked:
            self._put(one)

    def _put(self, asked: Asked) -> None:
        exchange = self._exchange
        calls, session, modern = exchange.front.calls, exchange.call.session, exchange.call.era == "modern"
        if not modern and (session is None or not exchange.can_push()):
            raise MissingCapability("the server needs input, and this client cannot be asked now")
        if not self._counted:
            calls.wait(exchange.call)
            self._counted = True
        if modern:
            self._open[asked.key] = asked
            return
        assert session is not None
        id_ = calls.pushed(session, self)
        self._open[asked.key] = asked
        self._pushed[id_] = asked.key
        self._wait(HOLD_S)
        exchange.send_event(push_body(id_, asked, session.version))

    def _tell(self) -> None:
        """End the modern client's request with what is asked; the call goes on without it."""
        exchange, front = self._exchange, self._exchange.front
        call = exchange.call
        self._hold = self._hold or front.new_id()
        held = HeldCall(exchange.server_name, 0, self._hold)
        state = front.handles.state(owner_of(call.principal, call.endpoint), origin_of(call), held, ttl_s=HOLD_S)
        self.detached = True
        front.calls.held[self._hold] = exchange
        exchange.end_round(input_required(list(self._open.values()), state))
        self._wait(HOLD_S)

    def _wait(self, seconds: float) -> None:
        front = self._exchange.front
        self._exchange.deadline = min(front.clock() + seconds, self._until)

    # --- answers

    def retried(self, answers: RawMap) -> None:
        """A modern client is back, and attached, with answers; what it left out it is asked again.

        Raises:
            MissingCapability: Asked again, it does no longer say that it can be asked.
        """
        self.detached = False
        exchange = self._exchange
        if self._response is not None or self._ended:
            self._catch_up()  # the server waits for nothing any more
            return
        for key, answer in answers.items():
            if (asked := self._open.pop(key, None)) is not None:
                self._reply(asked, result=answer)
        if self._open:
            check_asked(tuple(self._open.values()), client_bits(exchange.call))
            self._tell()
        else:
            self._wait(exchange.call_s)

    def answered(self, id_: int, result: Raw | None, error: Raw | None) -> None:
        """A legacy client has answered."""
        try:
            answers = self._answered(id_, result, error)
        except GatewayError as failed:
            self._exchange.fail(failed, by_client=True)
        else:
            if answers is not None:
                self._exchange.go_on(answers)

    def _answered(self, id_: int, result: Raw | None, error: Raw | None) -> RawMap | None:
        """All answers to a modern server's result, once they are there; else None.

        Raises:
            UpstreamUnavailable: It refused what cannot be refused in the server's protocol.
            Denied: What its run has done since does not go together with this call.
        """
        key = self._pushed.pop(id_, None)
        asked = self._open.pop(key, None) if key is not None else None
        if asked is None:
            return None
        if self._exchange.check is not None:
            self._exchange.check.tells()
        result, error = read_answer(result, error)
        if asked.upstream_id is not None:
            self._reply(asked, result=result, error=error)
        else:
            answer = result if result is not None else refusal(asked)
            if answer is None:
                raise UpstreamUnavailable(f"the client refused {asked.method}", sent=True, counts=False)
            self._answers[asked.key] = answer
        if self._open:
            return None
        self._wait(self._exchange.call_s)
        return self._answers if asked.upstream_id is None else None

    def progressed(self, id_: int, params: RawMap) -> None:
        """A legacy client tells how far it is; its server hears so, if it wanted to."""
        key = self._pushed.get(id_)
        asked = self._open.get(key) if key is not None else None
        if asked is not None and (body := progress_body(asked, params)) is not None:
            self._exchange.reply(body)

    def _reply(self, asked: Asked, *, result: Raw | None = None, error: Raw | None = None) -> None:
        assert asked.upstream_id is not None
        self._exchange.reply(reply_body(asked.upstream_id, result=result, error=error))

    # --- what the server says meanwhile

    def took(self, message: Incoming) -> bool:
        """Is this notification or response for us alone? A response ends what is still asked."""
        if message.method == "notifications/cancelled":
            self._take_back(message)
            return True
        if self.detached:
            if not message.method and self._response is None and not self._ended:
                self._keep(message)
            return True
        if not message.method:
            self.withdraw("the server has answered")
        return False

    def _keep(self, response: Incoming) -> None:
        if len(response.result) + len(response.error) <= MAX_LATE:
            self._response = response
        else:
            self.ended(ContentBlocked("the answer is too large to be kept for a client that is away"))

    def ended(self, error: GatewayError | None) -> None:
        """The server's part is over while nobody is attached."""
        if not self._ended:
            self._ended, self._ending = True, error

    def _catch_up(self) -> None:
        exchange, response = self._exchange, self._response
        self._wait(exchange.call_s)
        if response is not None:
            exchange.message(response)
        if self._ending is not None:
            exchange.failed(self._ending)
        elif self._ended:
            exchange.finished()

    def _take_back(self, message: Incoming) -> None:
        """A legacy server does not wait for one of its questions any more."""
        id_ = withdrawn_id(message)
        for key in [key for key, one in self._open.items() if id_ is not None and one.upstream_id == id_]:
            self._withdraw(key, "the server has taken its question back")
            if not self.waits:
                self._wait(self._exchange.call_s)

    def withdraw(self, reason: str) -> None:
        """Nothing is asked any more; a legacy client is told so."""
        for key in list(self._open):
            self._withdraw(key, reason)

    def _withdraw(self, key: str, reason: str) -> None:
        exchange = self._exchange
        del self._open[key]
        for id_ in [id_ for id_, one in self._pushed.items() if one == key]:
            self._unlist(id_)
            exchange.send_event(cancelled_body(id_, reason))

    def close(self) -> None:
        """The call is over: nothing of it may be answered any more."""
        front = self._exchange.front
        front.calls.held.pop(self._hold, None)
        if self._counted:
            front.calls.wait_no_more(self._exchange.call)
        for id_ in list(self._pushed):
            self._unlist(id_)
        self._open.clear()
        if self._gathering is not None:
            self._gathering.cancel()

    def _unlist(self, id_: int) -> None:
        session = self._exchange.call.session
        assert session is not None
        del self._pushed[id_]
        self._exchange.front.calls.pushes.pop((session.id, id_), None)
