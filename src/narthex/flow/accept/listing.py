"""Requests that the gateway answers itself, from what its servers have said: from memory at once, else once they have.

`Answering` is the waiting, `Listing` a page of a list. Cases: `tests/flow/accept/test_listing.py`.
Source: MCP 2026-07-28 and 2025-11-25, pagination; MCP 2026-07-28, caching.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Generic, TypeVar

import msgspec

from narthex.errors import GatewayError, Overloaded
from narthex.flow.accept.forms import JSON
from narthex.flow.accept.recording import Traced
from narthex.flow.accept.replying import Replying
from narthex.flow.codec.handles import owner_of
from narthex.flow.codec.jsonrpc import read_string
from narthex.flow.policy.admission import Admission
from narthex.flow.route.caching import list_head, ms_left
from narthex.flow.upstream.naming import may_name
from narthex.flow.upstream.viewers import View, Viewer
from narthex.flow.walk import LISTS
from narthex.telemetry.accounts import OUTCOME
from narthex.telemetry.asking import on_behalf
from narthex.types import Call

if TYPE_CHECKING:
    from narthex.flow.accept.front import Front

T = TypeVar("T")
TTL_MS = 10_000
"""The longest that a modern client may keep a list or an offer, whatever the servers say: a reload makes another."""
CURSOR_S = 3600.0
"""How long a cursor opens: longer than a client takes from one page to the next."""
_VIEW = ""
"""What a cursor's list was made for: nothing but its owner. What the owner may see may change between two pages: an
item that stays is shown once all the same (`route.fragments`)."""
_OK = OUTCOME["ok"]
_log = logging.getLogger("narthex.front")


class Answering(msgspec.Struct, Generic[T], eq=False):
    """A request under way. It is the connection's `Exchanging` while it waits. A struct, because one is made in C."""

    front: Front
    _connection: Replying | None
    call: Call
    viewer: Viewer
    began_at: float
    traced: Traced | None

    def known(self) -> T | None:
        """What the answer is made of, from memory; None: `ask`. Raises where the request is not right."""
        raise NotImplementedError

    async def ask(self) -> T:
        """The same from the servers, within a time of its own."""
        raise NotImplementedError

    def answer(self, found: T) -> None:
        """Make the answer and `respond`."""
        raise NotImplementedError

    def start(self) -> None:
        """Answer at once, or as soon as can be."""
        found = self.known()
        if found is not None:
            self.answer(found)
            return
        assert self._connection is not None
        self._connection.exchange = self
        coming = self.ask() if self.traced is None else on_behalf(self.traced.trace, self.ask())
        asyncio.ensure_future(coming).add_done_callback(self._done)

    def _done(self, task: asyncio.Future[T]) -> None:
        if self._connection is None:
            return
        error = Overloaded("the configuration has changed; try again") if task.cancelled() else task.exception()
        if error is None:
            try:
                self.answer(task.result())
                return
            except Exception as failure:
                error = failure
        if not isinstance(error, GatewayError):
            _log.error("%s failed in the gateway", self.call.method, exc_info=error)
            error = GatewayError()
        id_ = self.front.decode_id(self.call.id_json)
        self.front.refuse(self._connection, id_, error, self.call.era, traced=self.traced)

    def respond(self, head: bytes, body: bytes = b"", extra: bytes = b"") -> None:
        """Send the result, which is `head` and `body` together; `extra` are header lines with CRLF."""
        front, call, connection = self.front, self.call, self._connection
        assert connection is not None
        size = 33 + len(call.id_json) + len(head) + len(body)
        parts = (b'{"jsonrpc":"2.0","id":', call.id_json, b',"result":', head, body, b"}")
        connection.respond(200, JSON, parts, size, extra)
        counter = front.accounts.counters[call.endpoint, "", call.method, "", call.era]
        counter.add(_OK, front.clock() - self.began_at, 0, size)
        if self.traced is not None:
            front.span(self.traced, _OK, size)

    def client_gone(self) -> None:
        self._connection = None

    def pause(self) -> None: ...

    def resume(self) -> None: ...


class Listing(Answering[View]):
    """A page of a list: the one behind `after`, None for the first."""

    after: bytes | None = None

    def known(self) -> View | None:
        """Raises InvalidParams for a cursor that is none of ours, another's, of another list, or too old."""
        call = self.call
        kind = LISTS[call.method]
        if "cursor" in call.params and bytes(call.params["cursor"]) != b"null":
            cursor, owner = read_string(call.params, "cursor"), owner_of(call.principal, call.endpoint)
            self.after = self.front.handles.open_cursor(cursor, owner, kind, _VIEW)
        view, admission = self.front.fleet.fresh(self.viewer, kind), self._admission
        if view is None or admission is None:
            return view
        known = admission.looked_through(view.index) and (admission.engine is None or not view.index.missing)
        return view if known else None

    async def ask(self) -> View:
        kind, fleet = LISTS[self.call.method], self.front.fleet
        view = fleet.fresh(self.viewer, kind) or await fleet.listing(self.viewer, kind)
        if (admission := self._admission) is not None:
            await admission.look_through(view.index)
            for one in view.index.missing:
                await may_name(fleet, self.viewer, one.server, admission)
        return view

    @property
    def _admission(self) -> Admission | None:
        return self.front.admission(self.call.principal, self.call.endpoint)

    def answer(self, found: View) -> None:
        front, call, index, after = self.front, self.call, found.index, self.after
        admission = self._admission
        if index.kind == "skills":
            front.fleet.check_skills(self.viewer, found, admission)
        body, last = found.page(admission.shown(index) if admission is not None else None, after)
        missing = index.missing
        if missing and admission is not None:
            missing = tuple(
                one for one in missing if admission.knows(index.kind, one.server) and admission.names(one.server)
            )
        cursor = None
        if last is not None:
            owner = owner_of(call.principal, call.endpoint)
            cursor = front.handles.cursor(owner, index.kind, _VIEW, last, ttl_s=CURSOR_S)
        head = list_head(
            call.era,
            ttl_ms=0 if missing else ms_left(found.expires_at, front.clock(), TTL_MS),
            # What nobody's rights were asked for is shown to everybody alike. But a cursor is the caller's own, and all
            # pages of a list have one scope.
            public=index.public and admission is None and last is None and after is None,
            cursor=cursor,
            missing=missing,
        )
        self.respond(head, body)
