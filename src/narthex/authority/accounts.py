"""One account with one server, shown by a bearer token: fetched, renewed beside the calls, replaced when refused.

In: a `TokenCredential`, its `Place`, secrets, the caller's token where it is made of that. Out: lines of `port.Shown`.
When what happens is `lease.py`'s business, what is asked `grants.py`'s. Cases: `tests/authority/test_accounts.py`.
Source: RFC 6749, 7523, 8693, 8707; MCP, authorization ("Scope Challenge Handling", "Access Token Usage").
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

import msgspec

from narthex.authority import grants
from narthex.authority.assertion import SignedBy
from narthex.authority.discovery import Challenge, Server, Untrusted, read_challenge
from narthex.authority.fetch import Fetch
from narthex.authority.grants import Client, Form, Grant, Refusal
from narthex.authority.lease import Lease
from narthex.authority.places import Place
from narthex.authority.port import Secrets
from narthex.errors import AuthorityUnavailable, ClaimsRequired, CredentialUnavailable
from narthex.flow.upstream.port import ShowsNothing
from narthex.flow.upstream.secrets import HANDED_OUT
from narthex.types import Authority, SecretText, TokenCredential

MAX_ANSWER = 64 * 1024
"""Of a token endpoint: a token has 16 KiB at most."""
TOKEN_S = 10.0
"""A token endpoint answers within this time."""
FRESH_S = 300.0
"""A token is renewed beside the calls while its channel was used in the last of these; later, a call fetches one."""
_log = logging.getLogger("narthex.authority")


class Means(msgspec.Struct, frozen=True):
    """What every account works with. `clock` is monotonic, `now` Unix seconds, `new_id` gives an id never used."""

    secrets: Secrets
    fetch: Fetch
    clock: Callable[[], float]
    now: Callable[[], float]
    chance: Callable[[], float]
    new_id: Callable[[], str]


class TokenAccount(ShowsNothing):
    """See `port.Shown`.

    Args:
        subject: The caller's own token, empty where there is none; asked where the credential is made of it.
        on_change: Told when a token has come or gone: then `next_at` says something else.
    """

    def __init__(
        self,
        spec: TokenCredential,
        place: Place,
        means: Means,
        subject: Callable[[], str],
        on_change: Callable[[TokenAccount], None],
    ) -> None:
        self.spec = spec
        self.used_at = self.held_at = means.clock()
        self.lines: bytes | None = None
        self.epoch = 0
        self._place = place
        self._means = means
        self._subject = subject
        self._on_change = on_change
        self._lease = Lease(chance=means.chance)
        self._asked = spec.scopes
        self._denied: frozenset[str] = frozenset()
        self._for_good = False
        """Would the last refusal be the same again?"""
        self._claims = ""
        """What the caller must sign in with first."""
        self._made_of: int | None = None
        self._made_for = 0
        self._fetching: asyncio.Task[None] | None = None
        self._show()

    # --- port.Shown

    async def obtain(self) -> bytes:
        if self.lines is None:
            await self._fetch_once()
        lines = self.lines
        if lines is None:
            raise self._unavailable()
        return lines

    async def again(self, status: int, challenge: bytes, request: bytes) -> bytes | None:
        asked = read_challenge(challenge.decode("latin-1"))
        try:
            if (
                asked.error == "insufficient_claims"
                and self.spec.of_caller
                and (claims := grants.read_claims(asked.claims))
            ):
                self._lease.refused(self._shown_in(request), self._means.clock())
                self._show()
                raise self._failed("the server wants more of the user (insufficient_claims)", claims=claims)
            if asked.error == "insufficient_scope" or status == 403:
                return await self._step_up(asked, request)
            return await self._replace(asked, self._shown_in(request))
        except (Untrusted, AuthorityUnavailable) as error:
            raise self._failed(_why(error)) from None

    def _shown_in(self, request: bytes) -> str:
        """The token that is shown now, if it is the one in this request."""
        token = self._lease.token
        return token if token and b"Bearer %b\r\n" % token.encode() in request else ""

    def keep(self, *, used: bool) -> None:
        self.held_at = self._means.clock()
        if used:
            self.used_at = self.held_at

    # --- upkeep

    @property
    def error(self) -> str:
        """Why there is no token, or no new one, for the operator; empty while all is well."""
        return self._lease.error

    def tend(self) -> float | None:
        """Renew or let go of the token, as its time says. Returns when to come back, None for: when it is used."""
        lease, now = self._lease, self._means.clock()
        lease.expire(now)
        if lease.due(now) and now - self.used_at < FRESH_S and self._fetching is None:
            self._begin()
        self._show()
        return lease.next_at(now)

    def secrets_changed(self) -> None:
        """Some secret is another: if it is one of ours, what was made of it is void."""
        material = self._material()
        if self._made_of is not None and material != self._made_of:
            self._lease.forget()
            self._made_of = None
            self._denied = frozenset()
            self.epoch += not material  # revoked: streams that were opened with it end too
            self._show()

    def close(self) -> None:
        if self._fetching is not None:
            self._fetching.cancel()

    # --- the server has refused

    async def _replace(self, asked: Challenge, shown: str) -> bytes | None:
        """A 401: the token is not, or no longer, good; or none was shown, because nobody knew whose it takes."""
        if shown or self._lease.token:
            if not self._lease.refused(shown, self._means.clock()):
                self._show()
                return None
            self._show()
        elif self._lease.wait(self._means.clock()) > 0:
            raise self._unavailable()
        if not self._place.known or asked.metadata:
            try:
                await self._place.look(asked)
            except AuthorityUnavailable:
                if not self._place.known:
                    raise
        if self._asked is None:
            self._asked = asked.scopes or self._place.scopes
        if self.lines == b"":
            self._show()
        return await self.obtain()

    async def _step_up(self, asked: Challenge, request: bytes) -> bytes | None:
        """The token is good, and not enough: ask for more, within what is configured, and once for each scope."""
        if self._fetching is not None:  # it asks for what was wanted before, or another call has stepped up
            with contextlib.suppress(CredentialUnavailable):
                await asyncio.shield(self._fetching)
        had = self._asked or ()
        more = tuple(scope for scope in asked.scopes if scope not in had)
        if not more:
            return self.lines if self._lease.token and not self._shown_in(request) else None
        if not set(more) <= set(self.spec.step_up) - self._denied:
            self._lease.error = f"the server wants scopes that `step_up` does not allow: {' '.join(more)[:300]}"
            return None
        self._asked, self._for_good = (*had, *more), False
        try:
            await self._fetch_once()
        except CredentialUnavailable:
            self._asked = had
            if self._for_good:
                self._denied |= set(more)
            raise
        return self.lines

    # --- fetching

    async def _fetch_once(self) -> None:
        """One fetch for all who wait. Raises CredentialUnavailable."""
        if self._fetching is None:
            if self._lease.wait(self._means.clock()) > 0 and not self._has_changed():
                raise self._unavailable()
            self._begin()
        assert self._fetching is not None
        await asyncio.shield(self._fetching)

    def _has_changed(self) -> bool:
        """Is what the last, failed fetch was made of another thing now? Then its failure says nothing any more."""
        if self._material() == self._made_of and self._made_for == self._caller():
            return False
        self._lease.forget()
        return True

    def _begin(self) -> None:
        self._fetching = asyncio.ensure_future(self._fetch())
        self._fetching.add_done_callback(self._fetched)

    def _fetched(self, task: asyncio.Task[None]) -> None:
        self._fetching = None
        self._show()
        self._on_change(self)
        if not task.cancelled():
            task.exception()  # seen: whoever waited has it, and the lease keeps its words

    async def _fetch(self) -> None:
        clock = self._means.clock
        try:
            grant = await self._grant_of_now()
        except Refusal as error:
            self._for_good = error.lasting
            claims = error.claims if self.spec.of_caller else ""
            raise self._failed(
                error.text, lasting=error.lasting, claims=claims, retry_after_s=error.retry_after_s
            ) from None
        except (Untrusted, AuthorityUnavailable, CredentialUnavailable) as error:
            raise self._failed(_why(error)) from None
        self._lease.granted(grant, clock())
        self._claims = ""
        self._show()

    async def _grant_of_now(self) -> Grant:
        """A token that is made of what is in force when it comes, not of a secret that was changed meanwhile."""
        while True:
            self._made_of, self._made_for = of = self._material(), self._caller()
            grant = await self._grant()
            if self._material() == of[0]:
                self._made_of = of[0]
                return grant

    async def _grant(self) -> Grant:
        spec, place = self.spec, self._place
        server = await place.server()
        if spec.grant == "client_credentials":
            return await self._ask(grants.client_credentials(), spec.authority, server)
        if spec.grant == "id_jag":
            assert spec.idp is not None
            form = grants.token_exchange(self._subject_token(), spec.subject_type, "id-jag")
            idp = await place.metadata(spec.idp)
            jag = await self._ask(form, spec.idp, idp, wanted_type="id-jag", audience=server.issuer)
            return await self._ask(grants.jwt_bearer(jag.token), spec.authority, server)
        subject = self._subject_token()
        if spec.grant == "token_exchange":
            form = grants.token_exchange(subject, spec.subject_type, spec.wanted_type)
        elif spec.grant == "on_behalf_of":
            form = grants.on_behalf_of(subject)
        else:
            form = grants.jwt_bearer(subject)
        return await self._ask(form, spec.authority, server)

    async def _ask(
        self, form: Form, authority: Authority, server: Server, *, wanted_type: str = "", audience: str = ""
    ) -> Grant:
        spec, means = self.spec, self._means
        client = Client(
            authority.client_id,
            authority.client_auth,
            _filled(authority.client_secret, means.secrets),
            SignedBy(_filled(authority.private_key, means.secrets), authority.key_id, authority.algorithm)
            if authority.private_key is not None
            else None,
        )

        def build() -> grants.TokenRequest:
            return grants.build(
                form, client, server, scopes=self._asked or (), now=means.now(), jti=means.new_id(),
                resource=self._place.resource if spec.resource == "server" else spec.resource,
                audience=audience or spec.audience,
            )  # fmt: skip

        # Reading and using an RSA key takes milliseconds.
        request = await asyncio.to_thread(build) if client.key is not None else build()
        answer = await means.fetch(
            server.token_endpoint, method="POST", headers=request.headers, body=request.body,
            max_bytes=MAX_ANSWER, timeout_s=TOKEN_S, learnt=self._place.learnt(server.token_endpoint),
        )  # fmt: skip
        kind, wait = answer.headers.get("content-type", ""), answer.headers.get("retry-after", "")
        grant = grants.read_answer(
            answer.status, kind, answer.body, issuer=server.issuer, wanted_type=wanted_type, retry_after=wait
        )
        HANDED_OUT.add(grant.token, passing=True)
        return grant

    def _subject_token(self) -> str:
        if not self.spec.of_caller:
            return _filled(self.spec.subject, self._means.secrets)
        token = self._subject()
        if not token:
            raise CredentialUnavailable("it is made of the caller's own token, and this caller came without one")
        HANDED_OUT.add(token, passing=True)
        return token

    # --- what is shown

    def _material(self) -> int:
        """A mark of the secrets that a token is made of: with another one, the token is void. 0: they are not there."""
        secrets, found = self._means.secrets, []
        try:
            for authority in (self.spec.authority, self.spec.idp):
                if authority is not None:
                    found += [_filled(authority.client_secret, secrets), _filled(authority.private_key, secrets)]
            found.append(_filled(self.spec.subject, secrets))
        except CredentialUnavailable:
            return 0
        return hash(tuple(found)) or 1

    def _caller(self) -> int:
        """A mark of the caller's token, where it is made of that."""
        return hash(self._subject()) if self.spec.of_caller else 0

    def _show(self) -> None:
        token = self._lease.token
        if token:
            self.lines = b"Authorization: Bearer %b\r\n" % token.encode()
        else:
            # Nobody knows yet whose tokens it takes: its 401 will say.
            self.lines = None if self._place.known else b""

    def _failed(
        self, error: str, *, lasting: bool = False, claims: str = "", retry_after_s: float = 0.0
    ) -> CredentialUnavailable:
        self._claims = claims
        if claims:
            _log.info("credential '%s': %s; the caller is told to sign in again", self.spec.name, error)
        self._lease.failed(error, self._means.clock(), lasting=lasting, retry_after_s=retry_after_s)
        return self._unavailable()

    def _unavailable(self) -> CredentialUnavailable:
        wait_s = self._lease.wait(self._means.clock())
        detail = f"credential '{self.spec.name}': {self._lease.error}"
        if self._claims:
            return ClaimsRequired(self._claims, detail)
        return CredentialUnavailable(detail, retry_after_s=wait_s or None)


def _why(error: Exception) -> str:
    return getattr(error, "detail", "") or str(error)


def _filled(text: SecretText | None, secrets: Secrets) -> str:
    return text.fill(secrets.get) if text is not None else ""
