"""What a legacy session has beside its handle: a log level, subscriptions, a stream of its own. Bounded, and not long.

In: sessions, the time. Out: a `LiveSession` for each that needs one, and which of them are over. Most sessions never
need one; one that nobody uses goes after `IDLE_S`, and costs nothing but what its handle says (design §4).
Cases: `tests/flow/notify/test_live.py`.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from itertools import islice
from typing import TYPE_CHECKING

from narthex.errors import Overloaded
from narthex.types import Session

if TYPE_CHECKING:
    from narthex.flow.notify.hub import Listener
    from narthex.flow.notify.resumability import Stream
    from narthex.flow.notify.streams import Standalone

IDLE_S = 1800.0
MOST = 10_000
SLICE = 1000
"""Sessions looked at in one sweep."""


class LiveSession:
    """One session's live state.

    Attributes:
        level: The least severe log message that its client wants; empty while it has not said.
        listener: What it listens for; None before its first GET or subscription.
        joining: The task that makes it listen, while that runs. over: It was dropped.
        log: What its standalone stream has sent, for a client that comes back.
        stream: The open GET, if any. With one a session is never idle.
    """

    __slots__ = ("joining", "last_used", "level", "listener", "log", "over", "session", "stream")

    def __init__(self, session: Session, now: float) -> None:
        self.session = session
        self.level = ""
        self.listener: Listener | None = None
        self.joining: asyncio.Future[None] | None = None
        self.over = False
        self.log: Stream | None = None
        self.stream: Standalone | None = None
        self.last_used = now


class LiveSessions:
    """Those of a process. `by_id`: by session id, the one longest unused first; others only look who is there."""

    def __init__(self, most: int = MOST, idle_s: float = IDLE_S) -> None:
        self._most = most
        self._idle_s = idle_s
        self.by_id: OrderedDict[str, LiveSession] = OrderedDict()

    def __len__(self) -> int:
        return len(self.by_id)

    def get(self, session: Session, now: float) -> LiveSession | None:
        """The session's live state, if it has any; it is used now."""
        live = self.by_id.get(session.id)
        if live is not None:
            self.use(live, now)
        return live

    def use(self, live: LiveSession, now: float) -> None:
        """It is used now. Nothing where it was forgotten meanwhile."""
        if self.by_id.get(live.session.id) is live:
            live.last_used = now
            self.by_id.move_to_end(live.session.id)

    def of(self, session: Session, now: float) -> tuple[LiveSession, list[LiveSession]]:
        """The same, made at the first need, and who had to go for it: the longest unused without an open stream.

        Raises:
            Overloaded: All that there may be have open streams, or the next ones to go have.
        """
        live, gone = self.get(session, now), []
        if live is None:
            if len(self.by_id) >= self._most:
                gone = [self._pop_unused()]
            live = self.by_id[session.id] = LiveSession(session, now)
        return live, gone

    def _pop_unused(self) -> LiveSession:
        for id_, live in islice(self.by_id.items(), SLICE):
            if live.stream is None:
                return self.by_id.pop(id_)
        raise Overloaded("too many sessions are in use; try again")

    def end(self, id_: str) -> LiveSession | None:
        """The session has ended. Idempotent."""
        return self.by_id.pop(id_, None)

    def idle(self, now: float) -> list[LiveSession]:
        """Those that nobody has used for so long: they are forgotten here."""
        gone = []
        for id_, live in list(islice(self.by_id.items(), SLICE)):
            if now - live.last_used < self._idle_s:
                break
            if live.stream is not None:
                self.use(live, now)
            else:
                gone.append(self.by_id.pop(id_))
        return gone
