"""Who calls: the credential of a request to a principal, from memory where it was seen before.

In: what a request brought (`Presented`), an endpoint. Out: the `Principal`, at once or once an issuer has answered; or
`Unauthorized`, `InsufficientScope`, a refusal of HTTP. A known token costs a hash and a look-up; a new one whose key is
known is verified on the spot; only an unknown key and an opaque token make the request wait. Nothing of the credential
goes further than this. Cases: `tests/authority/test_identify.py`, abuse: `tests/security/`.
Source: RFC 6750 §2 (one method a request, never the query), RFC 8705 §3; MCP 2026-07-28, authorization.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any
from urllib.parse import unquote_to_bytes

import msgspec

from narthex.authority.directory import Directory
from narthex.authority.fetch import Fetch
from narthex.authority.introspection import Introspector
from narthex.authority.issuers import Issuer
from narthex.authority.port import KnownKeys, Secrets
from narthex.authority.subjects import Subjects
from narthex.errors import AuthorityUnavailable, GatewayError, HttpRefusal, Unauthorized
from narthex.flow.identity.api_keys import PREFIX
from narthex.flow.identity.certificates import Certificate
from narthex.flow.identity.certificates import principal_of as principal_of_certificate
from narthex.flow.identity.claims import are_left_out, principal_of
from narthex.flow.identity.keys import is_signed
from narthex.flow.identity.presets import PRESETS
from narthex.flow.identity.scopes import Scopes
from narthex.flow.identity.tokens import (
    LEEWAY_S,
    TID,
    Claims,
    Jwt,
    TokenRefused,
    TokenRules,
    binding_of,
    check,
    check_introspected,
    is_issuer,
    looks_like_jwt,
    parse,
)
from narthex.flow.identity.verified import Known, Shown, Verified
from narthex.types import ANONYMOUS, EndpointSpec, IdentitySpec, IssuerSpec, Principal, Proof

NOBODY_ASKED = "an opaque token, and no issuer is asked about such (`introspection`)"
PATIENCE_S = 15.0
"""A request waits this long for its issuer."""
_KEY = b"Bearer " + PREFIX
_IN_QUERY = frozenset({b"access_token", b"id_token", b"token", b"api_key", b"apikey", b"x-api-key", b"authorization"})
Found = Principal | Coroutine[Any, Any, Principal]
"""At once, or what is to be awaited."""
_log = logging.getLogger("narthex.identity")


def is_key(header: bytes) -> bool:
    """Is this value of `Authorization` one of our own API keys?"""
    return header.startswith(_KEY)


class Presented(msgspec.Struct, frozen=True):
    """What a request brought.

    Args:
        header: The value of `Authorization`, None where there is none. The listener refuses two.
        query: As it came.
        certificate: Of the TLS peer, or told by a trusted proxy; `by` says which.
        audiences: The endpoint's own URL in the forms that its clients use.
    """

    header: bytes | None
    query: bytes = b""
    certificate: Certificate | None = None
    by: Proof = "mtls"
    audiences: frozenset[str] = frozenset()


class Identity:
    """Knows everybody, by one `identity:` section. A reload hands over what has not changed.

    Args:
        endpoints: Those of the snapshot.
        keys: API keys; None where they are not configured.
        now: Wall clock, Unix seconds. clock: Monotonic. chance: 0 ≤ x < 1.
        subjects: Keeps tokens for the credentials that are made of them; None where there are none.
        before: The one whose place this takes; it is not to be used any more.
    """

    def __init__(
        self,
        spec: IdentitySpec,
        endpoints: Mapping[str, EndpointSpec],
        *,
        keys: KnownKeys | None,
        fetch: Fetch,
        secrets: Secrets | None,
        now: Callable[[], float],
        clock: Callable[[], float],
        chance: Callable[[], float],
        subjects: Subjects | None = None,
        before: Identity | None = None,
    ) -> None:
        self.spec = spec
        self.keys = keys if spec.api_keys else None
        self.subjects = subjects
        self.kept = subjects is not None and subjects.wanted
        """Has every token that is known been kept for credentials? Else they are verified again, and then they are."""
        known = before is not None and (before.kept or not self.kept)
        self.verified: Verified = before.verified if before is not None and known else Verified()
        self.scopes = {name: Scopes(endpoint) for name, endpoint in endpoints.items()}
        self._fetch: Fetch = fetch
        self.now = now
        self.mark = object()
        """Stands for this configuration, in what may outlive it."""
        self._base = {name: one.base for name, one in self.scopes.items() if one.base}
        kept = before.issuers if before is not None and before._fetch == fetch else {}
        same = before is not None and before.spec.scope_includes == spec.scope_includes
        self.issuers: dict[str, Issuer] = {}
        for name, one in spec.issuers.items():
            issuer = kept.get(name)
            if issuer is None or issuer.spec != one or not same:
                issuer = Issuer(one, fetch, clock=clock, chance=chance, secrets=secrets)
            self.issuers[name] = issuer
        for issuer in (before.issuers if before is not None else {}).values():
            if issuer not in self.issuers.values():
                issuer.close()
        self._rules = {name: rules_of(one) for name, one in spec.issuers.items()}
        self._by_text = {text: self.issuers[name] for name, one in self._rules.items() for text in one.issuers}
        self._asked = {
            name: Introspector(self.issuers[name], one.introspection, fetch, secrets)
            for name, one in spec.issuers.items()
            if one.introspection is not None
        }
        self._directories = {
            name: Directory(self.issuers[name], one.directory, fetch, secrets, clock)
            for name, one in spec.issuers.items()
            if one.directory is not None
        }
        self._vouched = {
            issuer_name(one, {"tid": tid}) for one in spec.issuers.values() for tid in (one.tenants or ("",))
        }
        self._background: set[asyncio.Task[None]] = before._background if before is not None else set()

    # --- the path of a call

    def known(self, header: bytes, endpoint: str) -> Principal | None:
        """The principal of a key, or of a token that was seen before and needs no second look; None: `identify`."""
        if is_key(header):
            principal = self.keys.find(header[7:]) if self.keys is not None else None
            return principal if principal is not None and self._has_base(principal, endpoint) else None
        shown = self.shown(header, endpoint)
        return shown.principal(header, endpoint, self.mark, self.now()) if shown is not None else None

    def shown(self, header: bytes, endpoint: str) -> Shown | None:
        """The same of a token, for the connection that it came on; None for a key. It counts as long as `mark` does."""
        known = self.verified.get(header, self.now()) if not is_key(header) else None
        if known is None or known.bound or known.endpoint not in ("", endpoint):
            return None
        return (
            Shown(header, known, self.verified, endpoint, self.mark)
            if self._has_base(known.principal, endpoint)
            else None
        )

    def _has_base(self, principal: Principal, endpoint: str) -> bool:
        base = self._base.get(endpoint)
        return base is None or base <= principal.scopes

    def identify(self, presented: Presented, endpoint: EndpointSpec) -> Found:
        """Who this is.

        Raises:
            Unauthorized, InsufficientScope: With what the challenge needs.
            HttpRefusal: A credential where none may be.
        """
        if presented.query:
            _refuse_in_query(presented.query)
        header = presented.header
        if header is None:
            return self._allowed(self._without_token(presented, endpoint), endpoint)
        known = self.verified.get(header, self.now())
        if known is not None and known.endpoint in ("", endpoint.name):
            _check_binding(known.bound, presented.certificate)
            return self._allowed(known.principal, endpoint)
        token = bearer_of(header)
        if token.startswith(PREFIX):
            principal = self.keys.find(token) if self.keys is not None else None
            if principal is None:
                raise Unauthorized("the key is not accepted", error="invalid_token", detail="API key")
            return self._allowed(principal, endpoint)
        try:
            return self._of_token(token, presented, endpoint)
        except TokenRefused as refused:
            raise unauthorized(refused) from None

    async def proved(self, header: str) -> Principal | None:
        """Whom this value of `Authorization` proves, by tokens that name a configured audience."""
        nowhere = EndpointSpec("", ())
        try:
            found = self.identify(Presented(header.encode("latin-1")), nowhere)
            return found if isinstance(found, Principal) else await found
        except GatewayError as error:
            _log.debug("not let in: %s %s", error.public, error.detail)
            return None

    def _without_token(self, presented: Presented, endpoint: EndpointSpec) -> Principal:
        if presented.certificate is not None and self.spec.certificates is not None:
            found = principal_of_certificate(presented.certificate, self.spec.certificates, presented.by)
            if found is not None and not self.holds(found):  # TLS looked at it when the connection was opened
                raise Unauthorized("the client certificate has expired", error="invalid_token")
            if found is not None:
                return found
        if endpoint.auth == "anonymous":
            return ANONYMOUS
        raise Unauthorized("a credential is needed")

    def _allowed(self, principal: Principal, endpoint: EndpointSpec) -> Principal:
        scopes = self.scopes.get(endpoint.name)
        if scopes is not None:
            scopes.check_base(principal)
        return principal

    # --- tokens

    def _of_token(self, token: bytes, presented: Presented, endpoint: EndpointSpec) -> Found:
        if not looks_like_jwt(token):
            issuers = self.of_opaque(token)
            if not issuers:
                raise TokenRefused("form", NOBODY_ASKED)
            return self._wait(partial(self._introspected, token, issuers, presented, endpoint))
        jwt = parse(token)
        issuer = self.of_jwt(jwt)
        rules = self.rules(issuer, presented.audiences)
        check(jwt, rules, self.now())
        always = issuer.spec.introspection is not None and issuer.spec.introspection.use == "always"
        key = issuer.find(jwt.header.kid, jwt.header.alg)
        if key is None and not issuer.may_ask(jwt.header.kid):
            if issuer.keys is None:
                raise AuthorityUnavailable("the issuer of the token cannot be asked", detail=issuer.last_error)
            raise TokenRefused("key", "its issuer has no key of this kid for this algorithm")
        if key is None or always:
            return self._wait(partial(self._after_keys, jwt, token, issuer, rules, presented, endpoint, always))
        return self._signed(jwt, issuer, rules, presented, endpoint)

    def of_jwt(self, jwt: Jwt) -> Issuer:
        """The issuer that a token names. Raises TokenRefused."""
        text = jwt.claims.get("iss")
        if isinstance(text, str):
            if (found := self._by_text.get(text)) is not None:
                return found
            for name, rules in self._rules.items():
                if is_issuer(text, jwt.claims, rules):
                    return self.issuers[name]
        subject = jwt.claims.get("sub")
        if text is None and isinstance(subject, str):
            for name, rules in self._rules.items():
                if not rules.needs_issuer and subject.startswith(self.spec.issuers[name].issuer + "/"):
                    return self.issuers[name]
        raise TokenRefused("issuer", "no configured issuer has this iss, character by character")

    def of_opaque(self, token: bytes) -> list[Issuer]:
        """The issuers that are asked about an opaque token, in this order: those by its prefix, else those without."""
        prefixes = {name: self._asked[name].prefix for name in self._asked}
        named = [name for name, prefix in prefixes.items() if prefix and token.startswith(prefix)]
        return [self.issuers[name] for name in named or [name for name, prefix in prefixes.items() if not prefix]]

    async def ask(self, issuer: Issuer, token: bytes) -> Claims:
        """What an issuer says of a token. Raises TokenRefused, AuthorityUnavailable."""
        return await self._asked[issuer.spec.name].claims(token)

    def rules(self, issuer: Issuer, audiences: frozenset[str]) -> TokenRules:
        """What its tokens must say; without configured audiences they must name the endpoint itself."""
        rules = self._rules[issuer.spec.name]
        return rules if rules.audiences else msgspec.structs.replace(rules, audiences=audiences)

    async def _wait(self, work: Callable[[], Coroutine[Any, Any, Principal]]) -> Principal:
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await work()
        except TimeoutError:
            raise AuthorityUnavailable("the issuer of the token did not answer in time") from None
        except TokenRefused as refused:
            raise unauthorized(refused) from None

    async def _after_keys(
        self,
        jwt: Jwt,
        token: bytes,
        issuer: Issuer,
        rules: TokenRules,
        presented: Presented,
        endpoint: EndpointSpec,
        always: bool,
    ) -> Principal:
        if issuer.find(jwt.header.kid, jwt.header.alg) is None:
            await issuer.seek(jwt.header.kid, jwt.header.alg)
        self._check_signature(jwt, issuer, rules)
        if always:
            await self.ask(issuer, token)
        return self._take(await self.with_groups(jwt.claims, issuer), issuer, _proof(issuer), presented, endpoint)

    def looks_up(self, claims: Claims, issuer: Issuer) -> bool:
        """Has a token left its groups out, and is the issuer's directory asked for them?"""
        return issuer.spec.name in self._directories and are_left_out(claims)

    async def with_groups(self, claims: Claims, issuer: Issuer) -> Claims:
        """The claims, with the groups that the token left out. Raises TokenRefused, AuthorityUnavailable."""
        if not self.looks_up(claims, issuer):
            return claims
        return await self._directories[issuer.spec.name].with_groups(claims)

    async def _looked_up(self, jwt: Jwt, issuer: Issuer, presented: Presented, endpoint: EndpointSpec) -> Principal:
        claims = await self.with_groups(jwt.claims, issuer)
        return self._take(claims, issuer, _proof(issuer), presented, endpoint)

    def _check_signature(self, jwt: Jwt, issuer: Issuer, rules: TokenRules) -> None:
        header = jwt.header
        key = issuer.find(header.kid, header.alg)
        if key is None:
            raise TokenRefused("key", "its issuer has no key of this kid for this algorithm")
        if not is_signed(jwt.signing_input, jwt.signature, header.alg, key, rules.algorithms):
            raise TokenRefused("signature", "not signed by its issuer")
        check_key_issuer(key.issuer, jwt.claims, rules)

    def _signed(
        self, jwt: Jwt, issuer: Issuer, rules: TokenRules, presented: Presented, endpoint: EndpointSpec
    ) -> Found:
        self._check_signature(jwt, issuer, rules)
        if self.looks_up(jwt.claims, issuer):
            return self._wait(partial(self._looked_up, jwt, issuer, presented, endpoint))
        return self._take(jwt.claims, issuer, _proof(issuer), presented, endpoint)

    async def _introspected(
        self, token: bytes, issuers: list[Issuer], presented: Presented, endpoint: EndpointSpec
    ) -> Principal:
        issuer, claims = await self._first_that_knows(issuers, token)
        spec = issuer.spec.introspection
        assert spec is not None
        check_introspected(claims, self.rules(issuer, presented.audiences), self.now(), audience=spec.audience)
        return self._take(claims, issuer, "introspection", presented, endpoint)

    async def _first_that_knows(self, issuers: list[Issuer], token: bytes) -> tuple[Issuer, Claims]:
        """Where none says that the token is active, one that did not answer might have."""
        said: Exception = TokenRefused("form", NOBODY_ASKED)
        for issuer in issuers:
            try:
                return issuer, await self.ask(issuer, token)
            except AuthorityUnavailable as error:
                said = error
            except TokenRefused as error:
                said = said if isinstance(said, AuthorityUnavailable) else error
        raise said

    def _take(
        self, claims: Claims, issuer: Issuer, method: Proof, presented: Presented, endpoint: EndpointSpec
    ) -> Principal:
        """Everything is checked: make the principal, and keep it."""
        spec = issuer.spec
        principal = principal_of(
            claims, spec.claims, issuer=issuer_name(spec, claims), method=method, includes=self.spec.scope_includes
        )
        bound = binding_of(claims)
        _check_binding(bound, presented.certificate)
        until = principal.expires_at + LEEWAY_S if principal.expires_at else float("inf")
        asked = spec.introspection
        if asked is not None and (method == "introspection" or asked.use == "always"):
            until = min(until, self.now() + asked.ttl_s)
        assert presented.header is not None
        if self.subjects is not None:
            self.subjects.keep(principal, bearer_of(presented.header).decode("latin-1"))
        only = "" if spec.audiences else endpoint.name
        self.verified.put(presented.header, Known(principal, until, issuer.vouch, bound, only))
        return self._allowed(principal, endpoint)

    # --- upkeep

    def holds(self, principal: Principal) -> bool:
        """Does what proved this principal still count? Asked once a second for what goes on without a new request."""
        if 0 < principal.expires_at <= self.now() - LEEWAY_S:
            return False
        match principal.method:
            case "anonymous":
                return True
            case "api_key":
                return self.keys is not None and self.keys.holds(principal)
            case "jwt" | "introspection" | "workload":
                return principal.issuer in self._vouched
            case "mtls" | "xfcc":
                return self.spec.certificates is not None
        return False

    def sweep(self) -> None:
        """Once a second: ask issuers again whose keys have grown old, off the path of any call."""
        for issuer in self.issuers.values():
            if issuer.is_due():
                task = asyncio.ensure_future(_refreshed(issuer))
                self._background.add(task)
                task.add_done_callback(self._background.discard)

    def close(self) -> None:
        for issuer in self.issuers.values():
            issuer.close()
        for asked in self._asked.values():
            asked.close()
        for directory in self._directories.values():
            directory.close()
        for task in self._background:
            task.cancel()


async def _refreshed(issuer: Issuer) -> None:
    try:
        await issuer.refresh()
    except AuthorityUnavailable as error:
        _log.debug("%s", error.detail)  # `Issuer` has said so once


def rules_of(spec: IssuerSpec) -> TokenRules:
    """What the tokens of an issuer must say, as far as the configuration alone tells."""
    preset = PRESETS[spec.preset]
    return TokenRules(
        issuers=(spec.issuer, *spec.aliases),
        tenants=frozenset(spec.tenants),
        audiences=frozenset(spec.audiences),
        algorithms=frozenset(spec.algorithms),
        typ=frozenset(spec.typ),
        claim_typ=frozenset(preset.claim_typ),
        needs_issuer=preset.needs_issuer,
        audience_in=preset.audience_in,
    )


def _proof(issuer: Issuer) -> Proof:
    return "workload" if issuer.preset.needs_subjects else "jwt"


def issuer_name(spec: IssuerSpec, claims: Claims) -> str:
    """The issuer in a principal: as configured, whichever of its forms a token uses, with the tenant in its place."""
    return spec.issuer.replace(TID, str(claims.get("tid", ""))) if TID in spec.issuer else spec.issuer


def check_key_issuer(issuer: str, claims: Claims, rules: TokenRules) -> None:
    """A key that its document gives to one issuer alone signs for no other (Entra's common document has such keys)."""
    if not issuer:
        return
    tid = claims.get("tid")
    said = issuer.replace("{tenantid}", tid) if isinstance(tid, str) else issuer
    if not is_issuer(said, claims, rules):
        raise TokenRefused("key", "the key belongs to another issuer")


def bearer_of(header: bytes) -> bytes:
    """The token in `Authorization`. Raises Unauthorized for another scheme, HttpRefusal for what is no one token."""
    scheme, _, token = header.partition(b" ")
    if scheme.lower() != b"bearer":
        raise Unauthorized("a bearer token is needed", detail="another scheme in Authorization")
    token = token.strip(b" ")
    if not token or b" " in token or b"," in token:
        raise HttpRefusal(400, "invalid_request", "Authorization must hold one bearer token")
    return token


def unauthorized(refused: TokenRefused) -> Unauthorized:
    """What a refused token becomes on the wire."""
    return Unauthorized(refused.public, error="invalid_token", detail=f"{refused.check}: {refused.text}")


def _check_binding(bound: str, certificate: Certificate | None) -> None:
    if bound and (certificate is None or certificate.thumbprint != bound):
        raise Unauthorized(
            "the token is bound to a client certificate", error="invalid_token", detail="binding: not this certificate"
        )


def _refuse_in_query(query: bytes) -> None:
    """A query ends up in logs, histories and referrers (RFC 6750 §5.3; MCP: MUST NOT)."""
    for pair in query.split(b"&"):
        if unquote_to_bytes(pair.partition(b"=")[0]).lower() in _IN_QUERY:
            raise HttpRefusal(400, "credential_in_query", "a credential travels in Authorization, never in the URL")
