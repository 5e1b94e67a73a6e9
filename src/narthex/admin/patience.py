"""Bounds what one client may hold of the admin side: connections that go nowhere end, and one address has not all.

uvicorn waits for a request's head, and for a reader of an answer, as long as they like; 256 connections that were only
opened would keep everybody out, probes of `/healthz` too. Cases: `tests/admin/test_patience.py`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from ipaddress import ip_address
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

PATIENCE_S = 30.0
"""In this time, twice at most, a connection brings a whole request, and takes its answer."""
MOST_EACH = 64
"""Connections of one address, loopback excepted."""


def is_near(address: str) -> bool:
    """Is it this machine's own?"""
    return ip_address(address).is_loopback


class PatientProtocol(H11Protocol):
    """See the module. `held` counts the connections of each far address, over all protocols of one listener."""

    held: Counter[str] = Counter()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._address = "" if self.client is None or is_near(self.client[0]) else self.client[0]
        self._seen: Any = None
        self._timer = self.loop.call_later(PATIENCE_S, self._look)
        if self._address:
            self.held[self._address] += 1
            if self.held[self._address] > MOST_EACH:
                transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        if self._address:
            self.held[self._address] -= 1
            if not self.held[self._address]:
                del self.held[self._address]
        super().connection_lost(exc)

    def _look(self) -> None:
        if self.cycle is self._seen:  # no request has begun since the last look; one that had is still not over
            self.transport.abort()
            return
        self._seen = self.cycle
        self._timer = self.loop.call_later(PATIENCE_S, self._look)
