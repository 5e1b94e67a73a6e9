"""The `identity:` section to an `IdentitySpec`: what the presets know, and checks across keys.

In: settings, and the `Reading` that gathers faults. Out: the spec. Nothing is fetched.
Cases: `tests/config/test_identity.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from narthex.authority.addresses import Allowed
from narthex.config.document import Path, Reading
from narthex.config.schema.identity import CertificateSettings, IdentitySettings, IntrospectionSettings, IssuerSettings
from narthex.config.urls import check_https
from narthex.flow.identity.presets import PRESETS, Preset, aliases_of, expand_audiences
from narthex.flow.identity.tokens import TID
from narthex.types import (
    CertificateRules,
    ClaimPath,
    ClaimRules,
    DirectorySpec,
    IdentitySpec,
    Introspection,
    IssuerSpec,
)

HERE: Path = ("identity",)


class IdentityCompiler:
    """Compiles one section.

    Args:
        allowed: Hosts that may be spoken to without TLS.
        file: Checks and resolves a file that a setting names.
        kept: Claims that limits count by.
    """

    def __init__(
        self,
        reading: Reading,
        allowed: Allowed,
        file: Callable[[str, Path], str],
        kept: tuple[tuple[str, ClaimPath], ...] = (),
    ) -> None:
        self._reading = reading
        self._allowed = allowed
        self._file = file
        self._kept = kept

    def compile(self, settings: IdentitySettings | None) -> IdentitySpec | None:
        if settings is None:
            return None
        if not (settings.api_keys or settings.issuers or settings.certificates):
            self._fault(HERE, "nobody could call: write `api_keys: true`, `issuers` or `certificates`")
        issuers = {name: self._issuer(name, one) for name, one in settings.issuers.items()}
        self._apart(issuers.values())
        return IdentitySpec(
            api_keys=settings.api_keys,
            issuers=issuers,
            certificates=self._certificates(settings.certificates),
            scope_includes=settings.scope_includes,
            admin_role=settings.admin_role,
        )

    def _fault(self, path: Path, text: str) -> None:
        self._reading.fault(path, f"{'.'.join(path)}: {text}")

    def _issuer(self, name: str, one: IssuerSettings) -> IssuerSpec:
        here: Path = (*HERE, "issuers", name)
        preset = PRESETS.get(one.preset, PRESETS["generic"])
        issuer = one.issuer or ""
        if not issuer:
            self._fault(here, "'issuer' is missing")
        elif not re.fullmatch(preset.issuer, issuer):
            self._fault((*here, "issuer"), f"an issuer of the preset {preset.name} looks like {preset.example}")
        for key in ("issuer", "metadata_url", "jwks_url"):
            self._check_url((*here, key), getattr(one, key) or "")
        self._check_tenants(here, one, issuer)
        self._check_sources(here, one, preset)
        if preset.needs_subjects and not one.subjects:
            self._fault(here, f'{preset.name} gives tokens to all that it runs: write `subjects` ("*" for everybody)')
        if preset.resource == "rejected" and not one.audiences:
            self._fault(here, "tokens of this issuer never name the gateway's URL: write `audiences`")
        typ = preset.typ if one.typ is None else tuple("" if each == "none" else each.lower() for each in one.typ)
        return IssuerSpec(
            name=name,
            preset=preset.name,
            issuer=issuer,
            claims=claim_rules(one, preset, self._kept),
            aliases=one.aliases or aliases_of(preset, issuer),
            tenants=one.tenants,
            audiences=one.audiences,
            algorithms=one.algorithms or preset.algorithms,
            typ=typ,
            metadata_url=one.metadata_url or "",
            jwks_url=one.jwks_url or "",
            jwks_file=self._file(one.jwks_file, (*here, "jwks_file")) if one.jwks_file else "",
            token=one.token.text if one.token is not None else None,
            introspection=self._introspection(here, one.introspection),
            directory=self._directory(here, one, preset),
        )

    def _check_url(self, path: Path, url: str) -> None:
        check_https(path, url.replace(TID, "tid"), self._allowed, self._reading)

    def _check_tenants(self, here: Path, one: IssuerSettings, issuer: str) -> None:
        if TID in issuer and not one.tenants:
            self._fault(here, f"with {TID} in the issuer `tenants` says which are let in: otherwise all the world is")
        if one.tenants and TID not in issuer:
            self._fault((*here, "tenants"), f"goes with {TID} in the issuer")

    def _check_sources(self, here: Path, one: IssuerSettings, preset: Preset) -> None:
        if one.jwks_url and one.jwks_file:
            self._fault((*here, "jwks_file"), "beside `jwks_url`; keep one")
        if preset.discovery == "none" and not (one.jwks_url or one.jwks_file):
            self._fault(here, f"{preset.name} has no metadata: write `jwks_url` or `jwks_file` (the trust bundle)")

    def _introspection(self, here: Path, settings: IntrospectionSettings | None) -> Introspection | None:
        if settings is None:
            return None
        path: Path = (*here, "introspection")
        self._check_url((*path, "url"), settings.url or "")
        client_id = settings.client_id.value if settings.client_id else ""
        if settings.client_secret is not None and not client_id:
            self._fault((*path, "client_secret"), "goes with `client_id`")
        secret = settings.client_secret.text if settings.client_secret is not None else None
        return Introspection(
            url=settings.url or "", client_id=client_id, client_secret=secret, auth=settings.auth, use=settings.use,
            audience=settings.audience, prefix=settings.prefix or "", ttl_s=settings.ttl,
        )  # fmt: skip

    def _directory(self, here: Path, one: IssuerSettings, preset: Preset) -> DirectorySpec | None:
        settings, path = one.directory, (*here, "directory")
        if settings is None:
            return None
        self._check_url((*path, "url"), settings.url)
        if preset.name != "entra" or TID in (one.issuer or ""):
            self._fault(path, "goes with the preset entra, and one tenant")
        for key in ("client_id", "client_secret"):
            if getattr(settings, key) is None and (*path, key) not in self._reading.marks:
                self._fault(path, f"'{key}' is missing")
        if settings.client_id is None or settings.client_secret is None:
            return None
        return DirectorySpec(settings.url.rstrip("/"), settings.client_id.value, settings.client_secret.text)

    def _apart(self, issuers: Iterable[IssuerSpec]) -> None:
        """A token leads to one issuer."""
        seen: dict[str, str] = {}
        asked: dict[str, str] = {}
        for one in issuers:
            here: Path = (*HERE, "issuers", one.name)
            for text in dict.fromkeys((one.issuer, *one.aliases)):
                if text and text in seen:
                    self._fault(here, f"has the same `iss` as '{seen[text]}'")
                seen[text] = one.name
            if one.introspection is None:
                continue
            before = asked.setdefault(one.introspection.prefix, one.name)
            if before != one.name:
                text = f"opaque tokens are shown to '{before}' too, which is asked first; `prefix` tells them apart"
                self._reading.warn((*here, "introspection"), f"{'.'.join(here)}: {text}")

    def _certificates(self, settings: CertificateSettings | None) -> CertificateRules | None:
        if settings is None:
            return None
        if not settings.subjects:
            self._fault((*HERE, "certificates"), "`subjects` says whose certificate lets in; there are none")
        return CertificateRules(settings.subjects, settings.xfcc, settings.tenant)


def claim_rules(one: IssuerSettings, preset: Preset, kept: tuple[tuple[str, ClaimPath], ...] = ()) -> ClaimRules:
    """Where this issuer's tokens say what: the operator's words, else the preset's."""
    said = one.claims
    tenant = said.tenant or (preset.tenant_claim if one.tenant_map else ())
    roles = preset.roles if said.roles is None else said.roles
    return ClaimRules(
        subject=preset.subject if said.subject is None else said.subject,
        client=preset.client if said.client is None else said.client,
        scopes=preset.scopes if said.scopes is None else said.scopes,
        roles=expand_audiences(roles, one.audiences),
        groups=preset.groups if said.groups is None else said.groups,
        tenant=one.tenant,
        tenant_claim=tenant,
        tenant_map=one.tenant_map,
        role_prefix=one.role_prefix or "",
        role_map=one.role_map,
        group_map=one.group_map,
        subject_map=one.subject_map,
        subjects=one.subjects,
        scope_prefix=one.scope_prefix or "",
        overage=one.overage,
        preset=preset.name,
        kept=kept,
    )
