"""How a credential is read, and why: the same checks as on the path of a call, one by one, each with its result.

In: an `Identity`, a credential. Out: `Reading`. Every check is made, also behind one that failed: what is wrong with a
token is seldom one thing. Asks issuers where a call would. Cases: `tests/authority/test_explain.py`.
"""

from __future__ import annotations

import msgspec

from narthex.authority.identify import NOBODY_ASKED, Identity, bearer_of, check_key_issuer, issuer_name
from narthex.authority.issuers import Issuer
from narthex.errors import GatewayError
from narthex.flow.identity.api_keys import PREFIX
from narthex.flow.identity.claims import principal_of
from narthex.flow.identity.keys import is_signed
from narthex.flow.identity.tokens import (
    CHECKS,
    Claims,
    Jwt,
    TokenRefused,
    TokenRules,
    check_introspected,
    looks_like_jwt,
    parse,
)
from narthex.types import EndpointSpec, Principal, Proof


class Step(msgspec.Struct, frozen=True):
    """One check, or one thing that was read. `ok` is None for what is neither right nor wrong."""

    check: str
    ok: bool | None
    text: str


class Reading(msgspec.Struct):
    """What became of a credential. `issuer` is the configured name, empty where none was found."""

    kind: Proof
    issuer: str = ""
    steps: list[Step] = []
    principal: Principal | None = None

    @property
    def accepted(self) -> bool:
        """Would a call with it be let in?"""
        return self.principal is not None and all(step.ok is not False for step in self.steps)

    def passed(self, check: str, text: str) -> None:
        self.steps.append(Step(check, True, text))

    def failed(self, check: str, text: str) -> None:
        self.steps.append(Step(check, False, text))

    def read(self, what: str, text: str) -> None:
        self.steps.append(Step(what, None, text))


async def explain(identity: Identity, token: bytes, endpoint: EndpointSpec, audiences: frozenset[str]) -> Reading:
    """Read a key or token as the gateway would for this endpoint. Never raises for what it is."""
    try:
        token = bearer_of(b"Bearer " + token)
    except GatewayError as error:
        return Reading("none", steps=[Step("form", False, error.public)])
    if token.startswith(PREFIX):
        reading = _key(identity, token)
    elif looks_like_jwt(token):
        reading = await _jwt(identity, token, audiences)
    else:
        reading = await _opaque(identity, token, audiences)
    _scopes(identity, reading, endpoint)
    return reading


def _key(identity: Identity, token: bytes) -> Reading:
    reading = Reading("api_key")
    if identity.keys is None:
        reading.failed("keys", "API keys are not accepted: the configuration does not say `api_keys: true`")
    elif (principal := identity.keys.find(token)) is None:
        reading.failed("keys", "no such key, or it is revoked or has expired")
    else:
        reading.passed("keys", f"the key of {principal.subject}")
        reading.principal = principal
    return reading


async def _jwt(identity: Identity, token: bytes, audiences: frozenset[str]) -> Reading:
    reading = Reading("jwt")
    try:
        jwt = parse(token)
        reading.passed("form", f"a JWT of {len(token)} bytes, key {jwt.header.kid or '(not named)'}")
        issuer = identity.of_jwt(jwt)
    except TokenRefused as refused:
        reading.failed(refused.check, refused.text)
        return reading
    reading.issuer = issuer.spec.name
    rules = identity.rules(issuer, audiences)
    for name, check in CHECKS:
        try:
            reading.passed(name, check(jwt, rules, identity.now()))
        except TokenRefused as refused:
            reading.failed(refused.check, refused.text)
    await _signature(reading, jwt, issuer, rules)
    asked = issuer.spec.introspection
    if asked is not None and asked.use == "always":
        await _introspect(identity, reading, token, issuer)
    reading.kind = "workload" if issuer.preset.needs_subjects else "jwt"
    _map(identity, reading, await _with_groups(identity, reading, jwt.claims, issuer), issuer)
    return reading


async def _with_groups(identity: Identity, reading: Reading, claims: Claims, issuer: Issuer) -> Claims:
    if not identity.looks_up(claims, issuer) or not all(step.ok is not False for step in reading.steps):
        return claims  # a token that is refused asks nobody about anybody
    try:
        found = await identity.with_groups(claims, issuer)
    except TokenRefused as refused:
        reading.failed(refused.check, refused.text)
        return claims
    except GatewayError as error:
        reading.failed("groups", error.detail or error.public)
        return claims
    reading.passed("groups", "left out of the token because there are too many: the directory was asked for them")
    return found


async def _signature(reading: Reading, jwt: Jwt, issuer: Issuer, rules: TokenRules) -> None:
    header = jwt.header
    try:
        await issuer.refresh()
        key = issuer.find(header.kid, header.alg)
        if key is None:
            known = ", ".join(issuer.keys.by_kid) if issuer.keys is not None else ""
            raise TokenRefused("key", f"its issuer has no key of this kid for {header.alg[:32]}; it has: {known}")
        if not is_signed(jwt.signing_input, jwt.signature, header.alg, key, rules.algorithms):
            raise TokenRefused("signature", "not signed by its issuer, or altered since")
        check_key_issuer(key.issuer, jwt.claims, rules)
    except TokenRefused as refused:
        reading.failed(refused.check, refused.text)
    except GatewayError as error:
        reading.failed("keys", error.detail or error.public)
    else:
        reading.passed("signature", f"by the issuer's key {key.kid or '(the only one)'}")


async def _opaque(identity: Identity, token: bytes, audiences: frozenset[str]) -> Reading:
    reading = Reading("introspection")
    issuers = identity.of_opaque(token)
    if not issuers:
        reading.failed("form", NOBODY_ASKED)
    refused: list[Step] = []
    for issuer in issuers:
        one = Reading("introspection", issuer.spec.name, steps=[])
        claims = await _introspect(identity, one, token, issuer)
        if claims is None or issuer.spec.introspection is None:
            refused += [msgspec.structs.replace(step, text=f"{one.issuer}: {step.text}") for step in one.steps]
            reading.issuer = reading.issuer or one.issuer
            continue
        one.steps = [*(msgspec.structs.replace(step, ok=None) for step in refused), *one.steps]
        try:
            rules, how = identity.rules(issuer, audiences), issuer.spec.introspection
            check_introspected(claims, rules, identity.now(), audience=how.audience)
            one.passed("claims", "issuer, audience and times fit, as far as the answer says them")
        except TokenRefused as error:
            one.failed(error.check, error.text)
        _map(identity, one, claims, issuer)
        return one
    reading.steps += refused
    return reading


async def _introspect(identity: Identity, reading: Reading, token: bytes, issuer: Issuer) -> Claims | None:
    try:
        claims = await identity.ask(issuer, token)
    except TokenRefused as refused:
        reading.failed(refused.check, refused.text)
    except GatewayError as error:
        reading.failed("introspection", error.detail or error.public)
    else:
        reading.passed("introspection", "the issuer says that it is active")
        return claims
    return None


def _map(identity: Identity, reading: Reading, claims: Claims, issuer: Issuer) -> None:
    spec = issuer.spec
    try:
        reading.principal = principal_of(
            claims, spec.claims, issuer=issuer_name(spec, claims), method=reading.kind,
            includes=identity.spec.scope_includes, say=reading.read,
        )  # fmt: skip
    except TokenRefused as refused:
        reading.failed(refused.check, refused.text)


def _scopes(identity: Identity, reading: Reading, endpoint: EndpointSpec) -> None:
    principal, scopes = reading.principal, identity.scopes.get(endpoint.name)
    if principal is None or scopes is None or not scopes.base:
        return
    missing = sorted(scopes.base - principal.scopes)
    if missing:
        reading.failed("base scopes", f"endpoint {endpoint.name} needs also: {' '.join(missing)}")
    else:
        reading.passed("base scopes", f"endpoint {endpoint.name} needs: {' '.join(sorted(scopes.base))}")
