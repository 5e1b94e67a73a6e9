"""Asking an issuer about a token that says nothing by itself (RFC 7662).

In: a token, an issuer with `introspection`. Out: its claims, or `TokenRefused`; `AuthorityUnavailable` where the issuer
does not say. Who asks at the same time about the same token shares one answer. What is kept, and for how long, is
`identify`'s. Cases: `tests/authority/test_introspection.py`.
"""

from __future__ import annotations

import asyncio
from base64 import b64encode
from urllib.parse import quote_plus, urlencode

import msgspec

from narthex.authority.fetch import Fetch
from narthex.authority.issuers import Issuer
from narthex.authority.port import Secrets, getter
from narthex.errors import AuthorityUnavailable
from narthex.flow.codec.jsonrpc import BAD_JSON
from narthex.flow.identity.tokens import MAX_TOKEN, Claims, TokenRefused
from narthex.types import Introspection

MAX_ANSWER = 64 * 1024
"""Read at once: this much of the worst JSON takes a millisecond and a half."""
TIMEOUT_S = 10.0
MOST_ASKING = 64
"""Questions under way to one issuer; more are refused, so that a flood of invented tokens costs it no more."""


class Introspector:
    """Asks one issuer."""

    def __init__(self, issuer: Issuer, spec: Introspection, fetch: Fetch, secrets: Secrets | None) -> None:
        self.prefix = spec.prefix.encode()
        self._issuer = issuer
        self._spec = spec
        self._fetch = fetch
        self._get = getter(secrets)
        self._asking: dict[bytes, asyncio.Task[Claims]] = {}

    async def claims(self, token: bytes) -> Claims:
        """What the issuer says of a token that is active.

        Raises:
            TokenRefused: It is not active, or is no token.
            AuthorityUnavailable: The issuer did not say.
        """
        if len(token) > MAX_TOKEN:
            raise TokenRefused("size", f"larger than {MAX_TOKEN} bytes")
        task = self._asking.get(token)
        if task is None:
            if len(self._asking) >= MOST_ASKING:
                raise AuthorityUnavailable("too many tokens are being looked at", detail="introspection is busy")
            task = self._asking[token] = asyncio.get_running_loop().create_task(self._ask(token))
            task.add_done_callback(lambda done: self._asked(token, done))
        return await asyncio.shield(task)

    def _asked(self, token: bytes, task: asyncio.Task[Claims]) -> None:
        del self._asking[token]
        if not task.cancelled():
            task.exception()  # seen: whoever waited has it

    async def _ask(self, token: bytes) -> Claims:
        try:
            url, learnt = await self._url()
        except ValueError as error:
            raise AuthorityUnavailable(detail=str(error)) from None
        answer = await self._fetch(
            url, method="POST", headers=self._headers(), body=self._form(token), max_bytes=MAX_ANSWER,
            timeout_s=TIMEOUT_S, learnt=learnt,
        )  # fmt: skip
        if answer.status != 200:
            raise AuthorityUnavailable(detail=f"{self._issuer.spec.name}: introspection answered HTTP {answer.status}")
        return read_answer(answer.body)

    async def _url(self) -> tuple[str, bool]:
        if self._spec.url:
            return self._spec.url, False
        url = (await self._issuer.ask_metadata()).introspection_endpoint
        if not url:
            raise ValueError("its metadata names no introspection_endpoint")
        return url, self._issuer.is_learnt(url)

    def _secret(self) -> str:
        """Raises AuthorityUnavailable."""
        text = self._spec.client_secret
        return text.fill(self._get) if text is not None else ""

    def _headers(self) -> tuple[tuple[str, str], ...]:
        headers = [("Content-Type", "application/x-www-form-urlencoded"), ("Accept", "application/json")]
        if self._spec.client_id and self._spec.auth == "basic":  # RFC 6749 §2.3.1: both form-encoded first
            pair = f"{quote_plus(self._spec.client_id)}:{quote_plus(self._secret())}"
            headers.append(("Authorization", "Basic " + b64encode(pair.encode()).decode("ascii")))
        return tuple(headers)

    def _form(self, token: bytes) -> bytes:
        fields = {"token": token.decode("ascii"), "token_type_hint": "access_token"}
        if self._spec.client_id and self._spec.auth == "post":
            fields |= {"client_id": self._spec.client_id, "client_secret": self._secret()}
        return urlencode(fields).encode("ascii")

    def close(self) -> None:
        for task in self._asking.values():
            task.cancel()


def read_answer(body: bytes) -> Claims:
    """The claims in an introspection's answer.

    Raises:
        TokenRefused: The token is not active (RFC 7662 §2.2: `active` is the only member that says so).
        AuthorityUnavailable: No such answer.
    """
    try:
        claims: Claims = msgspec.json.decode(body, type=Claims)
    except BAD_JSON:
        raise AuthorityUnavailable(detail="the answer to an introspection is no JSON object") from None
    active = claims.pop("active", None)
    if active is not True:
        if active is False:
            raise TokenRefused("introspection", "the issuer says that it is not active")
        raise AuthorityUnavailable(detail="the answer to an introspection does not say whether the token is active")
    return claims
