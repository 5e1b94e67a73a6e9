"""Who may talk to the admin side: Host and Origin against DNS rebinding, a bounded body, a token or rules for writes.

Where other machines reach it, reads of the API need the same, those of approvals anywhere; probes and metrics need
nothing. Who does not have the token is admitted action by action, by the rules that decide calls. What is done, and
what is denied, is recorded.

In: every request, before any route. Out: the request, or a refusal as JSON.
Cases: `tests/admin/test_guard.py`, one row a rule.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any, Protocol, cast
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from narthex.admin.acts import TOKEN_HOLDER, entry_of_act
from narthex.admin.reply import error_reply
from narthex.config.values import is_loopback
from narthex.flow.policy.admin import action_of
from narthex.flow.policy.check import Check
from narthex.telemetry.record import Entry
from narthex.types import Principal, Snapshot

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
MAX_BODY = 64 * 1024
_READS = frozenset({"GET", "HEAD"})
_OPEN = frozenset({"/healthz", "/readyz", "/metrics"})
GUARDED = "/api/v1/approvals"
"""Below it reading needs the token too: it shows what others want to call."""
AUDIT = "/api/v1/audit"
"""Below it, too: it shows what others did. Who reads that is recorded, and so is who reads what calls have said."""
PAYLOADS = "/api/v1/payloads"
_READING_NEEDS_IT = (GUARDED, AUDIT, PAYLOADS)
_READING_IS_TOLD = (AUDIT, PAYLOADS)
_CALLER, _DID = "narthex.caller", "narthex.did"


def caller_of(scope: Scope) -> tuple[str, Principal | None]:
    """Who has passed the guard: in words for the record, and as a principal where they have proved to be one."""
    found: tuple[str, Principal | None] = scope[_CALLER]
    return found


def note(scope: Scope, **did: Any) -> None:
    """Say what an action has done, for its record: names and numbers, no secret and no payload."""
    scope[_DID] = did


def tenant_of(scope: Scope) -> str | None:
    """The tenant of whoever has passed the guard: they hear of no other. None for who is no principal: the token, or
    nobody where reading needs nothing."""
    _, principal = scope.get(_CALLER) or ("", None)
    return principal.tenant if principal is not None else None


class Admitting(Protocol):
    """What the guard asks the gateway."""

    @property
    def snapshot(self) -> Snapshot:
        """The configuration in force, asked for at each request."""

    async def caller(self, authorization: str) -> Principal | None:
        """Whom this value of `Authorization` proves."""

    async def admit(self, principal: Principal, action: str, address: str) -> Check:
        """May they do this? The check is decided."""

    def record(self, entry: Entry) -> None:
        """Keep this, where records are kept."""

    def not_let_in(self, source: str) -> None:
        """Somebody at this address has shown a credential that proves nothing."""


class Guard:
    """Wraps the admin app.

    Args:
        token: The admin token: who has it may do everything.
    """

    def __init__(self, app: ASGIApp, gateway: Admitting, token: str) -> None:
        self._app = app
        self._gateway = gateway
        self._is_far = not is_loopback(gateway.snapshot.admin_listen[0])
        self._token = token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        act = Act(self._gateway, scope)
        refusal = self._refusal(scope) or await self._unauthorized(scope, act)
        if act.principal is not None and (refusal is not None or _is_told(scope)):
            send = act.recording(send)
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        body = await _read_body(receive)
        if body is None:
            refusal = error_reply(413, "body_too_large", f"a body may have {MAX_BODY} bytes", {"connection": "close"})
            await refusal(scope, receive, send)
            return
        await self._app(scope, _replay(body, receive), send)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self._is_ours(hosts[0], scope):
            return error_reply(403, "host_not_allowed", "this Host is not served here")
        origins = headers.getlist("origin")
        if origins and not (len(origins) == 1 and self._is_origin(origins[0], hosts[0])):
            return error_reply(403, "origin_not_allowed", "this Origin may not call here")
        return None

    async def _unauthorized(self, scope: Scope, act: Act) -> Response | None:
        path = scope["path"]
        guarded = _is_below(path, _READING_NEEDS_IT)
        if scope["method"] in _READS and not guarded and (not self._is_far or path in _OPEN):
            return None
        given = Headers(scope=scope).getlist("authorization")
        if len(given) == 1 and self._is_token(given[0]):
            act.principal = TOKEN_HOLDER
            scope[_CALLER] = ("the admin token", None)
            return None
        if len(given) == 1 and (principal := await self._gateway.caller(given[0])) is not None:
            act.principal = principal
            scope[_CALLER] = (f"{principal.subject} of {principal.issuer}", principal)
            act.check = await self._gateway.admit(principal, act.action, act.source)
            if act.check.decision is not None and act.check.decision.effect == "allow":
                return None
            return error_reply(403, "denied", f"you may not do this: {act.action}")
        if given:
            self._gateway.not_let_in(act.source)
        challenge = {"www-authenticate": "Bearer"}
        return error_reply(401, "token_required", "this needs the token in the file admin.token", challenge)

    def _is_ours(self, host: str, scope: Scope) -> bool:
        """Names of loopback, what the operator names, and the very address that the request came to.

        An address cannot be rebound, only a name can; but a page may also be served from another host's address.
        """
        name = host_name(host)
        if name is None:
            return False
        snapshot = self._gateway.snapshot
        server = scope.get("server") or ("", 0)
        bound = {snapshot.admin_listen[0], server[0]} - {"0.0.0.0", "::"}
        return name in LOOPBACK or name in bound or _is_named(name, host, snapshot)

    def _is_origin(self, origin: str, host: str) -> bool:
        """The page must come from this very host and port, or from one that the operator names."""
        scheme, separator, rest = origin.lower().partition("://")
        if scheme not in ("http", "https") or not separator:
            return False
        name = host_name(rest)
        return name is not None and (rest == host.lower() or _is_named(name, rest, self._gateway.snapshot))

    def _is_token(self, given: str) -> bool:
        scheme, _, token = given.partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(token.strip().encode(), self._token)


def _is_told(scope: Scope) -> bool:
    """Is it recorded?"""
    return scope["method"] not in _READS or _is_below(scope["path"], _READING_IS_TOLD)


def _is_below(path: str, places: Sequence[str]) -> bool:
    return any(path == one or path.startswith(one + "/") for one in places)


class Act:
    """One request, on its way through the guard: who does what, and what rules say of it."""

    def __init__(self, gateway: Admitting, scope: Scope) -> None:
        self.gateway = gateway
        self.path: str = scope["path"]
        self.action = action_of(scope["method"], self.path)
        self.query = str(scope.get("query_string", b""), "latin-1")
        self._scope = scope
        self.source: str = (scope.get("client") or ("", 0))[0]
        self.principal: Principal | None = None
        self.check: Check | None = None
        self._began_at = time.monotonic()

    def recording(self, send: Send) -> Send:
        """`send` that keeps a record of what was done once its status is known."""

        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start" and self.principal is not None:
                seconds, revision = time.monotonic() - self._began_at, self.gateway.snapshot.revision
                self.gateway.record(
                    entry_of_act(
                        self.principal, self.check, self.action, self.path, self.source, message["status"], seconds,
                        revision, self.query, self._scope.get(_DID),
                    )
                )  # fmt: skip
            await send(message)

        return noting


def host_name(host: str) -> str | None:
    """The name in a Host header, lower-case, IPv6 without brackets; None when it is malformed."""
    try:
        parts = urlsplit(f"//{host}")
        name, _ = parts.hostname, parts.port
    except ValueError:
        return None
    if not name or parts.netloc != host or "@" in host or any(c in host for c in "/?#\\ \t"):
        return None
    try:
        return str(ip_address(name)) if ":" in name else name
    except ValueError:
        return None


def _is_named(name: str, host: str, snapshot: Snapshot) -> bool:
    """`allowed_hosts` may be written with a port, then it counts."""
    allowed = {one.lower() for one in snapshot.allowed_hosts}
    return name in allowed or f"[{name}]" in allowed or host.lower() in allowed


async def _read_body(receive: Receive) -> bytes | None:
    """The whole body; None when it is too large."""
    body = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return body  # the client has gone
        body += cast(bytes, message.get("body", b""))
        if len(body) > MAX_BODY:
            return None
        if not message.get("more_body", False):
            return body


def _replay(body: bytes, receive: Receive) -> Receive:
    left: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return left.pop() if left else await receive()

    return replay
