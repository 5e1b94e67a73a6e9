"""`initialize` and `server/discover`: what an endpoint offers, as soon as its servers have said so.

In: a client's first request. Out: capabilities and instructions of all its servers, and for a legacy client its
session. Nobody waits long for a server that is slow or dead (`WAIT_S`): it is asked again by whoever comes next.
Cases: `tests/flow/accept/test_greeting.py`.
Source: MCP 2025-11-25, lifecycle; MCP 2026-07-28, server/discover and caching.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

from narthex.errors import GatewayError
from narthex.flow.accept.listing import TTL_MS, Answering
from narthex.flow.accept.tasking import session_servers
from narthex.flow.codec.capabilities import bits_of
from narthex.flow.codec.jsonrpc import encode, read_string
from narthex.flow.codec.offers import SERVER_INFO, instructions, offered
from narthex.flow.codec.revisions import LATEST_LEGACY, LEGACY, META_SERVER, MODERN
from narthex.flow.policy.admission import Admission
from narthex.flow.upstream.naming import may_name
from narthex.flow.upstream.port import Dialect
from narthex.types import Kind

WAIT_S = 2.0
"""Clients give up soon on a server that does not greet them."""
_LISTED: Final[tuple[Kind, ...]] = ("tools", "prompts", "resources")
Known = Sequence[tuple[str, Dialect | None]]


class Greeting(Answering[Known]):
    """What both eras' first requests have in common."""

    def known(self) -> Known | None:
        dialects = self.front.fleet.dialects(self.viewer)
        admission = self._admission
        if any(dialect is None or self._is_new(admission, name, dialect) for name, dialect in dialects):
            return None
        return dialects

    async def ask(self) -> Known:
        found = await self.front.fleet.introduced(self.viewer, WAIT_S)
        admission = self._admission
        if admission is not None and (new := [name for name, one in found if self._is_new(admission, name, one)]):
            with suppress(TimeoutError):  # then nobody says more of them than what they offer
                async with asyncio.timeout(WAIT_S):
                    await self._introduce(admission, new)
        return found

    @property
    def _admission(self) -> Admission | None:
        return self.front.admission(self.call.principal, self.call.endpoint)

    @staticmethod
    def _is_new(admission: Admission | None, server: str, dialect: Dialect | None) -> bool:
        """Does it say something of itself, and it is not known whether it exists for the caller?"""
        if admission is None or dialect is None or not dialect.instructions:
            return False
        return admission.engine is not None and admission.knows_of(server) and not admission.names(server)

    async def _introduce(self, admission: Admission, new: Sequence[str]) -> None:
        """Find out which servers the engine shows something of: by their lists, which every client asks for next."""
        fleet, viewer = self.front.fleet, self.viewer
        for kind in _LISTED:
            if fleet.fresh(viewer, kind) is None:
                with suppress(GatewayError):
                    await fleet.listing(viewer, kind)
            if all([await may_name(fleet, viewer, one, admission) for one in new]):
                return

    def visible(self, found: Known) -> Known:
        """The servers of which the caller could see anything: the others do not exist for them."""
        admission = self._admission
        return found if admission is None else [one for one in found if admission.knows_of(one[0])]

    def named(self, found: Known) -> Known:
        """Those of them whose words are for the caller."""
        admission = self._admission
        return found if admission is None else [one for one in found if admission.names(one[0])]

    def offers(self, found: Known) -> dict[str, Any]:
        """The members of the result that come from the servers."""
        plain = self.viewer.spec.resource_uris == "plain"
        alone = session_servers(self.front.fleet, self.viewer)
        dialects, of_sessions = [one for _, one in found], [one for name, one in found if name in alone]
        offers: dict[str, Any] = {"capabilities": offered(self.call.era, dialects, of_sessions, skills=plain)}
        if (text := instructions(self.named(found))) is not None:
            offers["instructions"] = text
        return offers


class Initializing(Greeting):
    """`initialize`. What the servers offer is asked before there is a session: they are opened for the principal."""

    version: str = LATEST_LEGACY
    bits: int = 0

    def known(self) -> Known | None:
        """Raises InvalidParams where no version is asked for, or capabilities have another form."""
        params = self.call.params
        asked = read_string(params, "protocolVersion")
        self.version = asked if asked in LEGACY else LATEST_LEGACY
        self.bits = bits_of(params["capabilities"]) if "capabilities" in params else 0
        return super().known()

    def answer(self, found: Known) -> None:
        call = self.call
        result = {"protocolVersion": self.version, **self.offers(self.visible(found)), "serverInfo": SERVER_INFO}
        handle = self.front.sessions.create(call.principal, call.endpoint, self.version, self.bits)
        self.respond(encode(result), extra=b"Mcp-Session-Id: %b\r\n" % handle.encode())


class Discovering(Greeting):
    """`server/discover`. Servers may offer other principals something else, so it is private (caching)."""

    def answer(self, found: Known) -> None:
        found = self.visible(found)
        result = {
            "resultType": "complete",
            "supportedVersions": list(MODERN),
            **self.offers(found),
            "ttlMs": 0 if any(dialect is None for _, dialect in found) else TTL_MS,
            "cacheScope": "private",
            "_meta": {META_SERVER: SERVER_INFO},
        }
        self.respond(encode(result))
