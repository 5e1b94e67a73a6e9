"""Hears a server for those who share a channel to it: what is wanted is kept asked for, whatever happens between.

In: what is wanted, now and whenever that changes. Out: the changes that the server tells, to `Hears`. One task lives as
long as something is wanted; it opens, asks, and after a loss waits and asks again. Nothing is replayed between one
stream and the next unless the server does it: what may have changed unheard, counts as changed (list, listen, list).
Cases: `tests/flow/upstream/test_listening.py`; against real servers `test_real_changes.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Hashable
from typing import TYPE_CHECKING, Protocol

import msgspec

from narthex.errors import GatewayError
from narthex.flow.codec.subscriptions import MOST_NAMED, Elicited, ListKind, Notification, TaskChanged, Updated, Wanted
from narthex.flow.upstream.links import NOTHING, Ended, Link, Refused, link_for
from narthex.flow.upstream.negotiate import is_refusal
from narthex.flow.upstream.port import Channel

if TYPE_CHECKING:
    from narthex.flow.upstream.server import Server

FIRST_S = 1.0
LONGEST_S = 60.0
STEADY_S = 30.0
"""What was open for this long was no failure: the next wait is short again."""
PATIENCE_S = 2.0
"""A call waits this long for the stream on which its server may ask its client."""
_log = logging.getLogger("narthex.upstream")


class Hears(Protocol):
    """Who is told of changes. Called on the event loop, perhaps often: whoever hears coalesces, and returns at once."""

    def on_stale(self, server: str, kind: ListKind, uri: str = "") -> None:
        """What is known of this list, or of this resource, may not be so any more: said at once, each time."""

    def on_list_changed(self, server: str, kind: ListKind) -> None:
        """A list may be another one: at most once in `CHANGES_S` for each kind."""

    def on_updated(self, server: str, scope: Hashable, uri: str) -> None:
        """A resource may have changed: one that is wanted, one below it, or none that anybody asked for."""

    def on_task(self, server: str, scope: Hashable, task_id: str, params: bytes | None) -> None:
        """A task's state as the server says it; None: it may have changed unheard, ask."""

    def on_elicited(self, server: str, scope: Hashable, what: Elicited) -> None:
        """What a client was to do at a URL is done."""

    def on_progress(self, server: str, scope: Hashable, token: int, params: bytes) -> None:
        """Progress that belongs to no open call, with the token that we had given."""

    def on_log(self, server: str, scope: Hashable, params: bytes) -> None:
        """A log message that belongs to no call, of a channel that one principal alone uses; `params` are an object."""

    def on_opened(self, server: str, scope: Hashable, channel: Channel) -> None:
        """There is a new channel: what is set for a whole conversation has to be said again."""


class Listening:
    """What one scope wants to hear of one server.

    Attributes:
        wanted: As last said, within bounds.
        agreed: What of it the server tells, as last known.
    """

    def __init__(self, server: Server, scope: Hashable) -> None:
        self.wanted = NOTHING
        self.agreed = NOTHING
        self._beside: Channel | None = None
        self._patience_until = 0.0
        self._held: Channel | None = None
        self._server = server
        self._scope = scope
        self._link: Link | None = None
        self._task: asyncio.Task[None] | None = None
        self._stirred = asyncio.Event()
        self._tried = asyncio.Event()
        self._ended: Ended | None = None
        self._refused = NOTHING
        self._missed = False
        self._opened_at = math.inf
        self._failures = 0

    # --- what others do

    def want(self, wanted: Wanted) -> None:
        """From now on this is wanted; returns at once. Nothing wanted ends it."""
        wanted = _bounded(wanted)
        if wanted != self.wanted:
            self.wanted = wanted
            self._tried.clear()
            self._hold()
        self._begin()

    def hear_beside(self, channel: Channel) -> None:
        """The server may ask or tell the client of this channel something beside its calls: its own stream is to be
        open as long as the channel is, even if no change is wanted. That alone keeps no channel from being idle."""
        if self._beside is channel:
            return
        self._beside = channel
        self._patience_until = self._server.clock() + PATIENCE_S
        self._tried.clear()
        self._begin()

    def _begin(self) -> None:
        if self.is_wanted and self._task is None:
            self._task = asyncio.ensure_future(self._live())
        self._stirred.set()

    @property
    def is_wanted(self) -> bool:
        return self.wanted != NOTHING or (self._beside is not None and self._server.ready(self._scope) is self._beside)

    @property
    def may_miss(self) -> bool:
        """Is that stream about to be opened?"""
        return self._beside is not None and not self._tried.is_set() and self._server.clock() < self._patience_until

    async def heard_beside(self) -> None:
        """Until that is open, cannot be, or takes too long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._patience_until - self._server.clock()):
                await self._tried.wait()

    async def settled(self) -> Wanted:
        """What is agreed to, once what is wanted now was asked for at least once. The caller sets the deadline."""
        if self._task is not None:
            await self._tried.wait()
        return self.agreed

    def stir(self) -> None:
        """The channel may be another one, or dead: look."""
        self._stirred.set()

    def heard(self, what: Notification) -> None:
        """A resource or a task has changed, says the server."""
        hears, name = self._server.hears, self._server.spec.name
        if hears is None:
            return
        if isinstance(what, Updated):
            hears.on_updated(name, self._scope, what.uri)
        elif isinstance(what, TaskChanged):
            hears.on_task(name, self._scope, what.id, what.params or None)

    async def close(self) -> None:
        """Stop at once: the server is closed."""
        self.wanted, self._beside = NOTHING, None
        task = self._task
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    # --- the task

    async def _live(self) -> None:
        try:
            while self.is_wanted and not self._server.gone():
                self._stirred.clear()
                await self._rest(await self._pass())
            if self._link is not None:
                await self._link.end()
        finally:
            self._leave()
            self._task = None
            self.agreed = NOTHING
            if self.is_wanted and not self._server.gone():
                self._begin()  # said while the last was ended
            else:
                self._tried.set()
                self._server.forget_listening(self._scope, self)

    async def _pass(self) -> float | None:
        """Do what is to be done. Returns the seconds until the next try, None to wait until something stirs."""
        ended, self._ended = self._ended, None
        if ended is not None:
            return max(ended.retry_s, self._back_off(served=ended.served))
        wanted, wait_s = self.wanted, None
        try:
            await self._apply(wanted)
        except (GatewayError, TimeoutError) as error:
            wait_s = self._failed(error)
        except Exception:
            _log.exception("listening to server %s failed", self._server.spec.name)
            wait_s = LONGEST_S
        if wanted == self.wanted:
            self._tried.set()
        return wait_s

    async def _rest(self, wait_s: float | None) -> None:
        """Until something stirs; or for `wait_s`, whatever stirs meanwhile, unless nothing is wanted any more."""
        if wait_s is None:
            await self._stirred.wait()
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                while self.is_wanted:
                    await self._stirred.wait()
                    self._stirred.clear()

    async def _apply(self, wanted: Wanted) -> None:
        server = self._server
        channel = server.ready(self._scope) or await server.connect(self._scope)
        link = self._link
        if link is None or link.channel is not channel:
            link = await self._change_link(channel)
        self._refused = _both(self._refused, wanted)
        asked = _without(wanted, self._refused)
        try:
            missed = await link.apply(asked)
        except Refused as error:
            added = _without(asked, link.in_force)
            if added == NOTHING:
                raise
            self._refuse(added, error)
            server.doubt(channel, error.code)
            await self._apply(wanted)
            return
        if self._opened_at == math.inf:
            self._opened_at = server.clock()
        self._agree(link.agreed, missed=missed or self._missed)

    async def _change_link(self, channel: Channel) -> Link:
        """Leave the link to a channel that is dead, or of an era that the server speaks no more."""
        before, refused = self._link, self._refused
        if before is not None:
            self._missed = True
            await before.end()
            if before.channel.dialect.era != channel.dialect.era:
                refused = NOTHING
        self._leave()
        self._refused = msgspec.structs.replace(refused, kinds=frozenset())
        self._link = link_for(self._server, self._scope, channel, self._on_end)
        self._hold()
        return self._link

    def _leave(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.drop()
        self._hold()

    def _hold(self) -> None:
        """No channel is idle while somebody listens by it."""
        channel = self._link.channel if self._link is not None and self.wanted != NOTHING else None
        before, self._held = self._held, channel
        if before is channel:
            return
        if before is not None:
            before.open_calls -= 1
            before.last_used = self._server.clock()
        if channel is not None:
            channel.open_calls += 1

    def _on_end(self, ended: Ended) -> None:
        self._ended = ended
        self._stirred.set()

    # --- what comes of it

    def _refuse(self, added: Wanted, error: Refused) -> None:
        """Ask no more for what made the server refuse: single resources and tasks first, for one may be at fault."""
        if added.uris or added.tasks:
            added = msgspec.structs.replace(added, kinds=frozenset())
        known = self._refused
        self._refused = Wanted(known.kinds | added.kinds, known.uris | added.uris, known.tasks | added.tasks)
        _log.warning("server %s refuses a subscription: %s", self._server.spec.name, error.detail)

    def _agree(self, agreed: Wanted, *, missed: bool) -> None:
        before, self.agreed = self.agreed, agreed
        self._missed = False
        name, kept = self._server.spec.name, _both(before, agreed)
        for kind in sorted(agreed.kinds if missed else agreed.kinds - before.kinds):
            self._server.list_changed(kind)  # between the last list and this moment nobody listened
        if missed:
            _log.info("server %s is heard again: what may have changed meanwhile counts as changed", name)
            for uri in sorted(kept.uris):
                self.heard(Updated(uri))
            for task_id in sorted(kept.tasks):
                self.heard(TaskChanged(task_id, b""))

    def _failed(self, error: GatewayError | TimeoutError) -> float:
        if self._failures == 0:
            detail = error.detail or error.public if isinstance(error, GatewayError) else "no answer in time"
            _log.warning("server %s cannot be listened to: %s", self._server.spec.name, detail)
        if self._link is not None and isinstance(error, GatewayError) and is_refusal(error):
            self._server.look_into(self._link.channel)
        return self._back_off(served=False)

    def _back_off(self, *, served: bool) -> float:
        """Seconds to wait: evenly spread over a span that doubles, unless what has ended had been of use."""
        server = self._server
        if served or server.clock() - self._opened_at >= STEADY_S:
            self._failures = 0
        self._opened_at = math.inf
        span_s = min(LONGEST_S, FIRST_S * 2.0 ** min(self._failures, 10))
        self._failures += 1
        return span_s * (1.0 - server.chance())


def _bounded(wanted: Wanted) -> Wanted:
    """What is beyond the bounds is not asked for, so never agreed to."""
    if len(wanted.uris) <= MOST_NAMED and len(wanted.tasks) <= MOST_NAMED:
        return wanted
    uris, tasks = (frozenset(sorted(names)[:MOST_NAMED]) for names in (wanted.uris, wanted.tasks))
    return Wanted(wanted.kinds, uris, tasks)


def _both(one: Wanted, other: Wanted) -> Wanted:
    return Wanted(one.kinds & other.kinds, one.uris & other.uris, one.tasks & other.tasks)


def _without(wanted: Wanted, less: Wanted) -> Wanted:
    return Wanted(wanted.kinds - less.kinds, wanted.uris - less.uris, wanted.tasks - less.tasks)
