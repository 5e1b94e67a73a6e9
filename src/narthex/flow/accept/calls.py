"""Calls under way, and how who comes back finds its own: to cancel it, to answer, to go on with it, to end a session.

In: exchanges as they begin, wait for their clients, and end. Out: the one that is meant. Everything here ends with the
exchange that it leads to. Cases: `tests/flow/accept/test_inputs_machine.py`, `tests/flow/accept/test_exchange.py`.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from narthex.errors import Overloaded
from narthex.flow.codec.jsonrpc import RawMap, Request
from narthex.types import Call, Limits, Session

if TYPE_CHECKING:
    from narthex.flow.accept.exchange import Exchange
    from narthex.flow.accept.inputs import Inputs


class Calls:
    """Those of a process.

    Attributes:
        active: All.
        streams: Those whose answer is an event stream.
        cancellable: Those of legacy sessions, by session and by the client's id of the request.
        held: Calls that go on while their modern clients answer what was asked, by the id in the handle.
        pushes: What legacy clients were asked, by session and by the id of the question.
        most_waiting: Calls of a principal at an endpoint that may wait for answers. Each holds a place among the
            calls of its server for minutes; who answers none would otherwise take them all from everybody.
    """

    def __init__(self) -> None:
        self.most_waiting = Limits().max_waiting
        self.active: set[Exchange] = set()
        self.streams: set[Exchange] = set()
        self.cancellable: dict[tuple[str, bytes], Exchange] = {}
        self.held: dict[str, Exchange] = {}
        self.pushes: dict[tuple[str, int], Inputs] = {}
        self._push_ids = itertools.count(1)
        self._waiting: dict[tuple[Any, ...], int] = {}

    def wait(self, call: Call) -> None:
        """Something is asked for this call for the first time: from now on until it is over it counts as waiting, so
        that one which was asked once can always be asked again.

        Raises:
            Overloaded: As many as may be of this principal at this endpoint wait already.
        """
        key = (call.endpoint, *call.principal.key)
        count = self._waiting.get(key, 0)
        if count >= self.most_waiting:
            raise Overloaded("too many calls of this client wait for its answers; answer or cancel one, and try again")
        self._waiting[key] = count + 1

    def wait_no_more(self, call: Call) -> None:
        """It is over. To be called once for each `wait` that raised nothing."""
        key = (call.endpoint, *call.principal.key)
        self._waiting[key] -= 1
        if not self._waiting[key]:
            del self._waiting[key]

    def pushed(self, session: Session, inputs: Inputs) -> int:
        """A new id for what a legacy client is asked; its response will find `inputs`."""
        id_ = next(self._push_ids)
        self.pushes[session.id, id_] = inputs
        return id_

    def answered(self, session: Session, response: Request) -> None:
        """A legacy client's response to what it was asked; one that nobody waits for is nothing."""
        if isinstance(response.id, int) and (one := self.pushes.pop((session.id, response.id), None)) is not None:
            one.answered(response.id, response.result or None, response.error or None)

    def progressed(self, session: Session, params: RawMap) -> None:
        """How far a legacy client is with what it was asked: the token that it was given is the id of that."""
        token = bytes(params["progressToken"])
        one = self.pushes.get((session.id, int(token))) if token.isdigit() and len(token) < 16 else None
        if one is not None:
            one.progressed(int(token), params)

    def cancel(self, session: Session, request_id: bytes) -> None:
        """A legacy client gives a request up, by its id as JSON."""
        one = self.cancellable.get((session.id, request_id))
        if one is not None:
            one.cancel("the client cancelled the request")

    def end_session(self, session: Session) -> None:
        """A legacy client has ended its session, and with it what it has asked for."""
        for key in [key for key in self.cancellable if key[0] == session.id]:
            self.cancellable[key].cancel("the session was ended")

    def forget(self, one: Exchange) -> None:
        """It is over, and was more than a request with one JSON body in answer."""
        self.streams.discard(one)
        if one.call.session is not None:
            key = (one.call.session.id, one.call.id_json)
            if self.cancellable.get(key) is one:
                del self.cancellable[key]

    def sweep(self, now: float, quiet_s: float) -> None:
        """Once a second: end what is past its deadline, keep streams alive that were silent for so long."""
        for one in [one for one in self.active if one.deadline < now]:
            one.expire()
        for one in [one for one in self.streams if now - one.response.quiet_since >= quiet_s]:
            one.comment(now)
