"""An emulator of what we ask of HashiCorp Vault, written from its public documentation; no Vault ran beside it.

KV version 2 (read, versions, deletion), token auth (look-up and renewal, ends of tokens), Kubernetes auth (login by
role and token), namespaces, policies by path, a sealed and a standby state. Source: Vault's HTTP API documentation.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route


@dataclass
class Token:
    ttl_s: int = 0
    """0: without end, as a root token."""
    renewable: bool = True
    paths: tuple[str, ...] = ("",)
    """Beginnings of what it may read."""
    issued_at: float = field(default_factory=time.monotonic)
    renewed: int = 0

    def valid(self) -> bool:
        return not self.ttl_s or time.monotonic() < self.issued_at + self.ttl_s

    def left(self) -> int:
        return max(0, int(self.issued_at + self.ttl_s - time.monotonic())) if self.ttl_s else 0


class Vault:
    """State that a test changes while it serves. `mounts` maps `mount/path` to its versions, None where deleted."""

    def __init__(self) -> None:
        self.namespace = ""
        self.status = 0
        """A status that every request gets instead: 503 sealed, 429 standby."""
        self.tokens: dict[str, Token] = {"root": Token()}
        self.roles: dict[tuple[str, str], Token] = {}
        """(role, jwt) to what its tokens are like."""
        self.secrets: dict[str, list[dict[str, Any] | None]] = {}
        self.asked: list[str] = []
        self.app = Starlette(routes=[Route("/v1/{path:path}", self._answer, methods=["GET", "POST", "PUT"])])

    def write(self, path: str, **fields: Any) -> None:
        self.secrets.setdefault(path, []).append(fields)

    def delete(self, path: str) -> None:
        self.secrets[path][-1] = None

    async def _answer(self, request: Request) -> Response:
        path = request.path_params["path"]
        self.asked.append(f"{request.method} {path}")
        if self.status:
            return _errors(self.status, *(["Vault is sealed"] if self.status == 503 else []))
        if request.headers.get("x-vault-namespace", "") != self.namespace:
            return _errors(404)
        if path.startswith("auth/") and path.endswith("/login"):
            return await self._login(request)
        name = request.headers.get("x-vault-token", "")
        token = self.tokens.get(name)
        if token is None or not token.valid():
            return _errors(403, "permission denied", "invalid token")
        if path == "auth/token/lookup-self":
            return JSONResponse({"data": {"id": name, "ttl": token.left(), "renewable": token.renewable}})
        if path == "auth/token/renew-self":
            return self._renew(name, token)
        return self._read(path, token)

    async def _login(self, request: Request) -> Response:
        given = await request.json()
        like = self.roles.get((given.get("role", ""), given.get("jwt", "")))
        if like is None:
            return _errors(403, "permission denied")
        name = f"hvs.{len(self.tokens)}"
        self.tokens[name] = Token(like.ttl_s, like.renewable, like.paths)
        auth = {
            "client_token": name,
            "lease_duration": like.ttl_s,
            "renewable": like.renewable,
            "policies": ["default"],
        }
        return JSONResponse({"request_id": "1", "lease_id": "", "lease_duration": 0, "data": None, "auth": auth})

    def _renew(self, name: str, token: Token) -> Response:
        if not token.renewable:
            return _errors(400, "lease is not renewable")
        token.issued_at = time.monotonic()
        token.renewed += 1
        auth = {"client_token": name, "lease_duration": token.ttl_s, "renewable": True}
        return JSONResponse({"lease_duration": 0, "data": None, "auth": auth})

    def _read(self, path: str, token: Token) -> Response:
        mount, data, rest = path.partition("/data/")
        if not data or not any(f"{mount}/{rest}".startswith(start) for start in token.paths):
            return _errors(403, "1 error occurred:\n\t* permission denied\n\n")
        versions = self.secrets.get(f"{mount}/{rest}")
        if versions is None:
            return _errors(404)
        fields = versions[-1]
        metadata = {
            "created_time": "2026-01-01T00:00:00Z",
            "deletion_time": "" if fields is not None else "2026-01-02T00:00:00Z",
            "destroyed": False,
            "version": len(versions),
        }
        body = {"request_id": "1", "lease_duration": 0, "data": {"data": fields, "metadata": metadata}, "auth": None}
        return JSONResponse(body, 200 if fields is not None else 404)


def _errors(status: int, *texts: str) -> Response:
    return JSONResponse({"errors": list(texts)}, status)
