"""The npm `oidc-provider` (`oidc_provider.mjs`), one for a test run, and what tests ask of it."""

from __future__ import annotations

import base64
import json
import re
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.counterparts.shared import Shared

PROGRAM = Path(__file__).with_name("oidc_provider.mjs")


@dataclass(frozen=True)
class Oidc:
    """The provider at `issuer`. Clients `agent` and `narthex`; the secret of NAME is `NAME-secret`."""

    issuer: str

    @classmethod
    def start(cls, folder: Path, node: str) -> Oidc:
        """The one of the run in `folder`; started where nobody has yet."""
        run = Shared(folder, "oidc-provider", re.compile(r"Listening on: (\S+)"), patience_s=60)
        run.start([node, str(PROGRAM)])
        return cls(run.url())

    @property
    def metadata(self) -> Any:
        return self._ask("/.well-known/openid-configuration")

    def token(self, resource: str = "", scope: str = "", client: str = "agent") -> str:
        """An access token by client credentials: opaque, unless the resource has JWTs."""
        form = {"grant_type": "client_credentials", "resource": resource, "scope": scope}
        answer = self._ask("/token", {key: value for key, value in form.items() if value}, client)
        return str(answer["access_token"])

    def introspect(self, token: str) -> Any:
        return self._ask("/token/introspection", {"token": token}, "narthex")

    def revoke(self, token: str, client: str = "agent") -> None:
        self._ask("/token/revocation", {"token": token}, client)

    def _ask(self, path: str, form: dict[str, str] | None = None, client: str = "") -> Any:
        data = urllib.parse.urlencode(form).encode() if form is not None else None
        request = urllib.request.Request(self.issuer + path, data)
        if client:
            secret = base64.b64encode(f"{client}:{client}-secret".encode()).decode()
            request.add_header("authorization", f"Basic {secret}")
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as answer:
            said = answer.read()
        return json.loads(said) if said else None
