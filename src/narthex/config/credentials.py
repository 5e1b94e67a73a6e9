"""`credentials:` and each server's table of them to `Credential` and `Use`: which keys go together, what is worth a
warning. No secret is looked up.

In: settings, the places of the file. Out: specs, faults. Cases: `tests/config/test_credentials.py`.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping

import msgspec

from narthex.authority.mapping import shown_beside
from narthex.config import values
from narthex.config.document import Path as KeyPath
from narthex.config.document import Reading, suggest
from narthex.config.expand import Expanded
from narthex.config.grants import compile_who
from narthex.config.schema.credentials import CredentialSettings, IdpSettings, UseSettings
from narthex.config.schema.identity import IssuerSettings
from narthex.flow.identity.presets import PRESETS
from narthex.flow.identity.tokens import TID
from narthex.types import (
    Authority,
    BasicCredential,
    CertificateCredential,
    ClientAuth,
    Credential,
    EnvCredential,
    HeaderCredential,
    HttpTarget,
    QueryCredential,
    SecretText,
    ServerSpec,
    TokenCredential,
    Use,
    Who,
)

NOTHING = "none"
CLIENT = ("issuer", "token_endpoint", "client_id", "client_auth", "client_secret", "private_key", "key_id", "algorithm")
ASKED = ("scopes", "step_up", "resource", "audience")
SUBJECT = ("subject_token", "subject_token_type")
NEEDS: Mapping[str, tuple[str, ...]] = {
    "header": ("name", "value"),
    "basic": ("username", "password"),
    "query": ("name", "value"),
    "env": ("env",),
    "client_certificate": ("certificate", "private_key"),
    "client_credentials": ("client_id",),
    "jwt_bearer": ("client_id", "assertion"),
    "exchange": ("client_id", "issuer"),
    "token_exchange": ("client_id",),
    "on_behalf_of": ("client_id", "scopes"),
    "id_jag": ("client_id", "idp"),
}
BESIDE = "with_certificate"
MAY: Mapping[str, tuple[str, ...]] = {
    "header": (BESIDE,),
    "basic": (BESIDE,),
    "query": (BESIDE,),
    "client_credentials": (*CLIENT, *ASKED, BESIDE),
    "jwt_bearer": (*CLIENT, *ASKED, BESIDE),
    "exchange": (*CLIENT, *ASKED, BESIDE),
    "token_exchange": (*CLIENT, *ASKED, *SUBJECT, "requested_token_type", BESIDE),
    "on_behalf_of": (*CLIENT, *ASKED, BESIDE),
    "id_jag": (*CLIENT, *ASKED, *SUBJECT, BESIDE),
}
SECRET = ("value", "password", "client_secret", "private_key", "subject_token", "assertion")
EXCHANGED_BY = {"rfc8693": "token_exchange", "entra_obo": "on_behalf_of", "none": ""}
EMPTY = SecretText(())


def compile_credentials(
    settings: Mapping[str, CredentialSettings], issuers: Mapping[str, IssuerSettings], reading: Reading
) -> dict[str, Credential]:
    """Every credential that can be used; the others have a fault.

    Args:
        issuers: Those of `identity`: what is known of them says how a caller's token is exchanged there.
    """
    found = {}
    for name, one in settings.items():
        at: KeyPath = ("credentials", name)
        if name == NOTHING:
            reading.fault(at, f"'{NOTHING}' is no name for a credential: `use: {NOTHING}` shows nothing")
        if one.kind == "exchange":
            one = _as_the_issuer_likes(one, issuers.values(), at, reading)
        credential = _credential(name, one, at, reading) if one.kind != "exchange" else None
        if credential is not None:
            found[name] = credential
    return {name: _with_certificate(one, settings[name], found, settings, reading) for name, one in found.items()}


def _as_the_issuer_likes(
    one: CredentialSettings, issuers: Iterable[IssuerSettings], at: KeyPath, reading: Reading
) -> CredentialSettings:
    """`kind: exchange` as the kind that its issuer knows, and whether that wants a `resource`."""
    if one.issuer is None:
        if (*at, "issuer") not in reading.marks:
            reading.fault(at, f"credential '{at[-1]}': kind exchange needs 'issuer'")
        return one
    text = one.issuer.value
    preset = next((PRESETS[each.preset] for each in issuers if text in _issuers_of(each)), None)
    if preset is None:
        reading.fault(
            (*at, "issuer"), "issuer: kind exchange needs one of `identity.issuers`, whose tokens are exchanged"
        )
        return one
    kind = EXCHANGED_BY[preset.exchange]
    if not kind:
        reading.fault((*at, "issuer"), f"issuer: {preset.name} gives no token for a caller's")
        return one
    resource = one.resource or ("server" if preset.resource == "audience" else "none")
    return msgspec.structs.replace(one, kind=kind, resource=resource)


def _issuers_of(one: IssuerSettings) -> tuple[str, ...]:
    """An issuer's name; where a tenant stands in it, that of each tenant."""
    issuer = one.issuer or ""
    return tuple(issuer.replace(TID, tid) for tid in one.tenants) if TID in issuer else (issuer,)


def _with_certificate(
    credential: Credential,
    one: CredentialSettings,
    found: Mapping[str, Credential],
    known: Container[str],
    reading: Reading,
) -> Credential:
    """The credential, with the certificate that is shown beside it."""
    name = one.with_certificate
    if name is None or isinstance(credential, (CertificateCredential, EnvCredential)):
        return credential
    certificate = found.get(name)
    if isinstance(certificate, CertificateCredential):
        return msgspec.structs.replace(credential, certificate=certificate)
    if certificate is not None:
        reading.fault(("credentials", credential.name, BESIDE), f"{BESIDE}: '{name}' is no client_certificate")
    elif name not in known:
        reading.fault(
            ("credentials", credential.name, BESIDE), f"{BESIDE}: no credential '{name}'{suggest(name, found)}"
        )
    return credential


def compile_table(
    rows: tuple[UseSettings, ...],
    server: ServerSpec,
    credentials: Mapping[str, Credential],
    known: Container[str],
    reading: Reading,
) -> tuple[Use, ...]:
    """The table of one server.

    Args:
        known: The names that stand in the file, those with a fault too.
    """
    at: KeyPath = ("servers", server.name, "credential")
    table = []
    for number, row in enumerate(rows):
        here = (*at, str(number)) if (*at, str(number)) in reading.marks else at
        if row.use is None:
            reading.fault(here, "'use' is missing: the name of a credential, or none")
            continue
        credential = credentials.get(row.use)
        if credential is None and row.use != NOTHING:
            if row.use not in known:
                reading.fault(here, f"no credential '{row.use}'{suggest(row.use, credentials)}")
            continue
        if credential is not None:
            _check_server(credential, server, here, reading)
        table.append(Use(compile_who(row.who, here, reading), credential))
        if table[-1].who == Who() and number + 1 < len(rows):
            reading.warn(here, "the rows behind this one count for nobody: it fits everybody")
            break
    return tuple(table)


def _check_server(credential: Credential, server: ServerSpec, at: KeyPath, reading: Reading) -> None:
    """Can this server be shown that?"""
    name, target = credential.name, server.target
    if not isinstance(target, HttpTarget):
        if not isinstance(credential, EnvCredential):
            reading.fault(at, f"credential '{name}' is for servers over HTTP; a program gets one of kind `env`")
        elif twice := [key for key, _ in credential.variables if key in dict(target.env)]:
            reading.fault(at, f"{twice[0]} stands in `env` of the server, and in credential '{name}'")
        return
    if isinstance(credential, EnvCredential):
        reading.fault(at, f"credential '{name}' is for programs (`command`), not for a server over HTTP")
    if isinstance(credential, TokenCredential) and credential.of_caller and server.sharing == "tenant":
        reading.fault(at, f"credential '{name}' is made of the caller's token: `sharing` must be principal or session")
    header = credential.header if isinstance(credential, HeaderCredential) else "Authorization"
    sends = not isinstance(credential, (QueryCredential, CertificateCredential, EnvCredential))
    if sends and any(key.lower() == header.lower() for key, _ in target.headers):
        reading.fault(at, f"the header {header} stands in `headers` of the server, and comes of credential '{name}'")
    if target.scheme == "http" and not values.is_loopback(target.host):
        reading.warn(at, f"credential '{name}' travels unencrypted: the URL of '{server.name}' is http")
    by_tls = isinstance(credential, CertificateCredential) or shown_beside(credential) is not None
    if target.scheme == "http" and by_tls:
        reading.fault(at, f"credential '{name}' is a certificate of TLS, and the URL of '{server.name}' is http")


def _credential(name: str, one: CredentialSettings, at: KeyPath, reading: Reading) -> Credential | None:
    kind = one.kind
    if kind is None:
        if (*at, "kind") not in reading.marks:
            reading.fault(at, f"credential '{name}': 'kind' is missing")
        return None
    written = {path[-1] for path in reading.marks if path[:-1] == at}
    whole = True
    for key in NEEDS[kind]:
        if key not in written or getattr(one, key) == {}:
            reading.fault(at, f"credential '{name}': kind {kind} needs '{key}'")
            whole = False
        elif getattr(one, key) is None:
            whole = False  # its own fault is told
    for key in sorted(written & set(CredentialSettings.__struct_fields__) - {"kind", *NEEDS[kind], *MAY.get(kind, ())}):
        reading.fault((*at, key), f"{key}: does not go with kind {kind}")
    _warn_of_secrets(one, at, reading)
    if not whole:
        return None
    match kind:
        case "header":
            return HeaderCredential(name, one.name or "", _text(one.value))
        case "basic":
            return BasicCredential(name, _text(one.username), _text(one.password))
        case "query":
            reading.warn((*at, "kind"), f"credential '{name}' stands in addresses, which servers and proxies log")
            return QueryCredential(name, one.name or "", _text(one.value))
        case "env":
            return EnvCredential(name, tuple((key, _text(value)) for key, value in one.env.items()))
        case "client_certificate":
            return CertificateCredential(name, _text(one.certificate), _text(one.private_key))
    return _token(name, one, kind, at, reading)


def _token(name: str, one: CredentialSettings, kind: str, at: KeyPath, reading: Reading) -> TokenCredential | None:
    authority = _authority(one, at, reading)
    idp = _authority(one.idp, (*at, "idp"), reading) if one.idp is not None else None
    known = bool(authority.issuer or authority.token_endpoint)
    if not known and kind in ("token_exchange", "on_behalf_of"):
        reading.fault(at, f"credential '{name}': say by `issuer` to whom callers' tokens may be shown")
    elif not known and (authority.client_secret is not None or kind == "jwt_bearer"):
        text = "goes to the authorization server that the server names first; `issuer` would say which one that is"
        reading.warn(at, f"credential '{name}': its secret {text}")
    if idp is not None and not (idp.issuer or idp.token_endpoint):
        reading.fault((*at, "idp"), "idp: 'issuer' is missing")
    resource = one.resource or ("none" if kind == "on_behalf_of" else "server")
    subject = one.assertion if kind == "jwt_bearer" else one.subject_token
    return TokenCredential(
        name,
        kind,  # type: ignore[arg-type]
        authority,
        scopes=one.scopes,
        step_up=one.step_up,
        resource="" if resource == "none" else resource,
        audience=one.audience.value if one.audience else "",
        subject=subject.text if subject is not None else None,
        subject_type=one.subject_token_type,
        wanted_type=one.requested_token_type or "",
        idp=idp,
    )


def _authority(one: IdpSettings, at: KeyPath, reading: Reading) -> Authority:
    if one.client_id is None:
        reading.fault(at, f"{at[-1]}: 'client_id' is missing")
    if one.client_secret is not None and one.private_key is not None:
        reading.fault((*at, "private_key"), "either `client_secret` or `private_key`, not both")
    given: ClientAuth = "client_secret_basic" if one.client_secret else "private_key_jwt" if one.private_key else "none"
    auth = one.client_auth or given
    needed = {"private_key_jwt": "private_key", "none": ""}.get(auth, "client_secret")
    for key in ("client_secret", "private_key"):
        given_too = getattr(one, key) is not None
        if (key == needed) != given_too:
            wants = "takes no" if given_too else "needs"
            reading.fault((*at, "client_auth"), f"client_auth {auth} {wants} '{key}'")
    return Authority(
        one.client_id.value if one.client_id else "",
        auth,
        issuer=one.issuer.value if one.issuer else "",
        token_endpoint=one.token_endpoint.value if one.token_endpoint else "",
        client_secret=_text(one.client_secret) if one.client_secret else None,
        private_key=_text(one.private_key) if one.private_key else None,
        key_id=one.key_id or "",
        algorithm=one.algorithm or "",
    )


def _text(value: Expanded | None) -> SecretText:
    return value.text if value is not None else EMPTY


def _warn_of_secrets(one: CredentialSettings, at: KeyPath, reading: Reading) -> None:
    """A secret that stands in the file itself is read by everybody who reads the file."""
    places = [((*at, key), getattr(one, key)) for key in SECRET]
    places += [((*at, "env", key), value) for key, value in one.env.items()]
    if one.idp is not None:
        places += [((*at, "idp", key), getattr(one.idp, key)) for key in ("client_secret", "private_key")]
    for path, value in places:
        if value is not None and "${" not in value.written:
            name = f"{at[1]}-{path[-1]}".lower().replace("_", "-")
            reading.warn(
                path, f"{path[-1]}: a secret stands in this file; keep it with `narthex secrets set {name}`"
                f" and write ${{secret:{name}}}"
            )  # fmt: skip
