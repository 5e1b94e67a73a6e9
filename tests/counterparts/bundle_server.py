"""A bundle server, written from Open Policy Agent's documentation of its bundle service API; the real OPA polls it too.

ETag and If-None-Match, `Prefer: wait=N` held until there is something new, a bearer token, statuses to order.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import tarfile
from dataclasses import dataclass, field

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

LONG_POLL = "application/vnd.openpolicyagent.bundles"


def packed(files: dict[str, bytes]) -> bytes:
    """A bundle as `opa build` packs it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(f"/{name}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


@dataclass
class BundleServer:
    """State that a test changes while it serves. `body` is what `GET /bundle.tar.gz` gives."""

    body: bytes = b""
    status: int = 0
    """Answered instead, where it is set."""
    token: str = ""
    long_polls: bool = False
    asked: list[dict[str, str]] = field(default_factory=list)
    answered: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.app = Starlette(routes=[Route("/bundle.tar.gz", self._answer)])

    @property
    def etag(self) -> str:
        return f'"{hashlib.sha256(self.body).hexdigest()[:16]}"'

    async def _answer(self, request: Request) -> Response:
        self.asked.append(dict(request.headers))
        response = await self._response(request)
        self.answered.append(response.status_code)
        return response

    async def _response(self, request: Request) -> Response:
        if self.status:
            return Response("no", self.status)
        if self.token and request.headers.get("authorization") != f"Bearer {self.token}":
            return Response("who are you?", 401)
        known = request.headers.get("if-none-match", "")
        wait_s = next(
            (int(part[5:]) for part in request.headers.get("prefer", "").split(";") if part[:5] == "wait="), 0
        )
        end = asyncio.get_running_loop().time() + (wait_s if self.long_polls else 0)
        while known == self.etag and asyncio.get_running_loop().time() < end:
            await asyncio.sleep(0.02)
        headers = {"ETag": self.etag}
        if known == self.etag:
            return Response(status_code=304, headers=headers)
        return Response(self.body, media_type=LONG_POLL if self.long_polls else "application/gzip", headers=headers)
