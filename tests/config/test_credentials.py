from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from narthex.config.compile import Examined, examine
from narthex.types import (
    Authority,
    BasicCredential,
    CertificateCredential,
    EnvCredential,
    HeaderCredential,
    QueryCredential,
    SecretName,
    SecretText,
    TokenCredential,
    Use,
    Who,
)

HTTP = "url: https://mcp.example.com/mcp"
STDIO = "command: python3"


def looked_at(tmp_path: Path, credentials: str, server: str) -> Examined:
    path = tmp_path / "narthex.yaml"
    path.write_text(f"version: 1\ncredentials:\n  {credentials}\nservers:\n  one: {{{server}}}\n")
    return examine(path, env={"PATH": "/usr/bin:/bin", "FROM_ENV": "PLANTED"})


def secret(name: str) -> SecretText:
    return SecretText((SecretName(name),))


CLIENT = "client_id: gateway, client_secret: '${secret:c}', issuer: 'https://as.example.com'"
AUTHORITY = Authority("gateway", "client_secret_basic", issuer="https://as.example.com", client_secret=secret("c"))
KINDS = [
    pytest.param(
        "kind: header, name: Authorization, value: 'Bearer ${secret:s}'",
        HTTP,
        HeaderCredential("a", "Authorization", SecretText(("Bearer ", SecretName("s")))),
        id="header",
    ),
    pytest.param(
        "kind: basic, username: gateway, password: '${secret:s}'",
        HTTP,
        BasicCredential("a", SecretText(("gateway",)), secret("s")),
        id="basic",
    ),
    pytest.param(
        "kind: query, name: api_key, value: '${secret:s}'",
        HTTP,
        QueryCredential("a", "api_key", secret("s")),
        id="query",
    ),
    pytest.param("kind: env, env: {T: '${secret:s}'}", STDIO, EnvCredential("a", (("T", secret("s")),)), id="env"),
    pytest.param(
        "kind: client_certificate, certificate: '${secret:c}', private_key: '${secret:k}'",
        HTTP,
        CertificateCredential("a", secret("c"), secret("k")),
        id="certificate",
    ),
    pytest.param(
        f"kind: client_credentials, {CLIENT}, scopes: [a, b], step_up: [c], audience: api",
        HTTP,
        TokenCredential("a", "client_credentials", AUTHORITY, scopes=("a", "b"), step_up=("c",), audience="api"),
        id="client credentials",
    ),
    pytest.param(
        "kind: client_credentials, client_id: g, private_key: '${secret:k}', key_id: _bldr-1, algorithm: PS256,"
        " token_endpoint: 'https://as.example.com/token', resource: none",
        HTTP,
        TokenCredential(
            "a",
            "client_credentials",
            Authority(
                "g",
                "private_key_jwt",
                token_endpoint="https://as.example.com/token",
                private_key=secret("k"),
                key_id="_bldr-1",
                algorithm="PS256",
            ),  # fmt: skip
            resource="",
        ),
        id="a key in place of a secret",
    ),
    pytest.param(
        "kind: jwt_bearer, client_id: g, assertion: '${secret:j}', issuer: 'https://as.example.com'",
        HTTP,
        TokenCredential("a", "jwt_bearer", Authority("g", "none", "https://as.example.com"), subject=secret("j")),
        id="a workload's assertion",
    ),
    pytest.param(
        f"kind: token_exchange, {CLIENT}, requested_token_type: jwt",
        HTTP,
        TokenCredential("a", "token_exchange", AUTHORITY, wanted_type="jwt"),
        id="exchange of the caller's token",
    ),
    pytest.param(
        f"kind: on_behalf_of, {CLIENT}, scopes: ['api://x/.default']",
        HTTP,
        TokenCredential("a", "on_behalf_of", AUTHORITY, scopes=("api://x/.default",), resource=""),
        id="on behalf of: no resource",
    ),
    pytest.param(
        f"kind: id_jag, {CLIENT}, subject_token: '${{secret:t}}', subject_token_type: id_token,"
        " idp: {issuer: 'https://idp.example.com', client_id: at-idp}",
        HTTP,
        TokenCredential(
            "a",
            "id_jag",
            AUTHORITY,
            subject=secret("t"),
            subject_type="id_token",
            idp=Authority("at-idp", "none", "https://idp.example.com"),
        ),  # fmt: skip
        id="ID-JAG",
    ),
]


@pytest.mark.parametrize(("written", "server", "meant"), KINDS)
def test_every_kind(tmp_path: Path, written: str, server: str, meant: Any) -> None:
    found = looked_at(tmp_path, f"a: {{{written}}}", f"{server}, credential: a")
    assert not found.problems and found.snapshot is not None
    assert found.snapshot.servers["one"].accounts == (Use(Who(), meant),)
    assert "PLANTED" not in repr(found.snapshot)


BAD = [
    ("a: {}", "'kind' is missing"),
    ("a: {kind: heder}", "did you mean 'header'"),
    ("a: {kind: header, name: X}", "kind header needs 'value'"),
    ("a: {kind: header, name: X, value: y, password: z}", "password: does not go with kind header"),
    ("a: {kind: header, name: 'X Y', value: y}", "name: "),
    ("a: {kind: env, env: {}}", "needs 'env'"),
    ("a: {kind: client_credentials, issuer: 'https://x.example.com'}", "needs 'client_id'"),
    ("a: {kind: client_credentials, client_id: g, client_secret: x, private_key: y}", "not both"),
    ("a: {kind: client_credentials, client_id: g, client_auth: private_key_jwt}", "needs 'private_key'"),
    ("a: {kind: client_credentials, client_id: g, client_auth: none, client_secret: x}", "takes no 'client_secret'"),
    ("a: {kind: token_exchange, client_id: g}", "to whom callers' tokens may be shown"),
    ("a: {kind: on_behalf_of, client_id: g, issuer: 'https://x.example.com'}", "needs 'scopes'"),
    ("a: {kind: id_jag, client_id: g, idp: {client_id: h}}", "idp: 'issuer' is missing"),
    ("a: {kind: id_jag, client_id: g, idp: {issuer: 'https://x.example.com'}}", "'client_id' is missing"),
    ("a: {kind: header, name: X, value: '${secret:a b}'}", "is not the name of a secret"),
    ("none: {kind: header, name: X, value: y}", "no name for a credential"),
    ("a: {kind: header, name: X, value: '${secret:s}', with_certificate: b}", "with_certificate: no credential 'b'"),
    ("a: {kind: header, name: X, value: '${secret:s}', with_certificate: a}", "'a' is no client_certificate"),
    ("a: {kind: env, env: {A: '${secret:s}'}, with_certificate: a}", "does not go with kind env"),
    ("a: {kind: header, name: X, valeu: y}", "unknown key 'valeu'; did you mean 'value'?"),
]


@pytest.mark.parametrize(("written", "said"), BAD, ids=[said for _, said in BAD])
def test_what_is_wrong_is_said_at_its_place(tmp_path: Path, written: str, said: str) -> None:
    found = looked_at(tmp_path, written, HTTP)
    assert any(said in problem.text for problem in found.problems), [str(one) for one in found.problems]
    assert all(problem.mark is not None and problem.mark.line == 3 for problem in found.problems)


HEADER = "a: {kind: header, name: X-Key, value: '${secret:s}'}"
ENV = "a: {kind: env, env: {T: '${secret:s}'}}"
EXCHANGE = f"a: {{kind: token_exchange, {CLIENT}}}"
CERTIFICATE = "a: {kind: client_certificate, certificate: '${secret:c}', private_key: '${secret:k}'}"
MISUSED = [
    (HEADER, f"{HTTP}, credential: b", "no credential 'b'; "),
    (HEADER, f"{HTTP}, credential: [{{who: {{}}}}]", "'use' is missing"),
    (HEADER, f"{HTTP}, credential: [{{who: {{rolle: x}}, use: a}}]", "unknown key 'rolle'; did you mean 'role'?"),
    (HEADER, f"{HTTP}, credential: [{{who: {{role: []}}, use: a}}]", "an empty list fits nobody"),
    (HEADER, f"{HTTP}, credential: {{a: b}}", "wants the name of a credential, or a list"),
    (HEADER, f"{HTTP}, headers: {{x-key: y}}, credential: a", "the header X-Key stands in `headers`"),
    (HEADER, f"{STDIO}, credential: a", "is for servers over HTTP"),
    (ENV, f"{HTTP}, credential: a", "is for programs"),
    (ENV, f"{STDIO}, env: {{T: x}}, credential: a", "T stands in `env` of the server"),
    (EXCHANGE, f"{HTTP}, sharing: tenant, credential: a", "`sharing` must be principal or session"),
    (CERTIFICATE, "url: http://127.0.0.1:1/mcp, credential: a", "is a certificate of TLS"),
]


@pytest.mark.parametrize(("credentials", "server", "said"), MISUSED, ids=[said for _, _, said in MISUSED])
def test_what_does_not_fit_a_server(tmp_path: Path, credentials: str, server: str, said: str) -> None:
    found = looked_at(tmp_path, credentials, server)
    assert [said in problem.text for problem in found.problems] == [True], [str(one) for one in found.problems]
    assert found.problems[0].mark is not None and found.problems[0].mark.line == 5


@pytest.mark.parametrize(("scheme", "good"), [("https", True), ("http", False)])
def test_a_certificate_beside_another_credential_needs_tls(tmp_path: Path, scheme: str, good: bool) -> None:
    beside = "b: {kind: header, name: X-Key, value: '${secret:s}', with_certificate: a}"
    found = looked_at(tmp_path, f"{CERTIFICATE}\n  {beside}", f"url: {scheme}://127.0.0.1:1/mcp, credential: b")
    assert [problem.text for problem in found.problems] == (
        [] if good else ["credential 'b' is a certificate of TLS, and the URL of 'one' is http"]
    )
    if found.snapshot is not None:
        ((used,),) = (one.accounts for one in found.snapshot.servers.values())
        assert used.credential == HeaderCredential(
            "b", "X-Key", secret("s"), CertificateCredential("a", secret("c"), secret("k"))
        )


WARNED = [
    ("a: {kind: header, name: X, value: literal}", HTTP, "a secret stands in this file"),
    ("a: {kind: env, env: {T: literal}}", STDIO, "narthex secrets set a-t"),
    ("a: {kind: query, name: key, value: '${secret:s}'}", HTTP, "stands in addresses"),
    ("a: {kind: client_credentials, client_id: g, client_secret: '${secret:s}'}", HTTP, "that the server names first"),
    (HEADER, "url: http://mcp.example.com/mcp", "travels unencrypted"),
]


@pytest.mark.parametrize(("credentials", "server", "said"), WARNED, ids=[said for _, _, said in WARNED])
def test_what_is_worth_a_warning(tmp_path: Path, credentials: str, server: str, said: str) -> None:
    found = looked_at(tmp_path, credentials, f"{server}, credential: a")
    assert not found.problems
    assert sum(said in warning.text for warning in found.warnings) == 1, [str(one) for one in found.warnings]
    assert not any("literal" in warning.text for warning in found.warnings)


def test_a_value_of_the_environment_is_no_secret_in_the_file(tmp_path: Path) -> None:
    found = looked_at(tmp_path, "a: {kind: header, name: X, value: '${FROM_ENV}'}", f"{HTTP}, credential: a")
    assert not any("stands in this file" in warning.text for warning in found.warnings)
    assert "PLANTED" not in repr(found)


def test_a_table_of_who_uses_what(tmp_path: Path) -> None:
    table = "[{who: {role: [support, oncall], tenant: acme}, use: a}, {who: {subject: bob}, use: none}, {use: a}]"
    found = looked_at(tmp_path, HEADER, f"{HTTP}, credential: {table}")
    assert not found.problems and found.snapshot is not None
    rows = found.snapshot.servers["one"].accounts
    assert [row.who for row in rows] == [
        Who(role=("support", "oncall"), tenant=("acme",)), Who(subject=("bob",)), Who()
    ]  # fmt: skip
    assert [row.credential is None for row in rows] == [False, True, False]


def test_rows_that_count_for_nobody_are_told(tmp_path: Path) -> None:
    found = looked_at(tmp_path, HEADER, f"{HTTP}, credential: [{{use: a}}, {{who: {{role: x}}, use: none}}]")
    assert any("count for nobody" in warning.text for warning in found.warnings)
    assert found.snapshot is not None and len(found.snapshot.servers["one"].accounts) == 1


def test_programs_that_accounts_tell_apart_are_not_shared(tmp_path: Path) -> None:
    one = looked_at(tmp_path, ENV, f"{STDIO}, credential: a").snapshot
    two = looked_at(tmp_path, ENV, f"{STDIO}, credential: [{{who: {{role: x}}, use: a}}, {{use: none}}]").snapshot
    assert one is not None and two is not None
    assert (one.servers["one"].sharing, two.servers["one"].sharing) == ("tenant", "principal")


def test_a_credential_that_nobody_is_shown_is_told(tmp_path: Path) -> None:
    assert any("is shown to no server" in one.text for one in looked_at(tmp_path, HEADER, HTTP).warnings)


EXCHANGING = """\
version: 1
identity:
  issuers:
    corp: {{preset: {preset}, issuer: "{issuer}", audiences: [gateway]{more}}}
credentials:
  a: {{kind: exchange, issuer: "{asked}", client_id: g, client_secret: "${{secret:c}}"{scopes}}}
servers:
  one: {{url: "https://mcp.example.com/mcp", credential: a}}
"""
ENTRA = "https://login.microsoftonline.com/t1/v2.0"


@pytest.mark.parametrize(
    ("preset", "issuer", "more", "asked", "scopes", "grant", "resource"),
    [
        pytest.param(
            "keycloak", "https://sso/realms/x", "", "https://sso/realms/x", "", "token_exchange", "", id="keycloak"
        ),
        pytest.param("generic", "https://as", "", "https://as", "", "token_exchange", "server", id="any of RFC 8693"),
        pytest.param("entra", ENTRA, "", ENTRA, ", scopes: [s]", "on_behalf_of", "", id="entra"),
        pytest.param(
            "entra", ENTRA.replace("t1", "{tid}"), ", tenants: [t0, t1]", ENTRA, ", scopes: [s]", "on_behalf_of", "",
            id="one of entra's tenants",
        ),
        pytest.param(
            "generic", "https://as", "", "https://as", ", resource: 'https://r'", "token_exchange", "https://r",
            id="what is written counts",
        ),
    ],
)  # fmt: skip
def test_a_token_is_exchanged_as_its_issuer_likes(
    tmp_path: Path, preset: str, issuer: str, more: str, asked: str, scopes: str, grant: str, resource: str
) -> None:
    path = tmp_path / "narthex.yaml"
    path.write_text(EXCHANGING.format(preset=preset, issuer=issuer, more=more, asked=asked, scopes=scopes))
    found = examine(path, env={})
    assert found.snapshot is not None, [str(one) for one in found.problems]
    ((used,),) = (one.accounts for one in found.snapshot.servers.values())
    assert isinstance(used.credential, TokenCredential)
    assert (used.credential.grant, used.credential.resource) == (grant, resource)


@pytest.mark.parametrize(
    ("preset", "issuer", "asked", "said"),
    [
        pytest.param("auth0", "https://a/", "https://a/", "auth0 gives no token", id="auth0"),
        pytest.param("generic", "https://as", "https://other", "one of `identity.issuers`", id="nobody's issuer"),
        pytest.param("entra", ENTRA, ENTRA, "needs 'scopes'", id="entra without scopes"),
    ],
)
def test_a_token_that_cannot_be_exchanged(tmp_path: Path, preset: str, issuer: str, asked: str, said: str) -> None:
    path = tmp_path / "narthex.yaml"
    path.write_text(EXCHANGING.format(preset=preset, issuer=issuer, more="", asked=asked, scopes=""))
    assert [said in one.text for one in examine(path, env={}).problems] == [True]
