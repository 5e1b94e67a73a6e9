"""An agent that misbehaves, or is an Enterprise OPA: what the real one does not do when a test wants it.

Written from the documentation of the Data API and of Enterprise OPA's batch API; the real Open Policy Agent is in
`tests/counterparts/test_opa.py`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

Policy = Callable[[dict[str, Any]], Any]
UNDEFINED = object()


@dataclass
class Agent:
    """State that a test changes while it serves. `policy` maps an input to a result."""

    policy: Policy = lambda document: True
    status: int = 200
    raw: bytes | None = None
    """Answered instead, where it is set."""
    hangs: bool = False
    is_well: bool = False
    """Whether `/health` answers all the same."""
    enterprise: bool = False
    revision: str = "r1"
    asked: list[tuple[str, dict[str, str], Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        routes = [Route("/v1/{path:path}", self._answer, methods=["POST"]), Route("/health", self._health)]
        self.app = Starlette(routes=routes)

    async def _health(self, request: Request) -> Response:
        while self.hangs and not self.is_well and not await request.is_disconnected():
            await asyncio.sleep(0.02)
        return JSONResponse({}, 200 if self.is_well else self.status)

    async def _answer(self, request: Request) -> Response:
        path, said = request.path_params["path"], await request.json()
        self.asked.append((path, dict(request.headers), said))
        if self.hangs:
            while not await request.is_disconnected():
                await asyncio.sleep(0.02)
        if self.raw is not None or self.status != 200:
            return Response(self.raw or b'{"code": "internal_error", "message": "no"}', self.status)
        provenance = {"version": "1", "bundles": {"main": {"revision": self.revision}}}
        if path.startswith("batch/"):
            if not self.enterprise:
                return Response("404 page not found", 404)
            responses = {name: self._result(one) for name, one in said["inputs"].items()}
            failed = any("http_status_code" in one for one in responses.values())
            body = {"batch_decision_id": "b", "provenance": provenance, "responses": responses}
            return JSONResponse(body, 207 if failed else 200)
        return JSONResponse({**self._result(said["input"]), "provenance": provenance})

    def _result(self, document: dict[str, Any]) -> dict[str, Any]:
        result = self.policy(document)
        if isinstance(result, Exception):
            return {"code": "internal_error", "message": str(result), "http_status_code": "500"}
        id_ = f"d-{len(self.asked)}"
        return {"decision_id": id_} | ({} if result is UNDEFINED else {"result": json.loads(json.dumps(result))})
