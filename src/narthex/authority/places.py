"""Where the tokens of one server come from, asked once and kept: its resource metadata, its authorization server's.

In: the server's URL, a credential, what its 401 said. Out: the token endpoint, the resource to name, the scopes that it
wants. What the operator wrote is not asked for. An issuer that was learnt once is kept: a server that names another one
later gets nothing (credentials are one issuer's alone). Cases: `tests/authority/test_accounts.py`.
Source: MCP 2025-11-25 and 2026-07-28, authorization (discovery, "Authorization Server Binding").
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from narthex.authority import discovery
from narthex.authority.discovery import MAX_DOCUMENT, Challenge, Resource, Server, Untrusted
from narthex.authority.fetch import Fetch
from narthex.errors import AuthorityUnavailable
from narthex.types import Authority

KEPT_S = 3600.0
"""Metadata is asked for again after this long; what was known goes on where it cannot be had."""
LOOKED_S = 30.0
"""A server's 401 makes us look at its resource metadata once in this time."""


class Place:
    """One server, and the authorization servers that its credential is for.

    Args:
        url: The server's, as the operator wrote it.
        authority, idp: Where its tokens come from, and the assertions for them.
    """

    def __init__(
        self, url: str, authority: Authority, idp: Authority | None, fetch: Fetch, *, clock: Callable[[], float]
    ) -> None:
        self._url = url
        self._authority = authority
        self._fetch = fetch
        self._clock = clock
        self._issuer = authority.issuer
        self._resource: Resource | None = None
        self._looked_at = float("-inf")
        self._looking: asyncio.Task[None] | None = None
        self._servers: dict[str, tuple[Server, float]] = {}
        written = (url, authority.issuer, authority.token_endpoint, *((idp.issuer, idp.token_endpoint) if idp else ()))
        self._written = {discovery.origin(one) for one in written if one}

    @property
    def known(self) -> bool:
        """Can a token be asked for before the server has said anything?"""
        return bool(self._issuer or self._authority.token_endpoint)

    @property
    def resource(self) -> str:
        """The server as a resource: by its own metadata, else by its URL."""
        return self._resource.resource if self._resource is not None else discovery.canonical(self._url)

    @property
    def scopes(self) -> tuple[str, ...]:
        """What the resource's metadata says that there is."""
        return self._resource.scopes if self._resource is not None else ()

    def learnt(self, url: str) -> bool:
        """Did somebody else supply this address?"""
        return discovery.origin(url) not in self._written

    async def look(self, challenge: Challenge) -> None:
        """Read the server's resource metadata, after a 401 that says where it is, or does not.

        Raises:
            Untrusted: It is another's, or names another issuer than the credential's.
            AuthorityUnavailable: It cannot be had, and no issuer is known.
        """
        if self._looking is None:
            if self._clock() - self._looked_at < LOOKED_S:
                return
            self._looking = asyncio.ensure_future(self._look(challenge))
            self._looking.add_done_callback(self._looked)
        await asyncio.shield(self._looking)

    def _looked(self, task: asyncio.Task[None]) -> None:
        self._looking = None
        if not task.cancelled():
            task.exception()  # seen: whoever waited has it

    async def _look(self, challenge: Challenge) -> None:
        for url in discovery.resource_urls(self._url, challenge):
            found = await self._fetch(url, max_bytes=MAX_DOCUMENT, learnt=self.learnt(url))
            if found.status == 200:
                resource = discovery.read_resource(found.body, self._url)
                self._issuer = discovery.choose_server(resource, self._issuer)
                self._resource, self._looked_at = resource, self._clock()
                return
        self._looked_at = self._clock()
        if not self.known:
            raise AuthorityUnavailable(detail="the server says nowhere whose tokens it takes: write `issuer`")

    async def server(self) -> Server:
        """The authorization server that tokens for the server come from.

        Raises:
            Untrusted, AuthorityUnavailable: Its metadata is another's, or cannot be had.
        """
        return await self.metadata(msgspec.structs.replace(self._authority, issuer=self._issuer))

    async def metadata(self, authority: Authority) -> Server:
        """An authorization server's endpoint: as it is written, else by its metadata.

        Raises:
            Untrusted, AuthorityUnavailable: As `server`.
        """
        issuer = authority.issuer
        if authority.token_endpoint:
            return Server(issuer, authority.token_endpoint)
        kept = self._servers.get(issuer)
        if kept is not None and self._clock() - kept[1] < KEPT_S:
            return kept[0]
        try:
            found = await self._ask(issuer)
        except AuthorityUnavailable:
            if kept is None:
                raise
            found = kept[0]
        self._servers[issuer] = (found, self._clock())
        return found

    async def _ask(self, issuer: str) -> Server:
        for url in discovery.server_urls(issuer):
            found = await self._fetch(url, max_bytes=MAX_DOCUMENT, learnt=self.learnt(url))
            if found.status == 200:
                server = discovery.read_server(found.body, issuer)
                if not server.token_endpoint.startswith(("https://", "http://")):
                    raise Untrusted("the authorization server's token endpoint is no URL")
                return server
        raise AuthorityUnavailable(detail=f"the issuer {issuer[:200]!r} has no metadata at its well-known addresses")
