"""An emulator of the token side of Microsoft Entra ID. It is not Entra.

It was written from Microsoft's public documentation (access token claims, on-behalf-of, client credentials, signing key
roll-over, claims challenges) and holds what a resource server and an OAuth client meet there: v1 and v2 tokens,
delegated and app-only, groups overage, the issuer template of the multi-tenant documents, on-behalf-of with its
refusals. `msal`, Microsoft's own client, works with it: `test_entra.py`. Of Graph it has `getMemberObjects` alone.
No sign-in page, no administration.

`Entra` holds tenants, users, apps and keys, and makes tokens; `application(entra)` serves them.
"""

from __future__ import annotations

import base64
import hashlib
import json
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

OBO = "urn:ietf:params:oauth:grant-type:jwt-bearer"
DEVICE_CODE = "urn:ietf:params:oauth:grant-type:device_code"
ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
MOST_GROUPS = 200
"""A JWT with more leaves all of them out and says where they are to be had ("groups overage")."""
NOT_OF_A_RESOURCE = {"openid", "profile", "email", "offline_access"}
TEMPLATE = "{tenantid}"


def guid() -> str:
    return str(uuid.uuid4())


@dataclass(eq=False)
class Key:
    """A signing key. Entra names keys by the thumbprint of their certificate; here by that of the modulus."""

    private: rsa.RSAPrivateKey = field(default_factory=lambda: rsa.generate_private_key(65537, 2048))

    @property
    def kid(self) -> str:
        number = self.private.public_key().public_numbers().n
        digest = hashlib.sha1(number.to_bytes(256, "big"), usedforsecurity=False).digest()
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()

    @property
    def jwk(self) -> dict[str, Any]:
        public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self.private.public_key()))
        return {"kty": "RSA", "use": "sig", "kid": self.kid, "x5t": self.kid, "n": public["n"], "e": public["e"]}


@dataclass
class User:
    """Somebody who signs in. `roles` are app roles that an administrator assigned, for every app alike."""

    upn: str
    oid: str = field(default_factory=guid)
    groups: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    needs_mfa: bool = False
    """Does a policy ask for a second factor, which no grant without a browser gives?"""


@dataclass
class App:
    """An app registration: an API, a client, or both.

    Args:
        version: `requestedAccessTokenVersion`: 2, or 1 for what an app gets that says nothing.
        scopes: Delegated permissions that it offers.
        app_roles: Application permissions that were granted, by client id.
        consented: Client ids that users or an administrator let act for users.
        public_key: For `private_key_jwt`, beside the secret.
    """

    uri: str
    secret: str = ""
    client_id: str = field(default_factory=guid)
    object_id: str = field(default_factory=guid)
    version: int = 2
    scopes: tuple[str, ...] = ("user_impersonation",)
    app_roles: dict[str, tuple[str, ...]] = field(default_factory=dict)
    consented: set[str] = field(default_factory=set)
    public_key: Any = None


class Refused(Exception):
    """An answer of the token endpoint with an error, in Entra's form."""

    def __init__(self, error: str, code: int, text: str, status: int = 400, **more: Any) -> None:
        super().__init__(text)
        said = {"error": error, "error_description": f"AADSTS{code}: {text}", "error_codes": [code]}
        self.status, self.body = status, {**said, "timestamp": time.strftime("%Y-%m-%d %H:%M:%SZ"), **more}


@dataclass
class Entra:
    """The directory. `base` is where it is served; `tid` its tenant, beside which `tenants` may name more."""

    base: str = ""
    tid: str = field(default_factory=guid)
    tenants: list[str] = field(default_factory=list)
    users: list[User] = field(default_factory=list)
    apps: list[App] = field(default_factory=list)
    keys: list[Key] = field(default_factory=lambda: [Key()])
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    """What was asked of the token endpoint: (tenant, form)."""
    devices: dict[str, tuple[User | None, str]] = field(default_factory=dict)
    """Sign-ins that have begun on another device: who has signed in there, and the scopes."""
    challenges: set[str] = field(default_factory=set)
    """What was asked of users who need a second factor: a sign-in with it gives it."""
    asked_about: list[str] = field(default_factory=list)
    """Whose groups Graph was asked for."""
    graph_status: int = 200
    """What Graph answers with; 200 is the groups."""
    documents: int = 0
    """How often keys or metadata were asked for."""

    def issuer(self, tid: str = "", version: int = 2) -> str:
        tid = tid or self.tid
        return f"{self.base}/{tid}/v2.0" if version == 2 else f"https://sts.windows.net/{tid}/"

    def roll_over(self, *, keep: bool = True) -> Key:
        """Sign with a new key from now on. The old one stays published, or goes at once."""
        self.keys = [Key(), *(self.keys if keep else [])]
        return self.keys[0]

    # --- tokens

    def access_token(
        self,
        api: App,
        client: App,
        user: User | None = None,
        scopes: tuple[str, ...] = (),
        *,
        tid: str = "",
        typ: str | None = "JWT",
        capable: bool = False,
        **changes: Any,
    ) -> str:
        """A token for `api`, delegated where there is a user, else app-only.

        Args:
            typ: The header; None for a token without one.
            capable: Did the client say that it handles claims challenges (`xms_cc: [cp1]`)?
            changes: Claims to overwrite; None takes one away.
        """
        tid, now = tid or self.tid, int(time.time())
        subject = user.oid if user else client.object_id
        pairwise = hashlib.sha256(f"{subject}{api.client_id}".encode()).digest()
        claims: dict[str, Any] = {
            "aud": api.client_id if api.version == 2 else api.uri,
            "iss": self.issuer(tid, api.version),
            "iat": now,
            "nbf": now,
            "exp": now + 4000,
            "oid": subject,
            "sub": base64.urlsafe_b64encode(pairwise).rstrip(b"=").decode() if user else client.object_id,
            "tid": tid,
            "uti": base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode(),
            "ver": f"{api.version}.0",
        }
        proof = "2" if client.public_key else "1" if client.secret else "0"
        if api.version == 2:
            claims |= {"azp": client.client_id, "azpacr": proof}
        else:
            claims |= {"appid": client.client_id, "appidacr": proof}
        if user:
            claims |= {"scp": " ".join(scopes), **self._about(user, api.version)}
        else:
            claims |= {"idtyp": "app"} | (
                {"roles": list(given)} if (given := api.app_roles.get(client.client_id)) else {}
            )
        if capable:
            claims["xms_cc"] = ["cp1"]
        claims |= changes
        return self.sign({name: value for name, value in claims.items() if value is not None}, typ=typ)

    def _about(self, user: User, version: int) -> dict[str, Any]:
        name = "preferred_username" if version == 2 else "upn"
        claims: dict[str, Any] = {name: user.upn} | ({"roles": list(user.roles)} if user.roles else {})
        if version == 1:
            claims |= {"unique_name": user.upn, "acr": "1", "amr": ["pwd"]}
        if len(user.groups) > MOST_GROUPS:
            source = {"endpoint": f"https://graph.microsoft.com/v1.0/users/{user.oid}/getMemberObjects"}
            return {**claims, "_claim_names": {"groups": "src1"}, "_claim_sources": {"src1": source}}
        return {**claims, "groups": list(user.groups)} if user.groups else claims

    def sign(self, claims: Mapping[str, Any], *, typ: str | None = "JWT") -> str:
        key = self.keys[0]
        headers = {"kid": key.kid, "x5t": key.kid, "typ": typ}
        return jwt.encode(dict(claims), key.private, algorithm="RS256", headers=headers)

    # --- the token endpoint

    def token(self, tenant: str, form: Mapping[str, str]) -> dict[str, Any]:
        """One request; `Refused` where Entra would."""
        self.requests.append((tenant, dict(form)))
        if tenant not in (self.tid, *self.tenants):
            raise Refused("invalid_request", 90002, f"Tenant '{tenant}' not found.")
        client, grant = self._client(form), form.get("grant_type", "")
        if grant == DEVICE_CODE:
            user, scope = self._signed_in(form.get("device_code", ""))
            form = {**form, "scope": scope}
        if not form.get("scope"):
            raise Refused("invalid_request", 900144, "The request body must contain the following parameter: 'scope'.")
        api, scopes = self._wanted(form["scope"].split(), form.get("resource"))
        if grant == "client_credentials":
            return self._client_credentials(tenant, client, api, scopes)
        if grant == OBO and form.get("requested_token_use") == "on_behalf_of":
            user = self._on_behalf_of(form.get("assertion", ""), client)
        elif grant != DEVICE_CODE:
            raise Refused("unsupported_grant_type", 70003, f"The app requested an unsupported grant type '{grant}'.")
        return self._delegated(tenant, client, api, user, scopes, form)

    def _client(self, form: Mapping[str, str]) -> App:
        client = next((app for app in self.apps if app.client_id == form.get("client_id")), None)
        if client is None:
            text = f"Application with identifier '{form.get('client_id')}' was not found in the directory."
            raise Refused("unauthorized_client", 700016, text, 401)
        if form.get("client_assertion_type") == ASSERTION and client.public_key:
            audiences = [f"{self.base}/{tid}/oauth2/v2.0/token" for tid in (self.tid, *self.tenants)]
            audiences += [self.issuer(tid) for tid in (self.tid, *self.tenants)]
            options = {"require": ["exp", "iss", "sub", "aud", "jti"]}
            try:
                claims = jwt.decode(
                    form["client_assertion"], client.public_key, ["RS256", "PS256"], options, audience=audiences
                )
            except jwt.PyJWTError as error:
                text = f"Client assertion failed signature validation. [{error}]"
                raise Refused("invalid_client", 700027, text, 401) from None
            if claims["iss"] != client.client_id or claims["sub"] != client.client_id:
                raise Refused("invalid_client", 700021, "Client assertion application identifier doesn't match.", 401)
        elif client.secret and form.get("client_secret") != client.secret:
            raise Refused("invalid_client", 7000215, "Invalid client secret provided.", 401)
        return client

    def _wanted(self, scopes: list[str], resource: str | None) -> tuple[App, tuple[str, ...]]:
        """The one API that the scopes belong to, and their names there."""
        found: App | None = None
        names = []
        for scope in scopes:
            if scope in NOT_OF_A_RESOURCE:
                continue
            place, _, name = scope.rpartition("/")
            api = next((app for app in self.apps if place in (app.uri, app.client_id, f"api://{app.client_id}")), None)
            if api is None or (name != ".default" and name not in api.scopes):
                raise Refused("invalid_scope", 70011, f"The provided value for scope {scope} is not valid.")
            if found not in (None, api):
                raise Refused("invalid_scope", 70011, "Scopes of more than one resource are not valid.")
            found, names = api, [*names, name]
        if found is None:
            raise Refused("invalid_scope", 70011, "No resource is named by the scopes.")
        if resource is not None and resource not in (found.uri, found.client_id):
            text = "The resource parameter provided in the request doesn't match with the requested scopes."
            raise Refused("invalid_target", 9010010, text)
        return found, found.scopes if ".default" in names else tuple(names)

    def device_code(self, tenant: str, form: Mapping[str, str]) -> dict[str, Any]:
        """Begin a sign-in on another device; `sign_in` is what the user then does there."""
        self._client(form)
        code = guid()
        self.devices[code] = None, form.get("scope", "")
        said = {"verification_uri": f"{self.base}/devicelogin", "message": "sign in there", "interval": 1}
        return {"device_code": code, "user_code": code[:8], "expires_in": 900, **said}

    def sign_in(self, user_code: str, user: User) -> None:
        """The user types the code and signs in."""
        (code,) = (code for code in self.devices if code[:8] == user_code)
        self.devices[code] = user, self.devices[code][1]

    def _signed_in(self, code: str) -> tuple[User, str]:
        """Who signed in, and for which scopes."""
        if code not in self.devices:
            raise Refused("bad_verification_code", 70000, "The device code is not known.")
        user, scope = self.devices[code]
        if user is None:
            raise Refused("authorization_pending", 70016, "The user has not signed in yet.")
        del self.devices[code]
        return user, scope

    def _on_behalf_of(self, assertion: str, client: App) -> User:
        """The user of a token that was given for `client`."""
        try:
            kid = jwt.get_unverified_header(assertion).get("kid")
            key = next(key for key in self.keys if key.kid == kid)
            claims = jwt.decode(assertion, key.private.public_key(), ["RS256"], audience=[client.client_id, client.uri])
        except (jwt.PyJWTError, StopIteration) as error:
            raise Refused("invalid_grant", 50013, f"Assertion failed signature validation. [{error!r}]") from None
        if "scp" not in claims:
            text = f"Application '{claims.get('azp')}' is not allowed to make application on-behalf-of calls."
            raise Refused("invalid_grant", 7000114, text)
        return next(user for user in self.users if user.oid == claims["oid"])

    def _client_credentials(self, tid: str, client: App, api: App, scopes: tuple[str, ...]) -> dict[str, Any]:
        if scopes != api.scopes:
            text = "The provided value for scope is not valid. Client credential flows must have '/.default' appended."
            raise Refused("invalid_scope", 1002012, text)
        token = self.access_token(api, client, tid=tid)
        return {"token_type": "Bearer", "expires_in": 3999, "ext_expires_in": 3999, "access_token": token}

    def _delegated(
        self, tid: str, client: App, api: App, user: User, scopes: tuple[str, ...], form: Mapping[str, str]
    ) -> dict[str, Any]:
        if client is not api and client.client_id not in api.consented:
            text = f"The user or administrator has not consented to use the application with ID '{client.client_id}'."
            raise Refused("invalid_grant", 65001, text, suberror="consent_required")
        if user.needs_mfa and not self._meets_policy(form):
            policy = guid()
            self.challenges.add(policy)
            claims = json.dumps({"access_token": {"capolids": {"essential": True, "values": [policy]}}})
            text = "Due to a configuration change made by your administrator you must use multi-factor authentication."
            raise Refused("interaction_required", 50076, text, suberror="basic_action", claims=claims)
        capable = "cp1" in form.get("claims", "").lower()
        met = json.loads(form.get("claims", "{}")).get("access_token", {}).get("capolids", {}).get("values")
        token = self.access_token(api, client, user, scopes, tid=tid, capable=capable, capolids=met)
        answer = {"token_type": "Bearer", "expires_in": 3999, "ext_expires_in": 3999, "access_token": token}
        answer["scope"] = " ".join(f"{api.uri}/{name}" for name in scopes)
        if "openid" in form["scope"].split():
            now = int(time.time())
            times = {"iat": now, "nbf": now, "exp": now + 3600}
            who = {"oid": user.oid, "sub": user.oid, "tid": tid, "preferred_username": user.upn, "ver": "2.0"}
            answer["id_token"] = self.sign({"aud": client.client_id, "iss": self.issuer(tid), **times, **who})
        if form.get("client_info") == "1":
            info = json.dumps({"uid": user.oid, "utid": tid}).encode()
            answer["client_info"] = base64.urlsafe_b64encode(info).rstrip(b"=").decode()
        return answer

    def member_objects(self, authorization: str, oid: str) -> tuple[int, dict[str, Any]]:
        """Graph's `getMemberObjects`, for an app that was granted the permission."""
        self.asked_about.append(oid)
        graph = next((app for app in self.apps if app.uri == self.base), None)
        try:
            token = authorization.removeprefix("Bearer ")
            key = next(key for key in self.keys if key.kid == jwt.get_unverified_header(token).get("kid"))
            assert graph is not None
            said = jwt.decode(token, key.private.public_key(), ["RS256"], audience=graph.client_id)
        except (jwt.PyJWTError, StopIteration, AssertionError):
            return 401, {"error": {"code": "InvalidAuthenticationToken"}}
        if "Directory.Read.All" not in said.get("roles", ()):
            return 403, {"error": {"code": "Authorization_RequestDenied"}}
        user = next((user for user in self.users if user.oid == oid), None)
        if user is None:
            return 404, {"error": {"code": "Request_ResourceNotFound"}}
        return self.graph_status, {"@odata.context": "…", "value": list(user.groups)}

    def _meets_policy(self, form: Mapping[str, str]) -> bool:
        """Was a second factor shown: now, by a sign-in with the claims that were asked for, or for the assertion?"""
        asked = json.loads(form.get("claims", "{}")).get("access_token", {}).get("capolids", {}).get("values", [])
        said = jwt.decode(form["assertion"], options={"verify_signature": False}) if "assertion" in form else {}
        return not self.challenges.isdisjoint([*asked, *said.get("capolids", [])])

    # --- documents

    def metadata(self, tenant: str) -> dict[str, Any]:
        """The OpenID document of a tenant, or the one with the issuer template (`common`, `organizations`)."""
        at = f"{self.base}/{tenant}"
        return {
            "issuer": self.issuer(TEMPLATE if tenant in ("common", "organizations") else tenant),
            "authorization_endpoint": f"{at}/oauth2/v2.0/authorize",
            "token_endpoint": f"{at}/oauth2/v2.0/token",
            "device_authorization_endpoint": f"{at}/oauth2/v2.0/devicecode",
            "jwks_uri": f"{at}/discovery/v2.0/keys",
            "token_endpoint_auth_methods_supported": ["client_secret_post", "private_key_jwt", "client_secret_basic"],
            "response_types_supported": ["code", "id_token", "code id_token", "id_token token"],
            "subject_types_supported": ["pairwise"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "scopes_supported": sorted(NOT_OF_A_RESOURCE),
            "claims_supported": ["sub", "iss", "aud", "exp", "iat", "auth_time", "nonce", "preferred_username", "tid"],
            "tenant_region_scope": None,
        }

    def jwks(self, tenant: str) -> dict[str, Any]:
        issuer = self.issuer(TEMPLATE if tenant in ("common", "organizations") else tenant)
        return {"keys": [{**key.jwk, "issuer": issuer} for key in reversed(self.keys)]}


def application(entra: Entra) -> Starlette:
    """The directory over HTTP. Its `base` is to be set to where this is served."""

    def document(make: Any) -> Any:
        async def answer(request: Request) -> Response:
            tenant = request.path_params["tenant"]
            if tenant not in (entra.tid, *entra.tenants, "common", "organizations"):
                return JSONResponse({"error": "invalid_tenant", "error_codes": [90002]}, 400)
            entra.documents += 1
            return JSONResponse(make(tenant))

        return answer

    def endpoint(make: Any) -> Any:
        async def answer(request: Request) -> Response:
            form = dict(parse_qsl((await request.body()).decode()))
            try:
                return JSONResponse(make(request.path_params["tenant"], form))
            except Refused as refused:
                return JSONResponse(refused.body, refused.status)

        return answer

    async def member_objects(request: Request) -> Response:
        authorization = request.headers.get("authorization", "")
        status, body = entra.member_objects(authorization, request.path_params["oid"])
        return JSONResponse(body, status)

    return Starlette(
        routes=[
            Route("/v1.0/users/{oid}/getMemberObjects", member_objects, methods=["POST"]),
            Route("/{tenant}/v2.0/.well-known/openid-configuration", document(entra.metadata)),
            Route("/{tenant}/discovery/v2.0/keys", document(entra.jwks)),
            Route("/{tenant}/oauth2/v2.0/token", endpoint(entra.token), methods=["POST"]),
            Route("/{tenant}/oauth2/v2.0/devicecode", endpoint(entra.device_code), methods=["POST"]),
        ]
    )
