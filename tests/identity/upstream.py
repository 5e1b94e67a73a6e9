"""An MCP server that wants a bearer token, and keeps the ones that it was shown."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jwt

from narthex.testing.server import Asked, FakeServer, _write


@dataclass
class Guarded(FakeServer):
    """`accepts` says which tokens are good; others get 401 with a challenge. `shown` keeps those of calls.

    `pages` are documents that everybody may read: (status, headers, body) by path.
    """

    tools: list[dict[str, Any]] = field(default_factory=lambda: [{"name": "echo", "inputSchema": {"type": "object"}}])
    accepts: Callable[[str], bool] = bool
    shown: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    challenge: str = 'Bearer error="invalid_token"'
    pages: dict[str, tuple[int, dict[str, str], str]] = field(default_factory=dict)

    async def _serve(self, asked: Asked, writer: asyncio.StreamWriter) -> None:
        if page := self.pages.get(asked.path):
            status, headers, body = page
            await _write(writer, status, body.encode(), headers)
            return
        scheme, _, token = asked.headers.get("authorization", "").partition(" ")
        good = scheme == "Bearer" and self.accepts(token)
        if asked.method == "tools/call":
            (self.shown if good else self.refused).append(token)
        if good:
            await super()._serve(asked, writer)
        else:
            await _write(writer, 401, b"{}", {"WWW-Authenticate": self.challenge})

    def last(self) -> Any:
        """The claims of the token that came with the last call."""
        return jwt.decode(self.shown[-1], options={"verify_signature": False})
