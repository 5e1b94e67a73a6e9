"""How a channel to a server is opened: by what it is known to speak, by asking, by the way that is configured.

In: a spec, on whose behalf. Out: a negotiated channel, and a verdict on the server's era that is kept, dated, and asked
again (`era.py`). One probe is under way at a time; the old verdict holds until it has ended.
Cases: `tests/flow/upstream/test_opening.py`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from narthex.errors import CredentialUnavailable, GatewayError, UpstreamUnavailable
from narthex.flow.codec.jsonrpc import Incoming
from narthex.flow.held import Held
from narthex.flow.upstream.connection import HttpPool
from narthex.flow.upstream.era import EraBook, KeepsEras, Spoken, Verdict
from narthex.flow.upstream.multiplex import ChannelPush
from narthex.flow.upstream.negotiate import OldTransport, discover, is_refusal, open_http
from narthex.flow.upstream.port import NOBODY, Behalf, Channel
from narthex.flow.upstream.stdio import open_stdio
from narthex.types import Era, ServerSpec

STDIO_START_S = 26.0
"""How long a stdio server may take to start and negotiate, its end included: less than whoever waits for it bears."""
_NO_VERDICT = frozenset({"HTTP 401", "HTTP 403"})


class Opener:
    """Opens channels to one server.

    Args:
        pool: Its connections; None for a server over stdio.
        now: Wall clock, seconds: verdicts are dated by it.
        on_changed: The server speaks something else than it did; called before the channel that says so is returned.
    """

    def __init__(
        self,
        spec: ServerSpec,
        pool: HttpPool | None,
        held: Held,
        *,
        log: logging.Logger,
        now: Callable[[], float],
        on_changed: Callable[[], None],
        eras: KeepsEras | None = None,
    ) -> None:
        self._spec = spec
        self._pool = pool
        self._held = held
        self._log = log
        self._now = now
        self._on_changed = on_changed
        self._fixed = spec.era != "auto" or spec.transport == "sse"
        self._eras = eras if not self._fixed else None
        known = self._eras.known(spec) if self._eras is not None else None
        self._book = EraBook(known, modern_s=spec.era_modern_ttl_s, legacy_s=spec.era_legacy_ttl_s)
        self._last = NOBODY
        self._probing = asyncio.Lock()

    @property
    def verdict(self) -> Verdict | None:
        """What the server speaks, as far as known."""
        return self._book.verdict

    def due(self) -> bool:
        """Is it time to `probe`, with nobody doing so? A process keeps its era, so stdio is asked at a start only."""
        return (
            self._pool is not None
            and not self._fixed
            and self.verdict is not None
            and not self._probing.locked()
            and self._book.due(self._now())
        )

    def doubt(self) -> bool:
        """The server answered as its era does not. Returns whether it is time to `probe`."""
        return not self._fixed and self._book.doubt(self._now())

    async def open(self, behalf: Behalf, on_push: ChannelPush) -> Channel:
        """A new channel. The caller sets the deadline.

        Args:
            on_push: Gets notifications that belong to no call, where calls share a stream.
        Raises:
            UpstreamUnavailable: Unreachable, not MCP, refusing.
        """
        if (inside := self._spec.inside) is not None:
            found: Channel = inside()
            return found
        if self._fixed:
            return await self._open(None, behalf, on_push)
        verdict = self.verdict
        if verdict is not None and (self._probing.locked() or not self._book.due(self._now())):
            return await self._open(verdict.spoken, behalf, on_push)
        async with self._probing:
            return await self._open(self._book.known(self._now()), behalf, on_push)

    async def probe(self) -> bool:
        """Ask again which era the server speaks. Never raises; the verdict holds when nothing can be learnt.

        Returns:
            Whether it is another one than before. Who comes while another asks, waits for that answer.
        """
        before = self.verdict
        if self._pool is None or self._fixed or before is None:
            return False
        asked = self._probing.locked()
        async with self._probing:
            if not asked:
                try:
                    async with asyncio.timeout(self._spec.list_timeout_s):
                        await self._ask_again(self._pool, before.spoken)
                except (TimeoutError, GatewayError):
                    self._book.vain(self._now())
        return self.verdict is not None and self.verdict.spoken != before.spoken

    async def _ask_again(self, pool: HttpPool, spoken: Spoken) -> None:
        """A legacy server need only be asked whether it is modern. A modern one that is none must show what it is."""
        if spoken == "modern":
            await (await self._open(None, self._asking, _ignore)).close()
        elif await discover(self._spec, pool.under(self._asking.shown), self._asking) is not None:
            self._found("modern", "server/discover", probed=True)
        else:
            self._found(spoken, "server/discover", probed=True)

    # --- ways

    @property
    def _asking(self) -> Behalf:
        """On whose behalf we ask for ourselves: with the account that was last good enough to open a channel."""
        return Behalf(shown=self._last.shown)

    async def _open(self, known: Spoken | None, behalf: Behalf, on_push: ChannelPush) -> Channel:
        try:
            if self._pool is None:
                return await self._open_stdio(known, behalf, on_push)
            channel = await self._open_http(self._pool.under(behalf.shown), known, behalf, on_push)
            self._last = behalf
            return channel
        except GatewayError as error:
            if error.detail not in _NO_VERDICT and not isinstance(error, CredentialUnavailable):
                self.doubt()
            raise

    async def _open_stdio(self, known: Spoken | None, behalf: Behalf, on_push: ChannelPush) -> Channel:
        era: Era | None = "legacy" if known == "legacy" else None
        channel = await open_stdio(
            self._spec, on_push=on_push, log=self._log, deadline_s=STDIO_START_S, behalf=behalf, known=era
        )
        found = channel.dialect.era
        self._found(found, _how(found), probed=era is None or found == "modern" or channel.restarts > 0)
        return channel

    async def _open_http(self, pool: HttpPool, known: Spoken | None, behalf: Behalf, on_push: ChannelPush) -> Channel:
        spec = self._spec
        if spec.transport == "sse" or known == "sse":
            try:
                return await self._open_sse(pool, behalf, on_push, probed=False)
            except UpstreamUnavailable as error:
                if spec.transport == "sse" or not is_refusal(error):
                    raise
        era: Era | None = "legacy" if known == "legacy" else None
        try:
            channel = await open_http(spec, pool, self._held, era, behalf)
        except OldTransport:
            if spec.transport == "http":
                raise UpstreamUnavailable(f"server {spec.name} does not speak Streamable HTTP") from None
            return await self._open_sse(pool, behalf, on_push, probed=True)
        found = channel.dialect.era
        self._found(found, _how(found), probed=era is None or found == "modern")
        return channel

    async def _open_sse(self, pool: HttpPool, behalf: Behalf, on_push: ChannelPush, *, probed: bool) -> Channel:
        from narthex.flow.upstream.sse import open_sse  # the old transport: loaded only where it is met

        deadline_s = self._spec.list_timeout_s - 0.5
        channel = await open_sse(self._spec, pool, on_push=on_push, log=self._log, deadline_s=deadline_s, behalf=behalf)
        self._found("sse", "its event stream", probed=probed)
        return channel

    def _found(self, spoken: Spoken, how: str, *, probed: bool) -> None:
        before = self.verdict
        changed = self._book.found(spoken, "configured" if self._fixed else how, self._now(), probed=probed)
        if self._eras is not None and (found := self.verdict) is not None and found is not before:
            self._eras.keep(self._spec, found)
        if changed:
            assert before is not None
            self._log.warning("server %s speaks %s MCP now, no more %s", self._spec.name, spoken, before.spoken)
            self._on_changed()


def _how(era: str) -> str:
    return "server/discover" if era == "modern" else "initialize"


def _ignore(channel: Channel, message: Incoming) -> None:
    """What a channel says that is opened only to see what the server speaks."""
