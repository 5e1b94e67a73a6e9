"""A running Keycloak with the realm of `corp.json`, and what tests ask of it.

The realm: users `alice` (role support, group /staff/support, role reader at the client gateway) and `bob` (neither);
clients `agent` (secret; a service and a user's agent; its tokens are for `gateway` and `narthex`), `desktop` (public,
PKCE), `stranger` (its tokens are for nobody), `narthex` (exchanges tokens), `gateway` and `upstream` (resources). The
password of NAME is `NAME-password`, the secret of a client `NAME-secret`.

What a test changes, it changes for itself: a realm of its own (`new_realm`), or a client that it adds.
"""

from __future__ import annotations

import json
import re
import shutil
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.counterparts.keycloak.install import HOME, JAVA
from tests.counterparts.shared import Shared, locked

REALM = Path(__file__).with_name("corp.json")
ADMIN = {"KC_BOOTSTRAP_ADMIN_USERNAME": "admin", "KC_BOOTSTRAP_ADMIN_PASSWORD": "admin"}
PATIENCE_S = 240.0
"""For one request: on a busy machine a new realm or key takes long, and only a failure waits until the end."""
KEYS = "org.keycloak.keys.KeyProvider"
OTHERS = ("hmac", "aes")
"""Keys that Keycloak needs for itself."""
EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"


def signing_key(priority: int) -> dict[str, Any]:
    """A provider of an RS256 key that is made here: Keycloak's own takes a minute for one on a busy machine."""
    private = rsa.generate_private_key(65537, 2048)
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    config = {"priority": [str(priority)], "algorithm": ["RS256"], "privateKey": [pem]}
    return {"name": f"rsa-{uuid.uuid4().hex[:8]}", "providerId": "rsa", "config": config}


def shared(folder: Path) -> Shared:
    """The Keycloak of the run in `folder`."""
    return Shared(folder, "keycloak", re.compile(r"Listening on: (http://\S+)"), patience_s=300)


def start(folder: Path) -> Shared:
    """Start it for the run in `folder` unless that is done; its data lies in memory."""
    realms = HOME / "data" / "import"
    with locked(HOME / "data.lock"):
        realms.mkdir(parents=True, exist_ok=True)
        shutil.copy(REALM, realms)
    program = ["bash", str(HOME / "bin" / "kc.sh"), "start", "--optimized", "--import-realm", "--cache=local"]
    listen = ["--http-enabled=true", "--http-host=127.0.0.1", "--http-port=0", "--hostname-strict=false"]
    run = shared(folder)
    run.start([*program, *listen], env={**ADMIN, **JAVA})
    return run


class Refused(Exception):
    """Keycloak answered with an error. `said` is its document."""

    def __init__(self, status: int, said: Any) -> None:
        super().__init__(f"{status}: {said}")
        self.status, self.said = status, said


@dataclass(frozen=True)
class Keycloak:
    """One realm of the Keycloak at `base`."""

    base: str
    realm: str = "corp"

    @property
    def issuer(self) -> str:
        return f"{self.base}/realms/{self.realm}"

    @property
    def metadata(self) -> Any:
        return self._ask("GET", f"/realms/{self.realm}/.well-known/openid-configuration")

    # --- as a client

    def token(self, client: str = "agent", user: str = "", **form: str) -> str:
        """An access token of `client`: for itself, or for `user` by their password."""
        grant = {"grant_type": "password", "username": user, "password": f"{user}-password"} if user else {}
        secret = {"client_id": client, "client_secret": f"{client}-secret"}
        answer = self.grant({"grant_type": "client_credentials", **secret, **grant, **form})
        return str(answer["access_token"])

    def exchange(self, token: str, **form: str) -> str:
        """What client `narthex` gets for somebody's token (RFC 8693)."""
        subject = {"subject_token": token, "subject_token_type": ACCESS_TOKEN}
        secret = {"client_id": "narthex", "client_secret": "narthex-secret"}
        return str(self.grant({"grant_type": EXCHANGE, **secret, **subject, **form})["access_token"])

    def revoke(self, token: str, client: str = "agent") -> None:
        """End what the token belongs to (RFC 7009)."""
        form = {"token": token, "client_id": client, "client_secret": f"{client}-secret"}
        self._ask("POST", f"/realms/{self.realm}/protocol/openid-connect/revoke", form=form)

    def grant(self, form: Mapping[str, str]) -> Any:
        """The answer of the token endpoint."""
        return self._ask("POST", f"/realms/{self.realm}/protocol/openid-connect/token", form=form)

    # --- as an administrator

    def admin(self, method: str, path: str, body: Any = None) -> Any:
        """One request to the admin API, below this realm."""
        return self._ask(method, f"/admin/realms/{self.realm}{path}", body=body, token=self._admin_token())

    def new_realm(self) -> Keycloak:
        """A copy of the realm that the test has for itself. Takes some seconds."""
        own = replace(self, realm=f"corp-{uuid.uuid4().hex[:8]}")
        keys = [
            signing_key(100),
            *({"name": f"{kind}-generated", "providerId": f"{kind}-generated"} for kind in OTHERS),
        ]
        realm = {**json.loads(REALM.read_text(encoding="utf-8")), "realm": own.realm, "components": {KEYS: keys}}
        self._ask("POST", "/admin/realms", body=realm, token=self._admin_token())
        return own

    def client(self, client: str) -> Any:
        """The representation of a client."""
        (found,) = self.admin("GET", f"/clients?clientId={urllib.parse.quote(client)}")
        return found

    def change_client(self, client: str, **changes: Any) -> None:
        """Overwrite fields of a client; attributes are added to those that it has."""
        now = self.client(client)
        attributes = {**now.get("attributes", {}), **changes.pop("attributes", {})}
        self.admin("PUT", f"/clients/{now['id']}", {**now, **changes, "attributes": attributes})

    def add_resource(self, url: str, *clients: str) -> str:
        """Make `url` a resource (RFC 8707) that tokens of `clients` may be asked for; the id of its client."""
        name = f"resource-{uuid.uuid4().hex[:8]}"
        self.admin("POST", "/clients", {"clientId": name, "bearerOnly": True, "attributes": {"resource_url": url}})
        config = {"included.client.audience": name, "access.token.claim": "true", "id.token.claim": "false"}
        mapper = {"name": name, "protocol": "openid-connect", "protocolMapper": "oidc-audience-mapper"}
        for client in clients:
            path = f"/clients/{self.client(client)['id']}/protocol-mappers/models"
            self.admin("POST", path, {**mapper, "config": config})
        return name

    def rotate_key(self) -> str:
        """Sign with a new RS256 key from now on; the old one stays known. The id of the new one."""
        known = len(self.admin("GET", "/keys")["keys"])
        self.admin("POST", "/components", {"providerType": KEYS, **signing_key(200 + known)})
        return str(self.admin("GET", "/keys")["active"]["RS256"])

    def _admin_token(self) -> str:
        form = {"grant_type": "password", "client_id": "admin-cli", "username": "admin", "password": "admin"}
        return str(self._ask("POST", "/realms/master/protocol/openid-connect/token", form=form)["access_token"])

    def _ask(
        self, method: str, path: str, *, form: Mapping[str, str] | None = None, body: Any = None, token: str = ""
    ) -> Any:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        data = None
        if form is not None:
            data = urllib.parse.urlencode(form).encode()
        elif body is not None:
            data, headers["content-type"] = json.dumps(body).encode(), "application/json"
        request = urllib.request.Request(self.base + path, data=data, headers=headers, method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=PATIENCE_S) as answer:
                said = answer.read()
        except urllib.error.HTTPError as error:
            with error:
                text = error.read().decode()
            raise Refused(error.code, json.loads(text) if text.startswith("{") else text) from None
        return json.loads(said) if said else None
