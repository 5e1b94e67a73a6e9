"""`/healthz`: the process answers. `/readyz`: may traffic come, and what is not well. `/metrics`: for Prometheus."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from narthex.admin.reply import NO_STORE, json_reply
from narthex.admin.view import GatewayView
from narthex.flow.policy.durability import refusing
from narthex.telemetry.exposition import OPEN_METRICS, TEXT, render, wants_open


def health_routes(gateway: GatewayView) -> list[Route]:
    async def healthz(request: Request) -> Response:
        return PlainTextResponse("ok\n", headers=NO_STORE)

    async def readyz(request: Request) -> Response:
        document = readiness(gateway)
        return json_reply(document, 200 if document["status"] in ("ready", "degraded") else 503)

    async def metrics(request: Request) -> Response:
        is_open = wants_open(request.headers.get("accept", ""))
        form = f"{OPEN_METRICS if is_open else TEXT}; charset=utf-8"
        return StreamingResponse(_slices(gateway, is_open), headers={**NO_STORE, "Content-Type": form})

    return [Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", metrics)]


def readiness(gateway: GatewayView) -> dict[str, Any]:
    """The body of `/readyz`: a dead server or a refused reload degrades, it never makes us unready."""
    degraded = [
        {"server": one.name, "health": one.health, "breaker": one.breaker}
        for one in gateway.servers()
        if one.health in ("degraded", "down")
    ]
    last = gateway.last_reload
    if gateway.draining:
        status = "draining"
    elif not gateway.ready:
        status = "starting"
    elif gateway.store_problem:  # what was known is still served, but nothing new is seen: another replica is better
        status = "store_unavailable"
    elif gateway.journal_problem:
        status = "journal_unavailable"
    else:
        refused = last is not None and last.status == "refused"
        silent = gateway.silent_issuers() or gateway.policy_problem
        behind = (
            gateway.checkpoints_problem
            or gateway.keeping.problem
            or gateway.telemetry_problem
            or gateway.shared_problem
        )
        short = bool(degraded or silent or gateway.missing_secrets or behind)
        status = "degraded" if short or refused else "ready"
    return {
        "status": status,
        "revision": gateway.snapshot.revision,
        "degraded": degraded,
        "silent_issuers": list(gateway.silent_issuers()),
        "missing_secrets": gateway.missing_secrets,
        "policy_problem": gateway.policy_problem,
        "telemetry_problem": gateway.telemetry_problem,
        "shared_problem": gateway.shared_problem,
        "checkpoints": "behind" if gateway.checkpoints_problem else "ok",
        "records": gateway.keeping.problem or "ok",
        "refusing": list(refusing(gateway.snapshot)) if gateway.journal_problem else [],
        "last_reload": msgspec.to_builtins(last) if last is not None else None,
    }


async def _slices(gateway: GatewayView, is_open: bool) -> AsyncIterator[bytes]:
    for data in render(gateway.accounts.families(), open_metrics=is_open):
        if data:
            yield data
        await asyncio.sleep(0)  # calls go first: thousands of names take many milliseconds to write down
