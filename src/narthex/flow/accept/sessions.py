"""Legacy session ids: sealed handles, so that an idle session costs nothing here but what its handle says.

A handle of another principal or endpoint, an old one, an ended one, or one with a flipped bit answers like one that
never was. What was opened is kept in a bounded map: the next look-up is a dictionary's.

A handle that another process made, or this one before its restart, opens as well. Not so at an endpoint whose servers
keep something for each session alone (`sharing: session`): that is gone. A client that is told so, by 404, begins anew.
Source: MCP 2025-11-25, transports ("Session Management"); design §4.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from itertools import islice
from typing import Final

from narthex.errors import SessionNotFound
from narthex.flow.codec.handles import SessionHandle, owner_of
from narthex.flow.codec.headers import OWS
from narthex.flow.codec.seal import KeyRing, SealError
from narthex.telemetry.session_times import SessionTimes
from narthex.types import Principal, Session

MOST_OPENED = 10_000
OPENED_S: Final = 1800.0
"""For so long what was opened is kept at most: then it is opened again, for those who still come."""
MOST_ENDED = 100_000


class _Opened:
    __slots__ = ("endpoint", "principal", "session")

    def __init__(self, session: Session, endpoint: str, principal: Principal) -> None:
        self.session: Final = session
        self.endpoint: Final = endpoint
        self.principal: Final = principal


class Sessions:
    """Mints and opens session handles.

    Args:
        ring: The keys; a second process with the same ones opens every handle.
        now: Wall clock, seconds.
        random: `random(n)` gives n unpredictable bytes.
        slot: The home process of what is opened here (design §4).

    Attributes:
        stateful: Endpoints whose servers keep something for each session alone.
    """

    def __init__(
        self, ring: KeyRing, *, now: Callable[[], float], random: Callable[[int], bytes], ttl_s: float, slot: int = 0
    ) -> None:
        self.opened = 0
        self.times = SessionTimes("version", "ended")
        """How long they lasted that have ended: `ended` by their client, or found `expired` when it came again."""
        self.stateful: Container[str] = ()
        self._home = random(4).hex()
        self._sealer = ring.sealer("session")
        self._now = now
        self._random = random
        self._ttl_s = ttl_s
        self._slot = slot
        self._opened: dict[bytes, _Opened] = {}
        self._forgot_at = now()
        self._ended: dict[str, None] = {}

    def take_keys(self, ring: KeyRing) -> None:
        """Use these keys from now on. What was opened with one that is gone is to be opened again, in vain."""
        self._sealer = ring.sealer("session")
        self._opened.clear()

    def sweep(self) -> None:
        """Once a second: forget whoever may never come again. A clock that was set back forgets too."""
        now = self._now()
        if not 0.0 <= now - self._forgot_at < OPENED_S:
            self._forgot_at = now
            self._opened.clear()

    def create(self, principal: Principal, endpoint: str, version: str, capabilities: int = 0) -> str:
        """A new session's handle: visible ASCII, at most 512 characters. `capabilities` are the client's, as bits."""
        expires_at = int(self._now() + self._ttl_s)
        payload = SessionHandle(self._random(16).hex(), version, expires_at, self._slot, capabilities, self._home)
        bound = owner_of(principal, endpoint)
        self.opened += 1
        return self._sealer.seal(payload, bound=bound, expires_at=expires_at, nonce=self._random(12))

    def find(self, handle: bytes, principal: Principal, endpoint: str) -> Session:
        """The session that `handle` stands for. Raises SessionNotFound, whatever the reason."""
        known = self._opened.get(handle)
        now = self._now()
        if known is not None and known.endpoint == endpoint and known.principal.key == principal.key:
            if now < known.session.expires_at:
                return known.session
            del self._opened[handle]
            self.times.add(self._ttl_s, known.session.version, "expired")
        handle = handle.strip(OWS)
        bound = owner_of(principal, endpoint)
        try:
            payload = self._sealer.open(handle.decode("ascii"), SessionHandle, bound=bound, now=int(now), leeway=0)
        except (SealError, UnicodeDecodeError):
            raise SessionNotFound("session not found") from None
        away = payload.home != self._home and endpoint in self.stateful
        if away or now >= payload.expires_at or payload.id in self._ended:
            raise SessionNotFound("session not found")
        session = Session(payload.id, payload.version, payload.expires_at, payload.capabilities)
        if len(self._opened) >= MOST_OPENED:
            del self._opened[next(iter(self._opened))]
        self._opened[handle] = _Opened(session, endpoint, principal)
        return session

    def end(self, handle: bytes, principal: Principal, endpoint: str) -> Session:
        """End a session; its handle opens no more, here, until it would have expired. Raises SessionNotFound."""
        session = self.find(handle, principal, endpoint)
        self._opened.pop(handle.strip(OWS), None)
        if len(self._ended) >= MOST_ENDED:  # the oldest tenth at once: to look at all each time would cost milliseconds
            for id_ in list(islice(self._ended, max(1, MOST_ENDED // 10))):
                del self._ended[id_]
        self._ended[session.id] = None
        lasted = self._ttl_s - (session.expires_at - self._now())  # another lifetime may have been configured then
        self.times.add(lasted, session.version, "client")
        return session
