"""`identity:` in a file: what the presets add, and every fault with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from narthex.config.compile import examine
from narthex.types import IdentitySpec, SecretName, SecretText, Snapshot

SERVERS = "servers: {one: {command: python3}}\n"


def written(folder: Path, identity: str, more: str = "") -> Path:
    path = folder / "narthex.yaml"
    path.write_text(f"version: 1\n{SERVERS}{more}identity: {identity}\n")
    return path


def compiled(folder: Path, identity: str, more: str = "") -> Snapshot:
    examined = examine(written(folder, identity, more), env={})
    assert examined.snapshot is not None, [str(problem) for problem in examined.problems]
    return examined.snapshot


def identity(folder: Path, text: str, more: str = "") -> IdentitySpec:
    found = compiled(folder, text, more).identity
    assert found is not None
    return found


def issuer(text: str) -> str:
    return "{issuers: {corp: {" + text + "}}}"


KEYCLOAK = 'preset: keycloak, issuer: "https://sso.example.com/realms/corp", audiences: [gateway]'
ENTRA = 'preset: entra, issuer: "https://login.microsoftonline.com/{tid}/v2.0"'


def test_none_is_none(tmp_path: Path) -> None:
    assert compiled(tmp_path, "null").identity is None


def test_a_preset_says_where_things_stand(tmp_path: Path) -> None:
    one = identity(tmp_path, issuer(KEYCLOAK)).issuers["corp"]
    assert one.claims.roles == (("realm_access", "roles"), ("resource_access", "gateway", "roles"))
    assert one.claims.role_map == {} and one.claims.role_prefix == "", "and gives no role"
    assert one.algorithms == ("RS256", "ES256", "PS256", "EdDSA")


def test_the_operators_words_replace_the_presets(tmp_path: Path) -> None:
    text = KEYCLOAK + (
        ", claims: {subject: email, roles: [a.b, 'https://ex.am/ple', 'x\\.y.z'], tenant: org}, algorithms: [ES256]"
        ", role_map: {gw: support, boss: [a, b]}, group_map: {/ops: admin}, subject_map: {'svc-*': robot}"
        ", tenant_map: {'1': acme}, typ: [at+JWT, none]"
    )
    one = identity(tmp_path, issuer(text)).issuers["corp"]
    assert one.claims.subject == (("email",),)
    assert one.claims.roles == (("a", "b"), ("https://ex.am/ple",), ("x.y", "z"))
    assert one.claims.role_map == {"gw": ("support",), "boss": ("a", "b")}
    assert one.claims.group_map == {"/ops": ("admin",)} and one.claims.subject_map == {"svc-*": ("robot",)}
    assert (one.claims.tenant_claim, one.claims.tenant_map) == (("org",), {"1": "acme"})
    assert (one.algorithms, one.typ) == (("ES256",), ("at+jwt", ""))


def test_entra_of_several_tenants(tmp_path: Path) -> None:
    one = identity(tmp_path, issuer(ENTRA + ", tenants: [t1], audiences: [a], tenant_map: {t1: acme}")).issuers["corp"]
    assert one.aliases == ("https://sts.windows.net/{tid}/",)
    assert one.claims.tenant_claim == ("tid",)


def test_a_secret_stays_a_reference(tmp_path: Path) -> None:
    text = KEYCLOAK + ', introspection: {client_id: gw, client_secret: "${secret:idp}", ttl: 30s}'
    spec = identity(tmp_path, issuer(text)).issuers["corp"].introspection
    assert spec is not None and spec.client_secret == SecretText((SecretName("idp"),)) and spec.ttl_s == 30
    assert "idp" in compiled(tmp_path, issuer(text)).secret_names


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("{}", "nobody could call", id="empty"),
        pytest.param("{api_keys: false}", "nobody could call", id="all switched off"),
        pytest.param(issuer("preset: keycloak"), "'issuer' is missing", id="no issuer"),
        pytest.param(issuer('preset: keycloak, issuer: "https://sso.example.com"'), "looks like", id="not its form"),
        pytest.param(issuer('issuer: "sso.example.com"'), "looks like", id="no URL"),
        pytest.param(issuer('issuer: "http://sso.example.com"'), "https, except on loopback", id="no TLS"),
        pytest.param(issuer('issuer: "https://a", jwks_url: "http://b/k"'), "jwks_url: https", id="keys without TLS"),
        pytest.param(issuer('preset: keycloack, issuer: "https://a"'), "keycloak", id="a misspelt preset"),
        pytest.param(issuer(ENTRA + ", audiences: [a]"), "`tenants` says which", id="all tenants of the world"),
        pytest.param(issuer(KEYCLOAK + ", tenants: [t]"), "goes with {tid}", id="tenants without their place"),
        pytest.param(issuer(ENTRA + ", tenants: [t]"), "write `audiences`", id="entra without audiences"),
        pytest.param(issuer(KEYCLOAK + ", directory: {client_id: a, client_secret: b}"), "preset entra", id="no Graph"),
        pytest.param(
            issuer(ENTRA + ", tenants: [t], audiences: [a], directory: {client_id: a, client_secret: b}"),
            "one tenant",
            id="Graph of several tenants",
        ),
        pytest.param(
            issuer('preset: entra, issuer: "https://e/t/v2.0", audiences: [a], directory: {client_id: a}'),
            "'client_secret' is missing",
            id="half a client of Graph",
        ),
        pytest.param(issuer('preset: kubernetes, issuer: "https://k8s"'), "`subjects`", id="every pod of a cluster"),
        pytest.param(
            issuer('preset: spiffe, issuer: "spiffe://a", subjects: ["*"]'),
            "jwks_url",
            id="a trust bundle is missing",
        ),
        pytest.param(issuer(KEYCLOAK + ", algorithms: [none]"), "none", id="alg none"),
        pytest.param(issuer(KEYCLOAK + ", algorithms: [HS256]"), "HS256", id="a shared secret"),
        pytest.param(issuer(KEYCLOAK + ", jwks_file: nowhere.json"), "no file", id="a file that is not there"),
        pytest.param(issuer(KEYCLOAK + ", claims: {roles: 'a..b'}"), "is not a claim", id="a claim with a gap"),
        pytest.param(
            issuer(KEYCLOAK + ", introspection: {client_secret: x}"), "goes with `client_id`", id="half a client"
        ),
        pytest.param(
            "{issuers: {a: {" + KEYCLOAK + "}, b: {" + KEYCLOAK + "}}}", "has the same `iss` as 'a'", id="one iss twice"
        ),
        pytest.param("{certificates: {}}", "there are none", id="certificates of nobody"),
        pytest.param("{issuer: {}}", "did you mean", id="a misspelt key"),
    ],
)
def test_faults(tmp_path: Path, text: str, said: str) -> None:
    examined = examine(written(tmp_path, text), env={})
    assert examined.snapshot is None
    assert any(said in str(problem) for problem in examined.problems), [str(one) for one in examined.problems]
    assert all("narthex.yaml:" in str(problem) for problem in examined.problems)


@pytest.mark.parametrize(
    ("more", "text", "fine"),
    [
        pytest.param("listen: 0.0.0.0:8080\n", "null", False, id="no identity: loopback only"),
        pytest.param("listen: 0.0.0.0:8080\n", "{api_keys: true}", True, id="keys"),
        pytest.param("listen: 0.0.0.0:8080\n", issuer(KEYCLOAK), False, id="issuers need to know the URL"),
        pytest.param(
            "listen: 0.0.0.0:8080\npublic_url: https://gw.example.com\n", issuer(KEYCLOAK), True, id="and are told it"
        ),
        pytest.param("admin: {listen: 0.0.0.0:8081}\n", "null", False, id="the admin side, nobody"),
        pytest.param("admin: {listen: 0.0.0.0:8081}\n", issuer(KEYCLOAK), True, id="the admin side, somebody"),
        pytest.param(
            "egress: {allow_http: [keycloak]}\n", issuer('issuer: "http://keycloak:8080/x"'), True, id="no TLS"
        ),
    ],
)
def test_where_it_may_listen(tmp_path: Path, more: str, text: str, fine: bool) -> None:
    assert (examine(written(tmp_path, text, more), env={}).snapshot is not None) is fine


def test_endpoints(tmp_path: Path) -> None:
    one = "{base_scopes: [mcp], scopes: {'one__*': [a, b]}, hide_unscoped: true, auth: anonymous}"
    found = compiled(tmp_path, "{api_keys: true}", f"endpoints: {{default: {one}}}\n").endpoints["default"]
    assert (found.auth, found.base_scopes, found.hide_unscoped) == ("anonymous", ("mcp",), True)
    assert found.scopes == (("one__*", ("a", "b")),)


@pytest.mark.parametrize(
    ("first", "second", "warned"),
    [
        pytest.param("{}", "{}", True, id="both see every opaque token"),
        pytest.param("{prefix: a_}", "{prefix: a_}", True, id="the same prefix"),
        pytest.param("{prefix: a_}", "{}", False, id="one has a prefix"),
        pytest.param("{prefix: a_}", "{prefix: b_}", False, id="each its own"),
    ],
)
def test_two_issuers_that_are_asked_about_opaque_tokens(tmp_path: Path, first: str, second: str, warned: bool) -> None:
    one, other = (
        f"{name}: {{issuer: 'https://{name}', audiences: [x], introspection: {how}}}"
        for name, how in (("a", first), ("b", second))
    )
    examined = examine(written(tmp_path, f"{{issuers: {{{one}, {other}}}}}"), env={})
    assert examined.snapshot is not None
    assert any("opaque tokens are shown to 'a' too" in str(one) for one in examined.warnings) is warned
