"""A gateway as the admin side sees it, and a client for the admin side. For the tests of this folder."""

from __future__ import annotations

import asyncio
import http.client
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec

from narthex.admin.server import AdminServer
from narthex.admin.token import FILE_NAME
from narthex.admin.view import ServerStatus
from narthex.authority.approvals import Approvals
from narthex.config.reload import ReloadOutcome
from narthex.flow.cache.cache import Cache, Report
from narthex.flow.codec.seal import MasterKey
from narthex.flow.limit.state import State
from narthex.flow.policy.admin import admins_of
from narthex.flow.policy.check import Check
from narthex.telemetry.accounts import Accounts
from narthex.telemetry.audit.keeper import Keeping
from narthex.telemetry.behaviour import Behaviour
from narthex.telemetry.record import Entry, line_of
from narthex.types import Egress, EndpointSpec, HttpTarget, Limits, Principal, ServerSpec, Snapshot, StdioTarget

TOKEN = "t" * 43
ADMIN = "nx_of_somebody_with_the_role"
BOSS = Principal("default", "https://idp", "boss", roles=("admin",))
WORKER = "nx_of_somebody_without"
SOMEBODY = Principal("default", "https://idp", "worker", roles=("support",))
SECRET = "hunter2-and-more"
HEADERS = (("Authorization", f"Bearer {SECRET}"),)
TARGET = HttpTarget(
    f"https://example.com/mcp?key={SECRET}", "https", "example.com", 443, f"/mcp?key={SECRET}", headers=HEADERS
)
SERVERS = {
    "web": ServerSpec("web", TARGET, "http"),
    "local": ServerSpec("local", StdioTarget("tool", ("--token", SECRET), (("KEY", SECRET),)), "stdio"),
}


def snapshot_with(**changes: Any) -> Snapshot:
    given: dict[str, Any] = {
        "revision": "abc",
        "source": "narthex.yaml",
        "state_dir": "/nowhere",
        "listen": ("127.0.0.1", 0),
        "admin_listen": ("127.0.0.1", 0),
        "tls": None,
        "admin_tls": None,
        "public_url": None,
        "allowed_hosts": (),
        "trusted_proxies": (),
        "egress": Egress(),
        "limits": Limits(),
        "log_calls": False,
        "log_format": "text",
        "servers": SERVERS,
        "endpoints": {"default": EndpointSpec("default", ("web", "local"))},
        "warnings": ("narthex.yaml:3:1: something",),
    }
    return Snapshot(**(given | changes))


class Gateway:
    """Keeps `GatewayView` with what a test puts in."""

    def __init__(self, **changes: Any) -> None:
        self.snapshot = snapshot_with(**changes)
        self.accounts, self.behaviour = Accounts(), Behaviour()
        self.started_at, self.open_calls = 900.0, 3
        self.ready = True
        self.draining = False
        self.store_problem = ""
        self.journal_problem = self.checkpoints_problem = self.telemetry_problem = ""
        self.missing_secrets = 0
        self.policy_problem = ""
        self.silent: list[str] = []
        self.keeping = Keeping(str)
        self.last_reload: ReloadOutcome | None = None
        self.next_reload: ReloadOutcome | None = ReloadOutcome("applied", "admin", "def", 1.0)
        self.reloads: list[str] = []
        self.turned_away: list[str] = []
        self.recorded: list[dict[str, Any]] = []
        self.approvals = Approvals(
            master_keys=lambda: [MasterKey(b"k" * 32)], now=lambda: 1000.0, random=lambda size: b"r" * size,
            new_id=lambda: "a1", say=lambda *_: None,
        )  # fmt: skip
        self.cache: Cache | None = None
        self.statuses = [ServerStatus("web", "ok", era="modern"), ServerStatus("local", "idle")]

    shared_problem = ""

    async def limit_states(self, subject: str) -> list[State]:
        states = [State("calls", "calls", {"tenant": "default", "subject": name}, 1, 5, 9.5) for name in ("ada", "bob")]
        return [one for one in states if not subject or one.per["subject"] == subject]

    def cached(self, tenant: str | None) -> Report | None:
        return self.cache.report(1000.0, tenant) if self.cache is not None else None

    def clear_cache(self, pattern: str, tenant: str | None) -> int:
        return self.cache.clear(pattern, tenant) if self.cache is not None else 0

    def listed(self, server: str) -> set[str]:
        return {"get", "put"} if server == "web" else set()

    def silent_issuers(self) -> list[str]:
        return self.silent

    async def caller(self, authorization: str) -> Principal | None:
        return {f"Bearer {ADMIN}": BOSS, f"Bearer {WORKER}": SOMEBODY}.get(authorization)

    async def admit(self, principal: Principal, action: str, address: str) -> Check:
        return await admins_of(self.snapshot, lambda: 1000.0).check(principal, action, address)

    def record(self, entry: Entry) -> None:
        entry.at = 1000.0
        self.recorded.append(json.loads(line_of(entry, "r-1")))

    def not_let_in(self, source: str) -> None:
        self.turned_away.append(source)

    def endpoint_urls(self) -> dict[str, str]:
        return {"default": "http://127.0.0.1:8080/mcp"}

    def servers(self) -> list[ServerStatus]:
        return self.statuses

    async def reload(self, reason: str) -> ReloadOutcome | None:
        self.reloads.append(reason)
        self.last_reload = self.next_reload
        return self.next_reload


@asynccontextmanager
async def admin(gateway: Gateway) -> AsyncIterator[AdminServer]:
    """The admin side of `gateway`, with `TOKEN` as its token."""
    with TemporaryDirectory() as folder:
        gateway.snapshot = msgspec.structs.replace(gateway.snapshot, state_dir=folder)
        (Path(folder) / FILE_NAME).touch(0o600)
        (Path(folder) / FILE_NAME).write_text(TOKEN)
        server = AdminServer(gateway)
        await server.start()
        try:
            yield server
        finally:
            await server.stop()


def fetch(
    port: int, method: str, path: str, headers: dict[str, str] | None = None, body: bytes | None = None
) -> tuple[int, http.client.HTTPMessage, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        return response.status, response.headers, response.read()
    finally:
        connection.close()


def ask(
    gateway: Gateway, method: str, path: str, headers: dict[str, str] | None = None, body: bytes | None = None
) -> tuple[int, Any]:
    """Status and JSON (or text) of one request to a listener that is started for it."""

    async def main() -> tuple[int, Any]:
        async with asyncio.timeout(60), admin(gateway) as server:
            status, got, content = await asyncio.to_thread(fetch, server.address[1], method, path, headers, body)
        if got.get_content_type() == "application/json":
            return status, json.loads(content)
        return status, content.decode()

    return asyncio.run(main())
