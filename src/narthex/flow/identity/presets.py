"""What is known of each kind of identity provider: where its tokens say what, and what it does with `resource`.

In: nothing. Out: `PRESETS`. An operator's own words replace any of it. Facts and their sources stand in
`docs/guides/identity.md`; cases: `tests/flow/identity/test_presets.py`, with tokens as each provider documents them.
"""

from __future__ import annotations

import re
from typing import Any, Literal

import msgspec

from narthex.types import ClaimPath

Kind = Literal["human", "service"]
Paths = tuple[ClaimPath, ...]
AUDIENCE = "{audience}"
"""In a path: each accepted audience."""


class Preset(msgspec.Struct, frozen=True):
    """One kind of provider.

    Args:
        issuer: The form of its issuer, as a pattern; for people `example`.
        subject, client, scopes, roles, groups: Where these stand in its tokens.
        tenant_claim: Where the tenant stands when the operator maps tenants.
        typ: Accepted `typ` headers; empty text: none.
        claim_typ: Accepted values of a claim `typ`; none: not looked at.
        service: When a token belongs to no human: `(claim, value)`; a value of None means that the claim is absent,
            `=sub` that it equals the subject, `x*` and `*x` that it begins or ends so.
        discovery: Which metadata document it has first.
        resource: What it does with the `resource` parameter (RFC 8707): `audience` puts it into the token, `ignored`,
            or `rejected` unless it fits the scopes.
        exchange: How a token is exchanged for one towards an upstream.
        aliases: From the issuer to other texts in `iss`: `(pattern, replacement)`.
        audience_in: The claim that says whom a token is for; of several, the first that is there.
        needs_subjects: Must the operator say which subjects are let in? The issuer gives tokens to all that it runs.
    """

    name: str
    issuer: str = r"https?://[^\s?#]+"
    example: str = "https://sso.example.com"
    subject: Paths = (("sub",),)
    client: Paths = (("azp",), ("client_id",))
    scopes: Paths = (("scope",),)
    roles: Paths = ()
    groups: Paths = ()
    tenant_claim: ClaimPath = ()
    typ: tuple[str, ...] = ("at+jwt", "jwt", "")
    claim_typ: tuple[str, ...] = ()
    service: tuple[tuple[str, str | None], ...] = (("client_id", "=sub"), ("azp", "=sub"))
    discovery: Literal["oidc", "oauth", "none"] = "oidc"
    resource: Literal["audience", "ignored", "rejected"] = "ignored"
    exchange: Literal["rfc8693", "entra_obo", "none"] = "none"
    aliases: tuple[tuple[str, str], ...] = ()
    needs_subjects: bool = False
    needs_issuer: bool = True
    audience_in: tuple[str, ...] = ("aud",)
    algorithms: tuple[str, ...] = ("RS256", "ES256", "PS256", "EdDSA")

    def kind_of(self, claims: dict[str, Any], subject: str, client: str) -> Kind:
        """A human, or a program that acts for itself?"""
        return "service" if any(_says(claims, name, value, subject) for name, value in self.service) else "human"


def _says(claims: dict[str, Any], name: str, value: str | None, subject: str) -> bool:
    said = claims.get(name)
    if value is None:
        return said is None
    if not isinstance(said, str):
        return False
    if value == "=sub":
        return said == subject
    if value.endswith("*"):
        return said.startswith(value[:-1])
    if value.startswith("*"):
        return said.endswith(value[1:])
    return said == value


PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset(
            "generic",
            scopes=(("scope",), ("scp",)),
            roles=(("roles",),),
            groups=(("groups",),),
            exchange="rfc8693",
            resource="audience",
        ),
        Preset(
            "keycloak",
            issuer=r"https?://[^\s?#]+/realms/[^\s/?#]+",
            example="https://sso.example.com/realms/corp",
            roles=(("realm_access", "roles"), ("resource_access", AUDIENCE, "roles")),
            groups=(("groups",),),
            claim_typ=("Bearer",),
            service=(("preferred_username", "service-account-*"),),
            exchange="rfc8693",
        ),
        Preset(
            "entra",
            issuer=r"https?://[^\s?#]+/(?:[0-9A-Za-z.-]+|\{tid\})/v2\.0",
            example="https://login.microsoftonline.com/<tenant id>/v2.0",
            subject=(("oid",), ("sub",)),
            client=(("azp",), ("appid",)),
            scopes=(("scp",),),
            roles=(("roles",),),
            groups=(("groups",),),
            tenant_claim=("tid",),
            service=(("idtyp", "app"), ("scp", None)),
            resource="rejected",
            exchange="entra_obo",
            aliases=((r"https://login\.microsoftonline\.com/([^/]+)/v2\.0", r"https://sts.windows.net/\1/"),),
            algorithms=("RS256",),
        ),
        Preset(
            "okta",
            example="https://example.okta.com/oauth2/default",
            subject=(("uid",), ("sub",)),
            client=(("cid",),),
            scopes=(("scp",),),
            groups=(("groups",),),
            service=(("cid", "=sub"), ("uid", None)),
            exchange="rfc8693",
            algorithms=("RS256", "ES256"),
        ),
        Preset(
            "auth0",
            issuer=r"https?://[^\s?#]+/",
            example="https://example.eu.auth0.com/ (with the final slash)",
            roles=(("permissions",),),
            groups=(),
            service=(("gty", "client-credentials"), ("sub", "*@clients")),
            resource="ignored",
            algorithms=("RS256",),
        ),
        Preset(
            "cognito",
            issuer=r"https?://[^\s?#]+/[^\s/?#]+",
            example="https://cognito-idp.eu-central-1.amazonaws.com/<user pool id>",
            client=(("client_id",),),
            groups=(("cognito:groups",),),
            audience_in=("aud", "client_id"),
            service=(("username", None),),
            resource="audience",
            algorithms=("RS256",),
        ),
        Preset(
            "google",
            example="https://accounts.google.com",
            scopes=(("scope",),),
            groups=(),
            tenant_claim=("hd",),
            service=(("email", "*.gserviceaccount.com"),),
            aliases=((r"https://accounts\.google\.com", "accounts.google.com"),),
            algorithms=("RS256",),
        ),
        Preset(
            "kubernetes",
            example="https://kubernetes.default.svc.cluster.local",
            client=(("kubernetes.io", "serviceaccount", "name"),),
            scopes=(),
            tenant_claim=("kubernetes.io", "namespace"),
            service=(("sub", "system:serviceaccount:*"),),
            needs_subjects=True,
            algorithms=("RS256", "ES256"),
        ),
        Preset(
            "spiffe",
            issuer=r"spiffe://[a-z0-9._-]{1,255}",
            example="spiffe://example.org (the trust domain)",
            client=(),
            scopes=(),
            typ=("jwt", "jose", ""),
            service=(("sub", "spiffe://*"),),
            discovery="none",
            needs_subjects=True,
            needs_issuer=False,
            algorithms=("RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512"),
        ),
    )
}


def aliases_of(preset: Preset, issuer: str) -> tuple[str, ...]:
    """The other texts that stand in `iss` of this issuer's tokens."""
    return tuple(re.sub(pattern, form, issuer) for pattern, form in preset.aliases if re.fullmatch(pattern, issuer))


def expand_audiences(paths: Paths, audiences: tuple[str, ...]) -> Paths:
    """Paths in which `{audience}` stands, once for each audience."""
    return tuple(
        tuple(audience if name == AUDIENCE else name for name in path)
        for path in paths
        for audience in (audiences if AUDIENCE in path else ("",))
    )
