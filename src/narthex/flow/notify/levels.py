"""The log level of legacy servers, which is set once for a whole conversation: what its clients want, said in time.

A channel of one client session gets that client's level. One that many share gets the most verbose that any of them
asked for; each client is passed what is severe enough for it (`codec/log_levels.py`). A modern server is told with each
request (`codec/bridge.py`). Cases: `tests/flow/notify/test_levels.py`.
Source: MCP 2025-11-25, server/utilities/logging.
"""

from __future__ import annotations

import asyncio

from narthex.errors import GatewayError
from narthex.flow.codec.log_levels import most_verbose
from narthex.flow.upstream.port import Channel
from narthex.flow.upstream.server import Server
from narthex.types import Call

SET_S = 2.0
"""A call waits this long for its server to take the level; then it is made all the same."""


class Levels:
    """What each channel was asked for last."""

    def __init__(self) -> None:
        self._asked: dict[Channel, tuple[str, asyncio.Task[None]]] = {}

    def sweep(self) -> None:
        """Once a second: forget channels that have ended."""
        for channel in [one for one in self._asked if not one.alive]:
            del self._asked[channel]

    def due(self, server: Server, channel: Channel, call: Call) -> bool:
        """Is `settle` needed before `call` can be sent on this channel?"""
        known = self._asked.get(channel)
        level = self._level_for(channel, call.log_level, _alone(server, call))
        return level is not None or (known is not None and not known[1].done())

    async def settle(self, server: Server, channel: Channel, call: Call) -> None:
        """Have the server log what the call's client wants. What it refuses, or takes too long for, it is not asked
        again on this channel: a call matters more than what is logged of it."""
        self.ask(server, channel, call)
        known = self._asked.get(channel)
        if known is not None:
            await asyncio.shield(known[1])

    def ask(self, server: Server, channel: Channel, call: Call) -> None:
        """Ask for the level, and wait for nothing."""
        self.want(server, channel, call.log_level, alone=_alone(server, call))

    def want(self, server: Server, channel: Channel, level: str, *, alone: bool) -> None:
        """The same for a client that makes no call now. `alone`: the channel serves it alone."""
        wanted = self._level_for(channel, level, alone)
        if wanted is not None:
            self._asked[channel] = (wanted, asyncio.ensure_future(self._set(server, channel, wanted)))

    def _level_for(self, channel: Channel, wanted: str, alone: bool) -> str | None:
        """The level that the channel is to have for a client that wants this, None where it has that, or can have
        none."""
        dialect = channel.dialect
        if dialect.era == "modern" or not wanted or "logging" not in dialect.capabilities:
            return None
        known = self._asked.get(channel)
        has = known[0] if known is not None else ""
        level = wanted if alone else most_verbose(has, wanted)
        return level if level != has else None

    async def _set(self, server: Server, channel: Channel, level: str) -> None:
        try:
            async with asyncio.timeout(SET_S):
                await server.request(channel, "logging/setLevel", {"level": level})
        except (GatewayError, TimeoutError):
            return


def _alone(server: Server, call: Call) -> bool:
    return call.session is not None and server.spec.sharing == "session"
