"""Microsoft's own client, `msal`, works with the emulator; and the emulator refuses what Entra refuses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import jwt
import msal
import pytest
import requests
from cryptography.hazmat.primitives import serialization

from tests.counterparts.entra import OBO, App, Entra, Key, Refused, User, application
from tests.counterparts.serving import served
from tests.e2e.certificates import Authority


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("entra"))


@pytest.fixture(scope="module")
def base(authority: Authority) -> Iterator[tuple[str, Any]]:
    served_now: list[Any] = [None]

    async def current(scope: Any, receive: Any, send: Any) -> None:
        await served_now[0](scope, receive, send)

    with served(current, authority.issue("login")) as url:
        yield url, served_now


@pytest.fixture
def entra(base: tuple[str, Any]) -> Entra:
    """A directory of its own for the test: an API, an upstream API, a desktop client, two users."""
    url, served_now = base
    desktop = App("api://desktop")
    gateway = App(
        "api://gateway", "gateway-secret", consented={desktop.client_id}, scopes=("tools.read", "tools.write")
    )
    upstream = App("api://upstream", version=1, consented={gateway.client_id})
    upstream.app_roles[gateway.client_id] = ("Tools.Call",)
    users = [User("alice@example.com", groups=("g1",)), User("mfa@example.com", needs_mfa=True)]
    directory = Entra(url, users=users, apps=[gateway, upstream, desktop])
    served_now[0] = application(directory)
    return directory


def claims(token: str) -> Any:
    return jwt.decode(token, options={"verify_signature": False})


def where(entra: Entra, authority: Authority) -> Any:
    """How msal gets to the emulator. A session of its own: the environment may name other authorities."""
    session = requests.Session()
    session.trust_env, session.verify = False, authority.file
    return {"authority": f"{entra.base}/{entra.tid}", "instance_discovery": False, "http_client": session}


def confidential(entra: Entra, authority: Authority, credential: Any = "gateway-secret", **more: Any) -> Any:
    client_id = entra.apps[0].client_id
    return msal.ConfidentialClientApplication(client_id, credential, **where(entra, authority), **more)


def signed_in(entra: Entra, authority: Authority) -> Any:
    """What msal has once the first user has signed in on another device."""
    desktop = msal.PublicClientApplication(entra.apps[2].client_id, **where(entra, authority))
    flow = desktop.initiate_device_flow(["api://gateway/tools.read"])
    entra.sign_in(flow["user_code"], entra.users[0])
    return desktop.acquire_token_by_device_flow(flow)


def test_a_user_signs_in_with_msal(entra: Entra, authority: Authority) -> None:
    said = claims(signed_in(entra, authority)["access_token"])
    gateway, _, desktop = entra.apps
    assert said["iss"] == f"{entra.base}/{entra.tid}/v2.0" and said["ver"] == "2.0"
    assert (said["aud"], said["azp"], said["scp"]) == (gateway.client_id, desktop.client_id, "tools.read")
    assert said["oid"] == entra.users[0].oid != said["sub"] and said["groups"] == ["g1"] and "idtyp" not in said


@pytest.mark.parametrize("how", ["secret", "assertion"])
def test_an_app_signs_in_with_msal(entra: Entra, authority: Authority, how: str) -> None:
    credential: Any = "gateway-secret"
    if how == "assertion":
        key = Key()
        entra.apps[0].public_key = key.private.public_key()
        form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        credential = {"private_key": key.private.private_bytes(*form).decode(), "thumbprint": "A" * 40}
    answer = confidential(entra, authority, credential).acquire_token_for_client(["api://upstream/.default"])
    said = claims(answer["access_token"])
    assert said["ver"] == "1.0" and said["iss"] == f"https://sts.windows.net/{entra.tid}/" and "scp" not in said
    assert said["aud"] == "api://upstream" and said["appid"] == entra.apps[0].client_id
    assert (said["roles"], said["idtyp"]) == (["Tools.Call"], "app") and said["sub"] == said["oid"]


def test_on_behalf_of_with_msal(entra: Entra, authority: Authority) -> None:
    mine = signed_in(entra, authority)["access_token"]
    answer = confidential(entra, authority).acquire_token_on_behalf_of(mine, ["api://upstream/.default"])
    said = claims(answer["access_token"])
    assert said["oid"] == entra.users[0].oid and said["scp"] == "user_impersonation" and said["aud"] == "api://upstream"


def test_a_client_that_handles_challenges_is_known_by_its_tokens(entra: Entra, authority: Authority) -> None:
    mine = signed_in(entra, authority)["access_token"]
    capable = confidential(entra, authority, client_capabilities=["CP1"])
    answer = capable.acquire_token_on_behalf_of(mine, ["api://upstream/.default"])
    assert claims(answer["access_token"])["xms_cc"] == ["cp1"]


def test_a_second_factor_is_a_claims_challenge(entra: Entra, authority: Authority) -> None:
    gateway, upstream, desktop = entra.apps
    theirs = entra.access_token(gateway, desktop, entra.users[1], ("tools.read",))
    answer = confidential(entra, authority).acquire_token_on_behalf_of(theirs, ["api://upstream/.default"])
    assert answer["error"] == "interaction_required" and answer["error_codes"] == [50076]
    assert "access_token" in json.loads(answer["claims"])


@pytest.mark.parametrize(
    ("change", "error", "code"),
    [
        ({"scope": ""}, "invalid_request", 900144),
        ({"client_secret": "wrong"}, "invalid_client", 7000215),
        ({"resource": "https://gateway.example.com/mcp"}, "invalid_target", 9010010),
        ({"scope": "api://unknown/.default"}, "invalid_scope", 70011),
        ({"scope": "api://upstream/user_impersonation api://gateway/tools.read"}, "invalid_scope", 70011),
        ({"assertion": "of an app"}, "invalid_grant", 7000114),
        ({"assertion": "for another"}, "invalid_grant", 50013),
        ({"requested_token_use": ""}, "unsupported_grant_type", 70003),
    ],
    ids=lambda value: str(value) if isinstance(value, int) else None,
)
def test_on_behalf_of_is_refused(entra: Entra, change: dict[str, str], error: str, code: int) -> None:
    gateway, upstream, desktop = entra.apps
    mine = entra.access_token(gateway, desktop, entra.users[0], ("tools.read",))
    others = {"of an app": entra.access_token(gateway, desktop), "for another": entra.access_token(upstream, desktop)}
    form = {"grant_type": OBO, "requested_token_use": "on_behalf_of", "assertion": mine}
    form |= {"client_id": gateway.client_id, "client_secret": "gateway-secret", "scope": "api://upstream/.default"}
    assert entra.token(entra.tid, form)["access_token"]
    change = {name: others.get(value, value) for name, value in change.items()}
    with pytest.raises(Refused) as refused:
        entra.token(entra.tid, {**form, **change})
    assert (refused.value.body["error"], refused.value.body["error_codes"]) == (error, [code])


def test_consent_is_needed(entra: Entra, authority: Authority) -> None:
    entra.apps[1].consented.clear()
    mine = signed_in(entra, authority)["access_token"]
    answer = confidential(entra, authority).acquire_token_on_behalf_of(mine, ["api://upstream/.default"])
    assert (answer["suberror"], answer["error_codes"]) == ("consent_required", [65001])


def test_many_groups_are_left_out(entra: Entra) -> None:
    gateway, _, desktop = entra.apps
    for count, left_out in ((200, False), (201, True)):
        entra.users[0].groups = tuple(f"g{n}" for n in range(count))
        said = claims(entra.access_token(gateway, desktop, entra.users[0], ("tools.read",)))
        assert ("groups" not in said, said.get("_claim_names") == {"groups": "src1"}) == (left_out, left_out)


def test_the_documents_of_all_tenants_have_a_template(entra: Entra) -> None:
    assert entra.metadata("organizations")["issuer"] == f"{entra.base}/{{tenantid}}/v2.0"
    assert entra.metadata(entra.tid)["issuer"] == entra.issuer()
    assert entra.jwks("common")["keys"][0]["issuer"].endswith("/{tenantid}/v2.0")


def test_keys_roll_over(entra: Entra) -> None:
    old = entra.keys[0].kid
    new = entra.roll_over().kid
    assert {key["kid"] for key in entra.jwks(entra.tid)["keys"]} == {old, new}
    assert jwt.get_unverified_header(entra.sign({}))["kid"] == new
    entra.roll_over(keep=False)
    assert len(entra.keys) == 1
    assert "typ" not in jwt.get_unverified_header(entra.sign({}, typ=None))
