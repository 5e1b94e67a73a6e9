"""The public side of the gateway: a whole HTTP request in, the right thing done with it.

Checks in this order, cheapest first: who may talk to us at all (Host, Origin), which endpoint, which method, what the
body says, which era it speaks, which session; then a local answer, a list, or an `Exchange`.
Cases: `tests/flow/accept/test_front.py`, `tests/e2e/test_requests.py`.
Source: MCP 2026-07-28 and 2025-11-25, Streamable HTTP transport; design §5 and §6.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from typing import Any

import msgspec

from narthex import __version__
from narthex.errors import CodecError, GatewayError, HttpRefusal, InvalidParams, Overloaded
from narthex.flow.accept.asgi import AsgiBridge
from narthex.flow.accept.exchange import JSON, Exchange
from narthex.flow.accept.hosts import HostCheck
from narthex.flow.accept.listener import Connection
from narthex.flow.accept.sessions import Sessions
from narthex.flow.codec.inbound import read_params
from narthex.flow.codec.jsonrpc import (
    UNSET,
    Id,
    Request,
    decode_request,
    encode,
    encode_error,
    encode_result,
    read_string,
)
from narthex.flow.codec.revisions import (
    ERA_OF_HEADER,
    LATEST_LEGACY,
    LEGACY,
    META_SERVER,
    MODERN,
    era_of,
    read_meta,
)
from narthex.flow.route.patterns import compile_globs
from narthex.flow.upstream.fleet import Fleet, Viewer
from narthex.flow.walk import LISTS, SERVED
from narthex.flow.whole import HttpRequest
from narthex.telemetry.accounts import OUTCOME, Accounts, outcome_of
from narthex.telemetry.log import Logs
from narthex.types import LOCAL, Call, EndpointSpec, Era, ServerSpec, Session, Snapshot

_log = logging.getLogger("narthex.front")
_OK = OUTCOME["ok"]
CAPABILITIES: dict[str, dict[str, Any]] = {"tools": {}, "prompts": {}, "resources": {}, "completions": {}}
SERVER_INFO = {"name": "narthex", "title": "Narthex MCP gateway", "version": __version__}
LIST_TTL_MS = 10_000
"""How long a modern client may keep a whole list; one with a server missing it may not keep at all."""
_TAKES: dict[bytes | None, tuple[bool, bool]] = {None: (True, True)}


class Front:
    """Everything the public listener does, for one process. `snapshot` and `fleet` are swapped by a reload.

    Args:
        clock: Monotonic seconds. new_id: a decision id, lower-case UUID.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        fleet: Fleet,
        sessions: Sessions,
        accounts: Accounts,
        logs: Logs | None,
        bridge: AsgiBridge,
        *,
        clock: Callable[[], float],
        new_id: Callable[[], str],
    ) -> None:
        self.fleet = fleet
        self.sessions = sessions
        self.accounts = accounts
        self.logs = logs
        self.clock = clock
        self.tick = clock()
        self.new_id = new_id
        self.active: set[Exchange] = set()
        self.streams: set[Exchange] = set()
        self._bridge = bridge
        self._cancellable: dict[tuple[str, bytes], Exchange] = {}
        self.apply(snapshot)

    def apply(self, snapshot: Snapshot) -> None:
        """Take over a new snapshot; running calls keep what they have."""
        self.snapshot = snapshot
        self._log_calls = snapshot.log_calls
        self._max_calls = snapshot.limits.max_calls
        self._call_s = max((one.call_timeout_s for one in snapshot.servers.values()), default=60.0)
        self._hosts = HostCheck(snapshot)
        self._paths: dict[bytes, EndpointSpec] = {}
        for name, endpoint in snapshot.endpoints.items():
            for path in (f"/mcp/{name}", *(["/mcp"] if name == "default" else [])):
                self._paths[path.encode()] = self._paths[path.encode() + b"/"] = endpoint
        self._idempotent = {
            name: compile_globs(one.idempotent) for name, one in snapshot.servers.items() if one.idempotent
        }

    # --- HTTP

    def handle(self, connection: Connection, request: HttpRequest) -> None:
        """Answer one request on its connection, now or later. Never raises."""
        headers, path = request.headers, request.path
        try:
            endpoint = self._paths.get(path)
            if endpoint is None or headers.get(b"host") not in self._hosts.passed or b"origin" in headers:
                if path == b"/healthz":  # asked by probes, which know no name of ours
                    connection.respond(200, b"text/plain", (b"ok\n",), 3)
                    return
                path = self._hosts.check(connection.peer[0], request)
                endpoint = self._paths.get(path)
            if endpoint is None:
                self._bridge.handle(connection, request, path)
            elif request.method == b"POST":
                self._post(connection, request, endpoint)
            elif request.method == b"DELETE":
                self._delete(connection, request, endpoint)
            else:
                # No GET stream in this version: what a server would push is refused (2025-11-25 allows 405 here).
                raise HttpRefusal(405, "method_not_allowed", "POST here", headers=(("Allow", "POST, DELETE"),))
        except GatewayError as error:
            self._refuse(connection, None, error, "modern")
        except Exception:
            _log.exception("a request failed in the gateway")
            self._refuse(connection, None, GatewayError(), "modern")

    def _delete(self, connection: Connection, request: HttpRequest, endpoint: EndpointSpec) -> None:
        handle = request.headers.get(b"mcp-session-id")
        if handle is None:
            raise HttpRefusal(405, "method_not_allowed", "there is no session to end", headers=(("Allow", "POST"),))
        session = self.sessions.end(handle, LOCAL, endpoint.name)
        for key in [key for key in self._cancellable if key[0] == session.id]:
            self._cancellable[key].cancel("the session was ended")
        connection.respond_empty(204)

    def _post(self, connection: Connection, request: HttpRequest, endpoint: EndpointSpec) -> None:
        headers = request.headers
        kind = headers.get(b"content-type", b"")
        if kind != JSON and kind.partition(b";")[0].strip().lower() != JSON:
            raise HttpRefusal(415, "unsupported_media_type", "the body must be application/json")
        if b"content-encoding" in headers:
            raise HttpRefusal(415, "unsupported_encoding", "the body must not be compressed")
        accept = headers.get(b"accept")
        takes_json, takes_events = _TAKES.get(accept) or takes(accept)
        if not takes_json:
            raise HttpRefusal(406, "not_acceptable", "accept application/json and text/event-stream")
        message = decode_request(request.body)
        method, params = message.method, message.params
        id_ = None if message.id is UNSET else message.id
        era: Era = "modern"
        try:
            said = ERA_OF_HEADER.get(headers.get(b"mcp-protocol-version"))
            version, era = (
                said
                if said is not None and method != "initialize"
                else era_of(headers.get(b"mcp-protocol-version"), message, request.body)
            )
            session = None
            if era == "legacy" and b"mcp-session-id" in headers and method != "initialize":
                session = self.sessions.find(headers[b"mcp-session-id"], LOCAL, endpoint.name)
            if id_ is None:
                self._notified(message, session)
                connection.respond_empty(202)
                return
            meta, name = read_params(message, version, era, headers, request.repeated)
            id_json = b"%d" % id_ if id_.__class__ is int else encode(id_)
            call = Call(method, params, meta, id_json, era, version, LOCAL, endpoint.name, name, session)
            if method not in SERVED:
                self._answer(connection, call, endpoint)
                return
            active = self.active
            if len(active) >= self._max_calls:
                raise Overloaded("the gateway has too many calls")
            viewer = self.fleet.viewer(endpoint, LOCAL, session)
            now = self.clock()
            one = Exchange(self, connection, call, viewer, len(request.body), takes_events, now, now + self._call_s)
            connection.exchange = one
            active.add(one)
            if session is not None:
                self._cancellable[session.id, id_json] = one
            one.start()
        except GatewayError as error:
            self._refuse(connection, id_, error, era)

    # --- answered here

    def _answer(self, connection: Connection, call: Call, endpoint: EndpointSpec) -> None:
        if call.method in LISTS:
            self._list(connection, call, endpoint)
        else:
            self._local(connection, call, endpoint)

    def _local(self, connection: Connection, call: Call, endpoint: EndpointSpec) -> None:
        extra = b""
        result: dict[str, Any] = {}
        if call.method == "initialize":
            asked = read_string(call.params, "protocolVersion")
            version = asked if asked in LEGACY else LATEST_LEGACY
            result = {"protocolVersion": version, "capabilities": CAPABILITIES, "serverInfo": SERVER_INFO}
            handle = self.sessions.create(call.principal, endpoint.name, version)
            extra = b"Mcp-Session-Id: %b\r\n" % handle.encode()
        elif call.method == "server/discover":
            result = {
                "resultType": "complete",
                "supportedVersions": list(MODERN),
                "capabilities": CAPABILITIES,
                "ttlMs": LIST_TTL_MS,
                "cacheScope": "private",
                "_meta": {META_SERVER: SERVER_INFO},
            }
        body = encode_result(self.decode_id(call.id_json), result)
        connection.respond(200, JSON, (body,), len(body), extra)
        self.accounts.counter(endpoint.name, "", call.method).add(_OK, 0.0, 0, len(body))

    def _list(self, connection: Connection, call: Call, endpoint: EndpointSpec) -> None:
        if "cursor" in call.params and bytes(call.params["cursor"]) != b"null":
            raise InvalidParams("unknown cursor")  # we hand out none: a list is one page
        viewer = self.fleet.viewer(endpoint, call.principal, call.session)
        _Listing(self, connection, call, viewer).start()

    def _notified(self, message: Request, session: Session | None) -> None:
        """A notification of a client: a cancellation is carried out, the rest ask nothing of us."""
        params = message.params
        if "_meta" in params:
            read_meta(params)
        if message.method == "notifications/cancelled" and session is not None and "requestId" in params:
            one = self._cancellable.get((session.id, bytes(params["requestId"])))
            if one is not None:
                one.cancel("the client cancelled the request")

    # --- for exchanges

    def is_idempotent(self, spec: ServerSpec, name: str) -> bool:
        """Does the operator call this tool safe to send twice?"""
        matches = self._idempotent.get(spec.name)
        return matches is not None and matches(name)

    def forget(self, one: Exchange) -> None:
        """An exchange is over."""
        self.active.discard(one)
        self.streams.discard(one)
        if one.call.session is not None:
            key = (one.call.session.id, one.call.id_json)
            if self._cancellable.get(key) is one:
                del self._cancellable[key]

    def account(self, one: Exchange, outcome: int, size: int, detail: str = "", decision_id: str = "") -> None:
        """Count a call that was answered, and log it where that is asked for; an error with the id that it carries."""
        call = one.call
        seconds = self.clock() - one.began_at
        key = (call.endpoint, one.server_name, call.method, one.target_name)
        self.accounts.counters[key].add(outcome, seconds, one.size_in, size)
        if self._log_calls and self.logs is not None:
            self.logs.call_line(
                endpoint=call.endpoint, server=one.server_name, method=call.method, name=one.target_name or call.name,
                outcome=outcome, seconds=seconds, bytes_out=size, detail=detail, decision_id=decision_id,
            )  # fmt: skip

    @staticmethod
    def decode_id(raw: bytes) -> Id:
        """The client's id as a value."""
        return msgspec.json.decode(raw, type=int | str)

    # --- refusals

    @staticmethod
    def status_of(error: GatewayError, era: Era) -> int:
        """The HTTP status of an error whose request's id is known: a legacy client drops the body of other statuses."""
        if era == "legacy" and error.code in (-32601, -32602):
            return 200
        return error.status

    @staticmethod
    def retry_header(error: GatewayError, status: int) -> bytes:
        """Retry-After for a refusal by status (RFC 9110 §10.2.3)."""
        seconds = (error.data or {}).get("retryAfterSeconds")
        return b"Retry-After: %d\r\n" % math.ceil(seconds) if seconds is not None and status >= 400 else b""

    def _refuse(self, connection: Connection, id_: Id | None, error: GatewayError, era: Era) -> None:
        body = encode_error(id_, error, self.new_id())
        status = self.status_of(error, era)
        extra = self.retry_header(error, status)
        if isinstance(error, HttpRefusal):
            extra += "".join(f"{name}: {value}\r\n" for name, value in error.headers).encode()
        connection.respond(status, JSON, (body,), len(body), extra)
        self.accounts.counter("", "", "refused").add(outcome_of(error), 0.0, 0, len(body))
        if error.code == -32603:
            _log.error("refused: %s %s", error.public, error.detail)
        elif isinstance(error, (CodecError, HttpRefusal)):
            _log.debug("refused: %s %s", error.public, error.detail)

    # --- upkeep

    def sweep(self) -> None:
        """Once a second: end what is past its deadline, keep silent streams alive."""
        now = self.tick = self.clock()
        for one in [one for one in self.active if one.deadline < now]:
            one.expire()
        quiet_s = self.snapshot.limits.sse_comment_s
        for one in [one for one in self.streams if now - one.sse_at >= quiet_s]:
            one.comment(now)


class _Listing:
    """A list under way: from memory at once, else when the servers have answered."""

    def __init__(self, front: Front, connection: Connection, call: Call, viewer: Viewer) -> None:
        self._front = front
        self._connection: Connection | None = connection
        self._call = call
        self._viewer = viewer
        self._began_at = front.clock()

    def start(self) -> None:
        kind = LISTS[self._call.method]
        fleet = self._front.fleet
        view = fleet.fresh(self._viewer, kind)
        if view is not None:
            self._answer(view)
            return
        assert self._connection is not None
        self._connection.exchange = self
        task = asyncio.ensure_future(fleet.listing(self._viewer, kind))
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Future[Any]) -> None:
        if self._connection is None:
            return
        error = Overloaded("the configuration has changed; try again") if task.cancelled() else task.exception()
        if error is None:
            self._answer(task.result())
            return
        if not isinstance(error, GatewayError):
            _log.error("a list failed in the gateway: %r", error)
            error = GatewayError()
        self._front._refuse(self._connection, Front.decode_id(self._call.id_json), error, self._call.era)

    def _answer(self, view: Any) -> None:
        front, call, connection = self._front, self._call, self._connection
        assert connection is not None
        prefix = b""
        if call.era == "modern":
            ttl_ms = 0 if view.index.missing else LIST_TTL_MS
            prefix = b'"resultType":"complete","ttlMs":%d,"cacheScope":"private",' % ttl_ms
        body = view.body(prefix)
        parts = (b'{"jsonrpc":"2.0","id":', call.id_json, b',"result":', body, b"}")
        size = len(body) + len(call.id_json) + 33
        connection.respond(200, JSON, parts, size)
        front.accounts.counter(call.endpoint, "", call.method).add(_OK, front.clock() - self._began_at, 0, size)

    def client_gone(self) -> None:
        self._connection = None

    def pause(self) -> None: ...

    def resume(self) -> None: ...


def takes(accept: bytes | None) -> tuple[bool, bool]:
    """Whether a client accepts JSON, and event streams. Parameters and order are nobody's business here."""
    if accept is None:
        return True, True
    kinds = {part.partition(b";")[0].strip().lower() for part in accept.split(b",")}
    anything = b"*/*" in kinds
    known = (
        anything or bool(kinds & {b"application/json", b"application/*"}),
        anything or bool(kinds & {b"text/event-stream", b"text/*"}),
    )
    if len(_TAKES) < 256:
        _TAKES[accept] = known
    return known
