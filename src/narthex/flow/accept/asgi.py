"""What is not MCP on the public listener: a small bridge to an ASGI app, such as the one in `public`.

In: a whole request, its body already bounded by the listener. Out: a whole answer, at most `max_answer` bytes.
Answers are gathered before a byte is sent: they are documents and pages, and so an app that fails half-way gives a
clean 500 and can never disturb the framing of the connection. HTTP only: no WebSocket, no lifespan.
Cases: `tests/flow/accept/test_asgi.py`. Source: ASGI 3.0, HTTP & WebSocket message format 2.4; RFC 9110 §5, §7.6.1.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote_to_bytes

import msgspec

from narthex.errors import HttpRefusal
from narthex.flow.accept.listener import Connection
from narthex.flow.whole import HttpRequest

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_log = logging.getLogger("narthex.asgi")
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
_HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
_OURS = frozenset({b"content-length", b"content-type", b"date"})
_STATUSES = frozenset(status.value for status in HTTPStatus if status >= 200)
_EMPTY = frozenset({204, 304})
_JSON = b"application/json"


class BadAnswer(Exception):
    """The app broke the rules of ASGI or HTTP; its client sees a 500."""


class AsgiBridge:
    """Runs an ASGI app for single requests.

    Args:
        app: Any ASGI 3 app.
        max_calls: Requests at a time, those whose client still reads the answer included; more get 503.
        max_answer: Bytes of an answer's body.
        timeout_s: Seconds for the app, and again for the client to take the answer.
        scheme: `https` where the listener has TLS.
    """

    def __init__(
        self, app: App, *, max_calls: int = 64, max_answer: int = 1 << 20, timeout_s: float = 30.0, scheme: str = "http"
    ) -> None:
        self.app = app
        self.scheme = scheme
        self.max_calls = max_calls
        self.max_answer = max_answer
        self.timeout_s = timeout_s
        self.calls: set[AsgiCall] = set()

    def handle(self, connection: Connection, request: HttpRequest, path: bytes) -> AsgiCall:
        """Begin to answer `request` on its connection.

        Args:
            path: The path of the request's target, `Host` being checked.
        Raises:
            HttpRefusal: Too many requests at a time, or a path that is not ASCII.
        """
        if len(self.calls) >= self.max_calls:
            raise HttpRefusal(503, "overloaded", "too many requests at a time", headers=(("Retry-After", "1"),))
        call = AsgiCall(self, connection, request, scope_of(connection, request, path, self.scheme))
        self.calls.add(call)
        connection.exchange = call
        call.task = asyncio.ensure_future(call.run())
        call.task.add_done_callback(lambda _: self.calls.discard(call))
        return call

    async def close(self) -> None:
        """Give up what is running."""
        tasks = [call.task for call in self.calls]
        for call in list(self.calls):
            call.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class AsgiCall:
    """One request under way. The listener tells it when the client has gone."""

    task: asyncio.Future[None]

    def __init__(self, bridge: AsgiBridge, connection: Connection, request: HttpRequest, scope: Scope) -> None:
        self._bridge = bridge
        self._connection = connection
        self._scope = scope
        self._body: bytes | None = request.body
        self._head_only = request.method == b"HEAD"
        self._answer = _Answer(bridge.max_answer)
        self._gone = False

    def client_gone(self) -> None:
        self.cancel()

    def pause(self) -> None:
        """Nothing to do: the answer is bounded, and its place is held until the client has taken it."""

    def resume(self) -> None: ...

    def cancel(self) -> None:
        """Nobody waits any more."""
        self._gone = True
        self.task.cancel()

    async def run(self) -> None:
        """Run the app, send its answer, wait until the client has it. Only cancellation leaves this."""
        connection = self._connection
        answer = await self._ask()
        if self._gone:
            return
        answer.write(connection, self._head_only)
        try:
            async with asyncio.timeout(self._bridge.timeout_s):
                await connection.drain()
        except TimeoutError:
            connection.abort()

    async def _ask(self) -> _Answer:
        try:
            async with asyncio.timeout(self._bridge.timeout_s):
                await self._bridge.app(self._scope, self._receive, self._answer.take)
            self._answer.check(self._head_only)
            return self._answer
        except TimeoutError:
            _log.error("no answer in time: %s %s", self._scope["method"], self._scope["path"])
            return _error(503, "timeout", "no answer in time")
        except BadAnswer as error:
            _log.error("bad answer to %s %s: %s", self._scope["method"], self._scope["path"], error)
        except Exception:
            _log.exception("failed: %s %s", self._scope["method"], self._scope["path"])
        return _error(500, "internal", "internal error")

    async def _receive(self) -> Message:
        if self._body is None:
            # The client's end: it arrives as cancellation, and an app that waits for it here waits until then.
            await asyncio.get_running_loop().create_future()
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}


class _Answer:
    """Gathers what an app sends, and checks it."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._status = 0
        self._type = b"application/octet-stream"
        self._length: int | None = None
        self._lines = b""
        self._parts: list[bytes] = []
        self._size = 0
        self._ended = False

    async def take(self, message: Message) -> None:
        """ASGI's `send`. Raises BadAnswer."""
        kind = message["type"]
        if kind == "http.response.start" and not self._status:
            self.start(message["status"], message.get("headers", ()))
        elif kind == "http.response.body" and self._status and not self._ended:
            self.add(message.get("body", b""))
            self._ended = not message.get("more_body", False)
        else:
            raise BadAnswer(f"message {kind!r} is out of place")

    def start(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Check status and headers: nothing here may add a header, end the head, or change the framing."""
        if status not in _STATUSES:
            raise BadAnswer(f"status {status!r}")
        lines, seen = [], set()
        for name, value in headers:
            if not _NAME.fullmatch(name.lower()) or not _VALUE.fullmatch(value):
                raise BadAnswer(f"header {name!r} is malformed")
            name = name.lower()
            if name in _HOP_BY_HOP or (name in _OURS and name in seen):
                raise BadAnswer(f"header {name!r} is not the app's, or came twice")
            seen.add(name)
            if name == b"content-length":
                if not value.isdigit():
                    raise BadAnswer("malformed content-length")
                self._length = int(value)
            elif name == b"content-type":
                self._type = value
            elif name not in _OURS:
                lines.append(b"%b: %b\r\n" % (name.title(), value))
        self._status = status
        self._lines = b"".join(lines)

    def add(self, data: bytes) -> None:
        """Raises BadAnswer when the answer grows too large."""
        self._size += len(data)
        if self._size > self._most:
            raise BadAnswer(f"more than {self._most} bytes")
        if data:
            self._parts.append(bytes(data))

    def check(self, head_only: bool) -> None:
        """Raises BadAnswer unless the answer is whole."""
        if not self._ended:
            raise BadAnswer("the app returned before its answer was whole")
        if self._length not in (None, self._size) and not (head_only and not self._size):
            raise BadAnswer(f"content-length {self._length}, body of {self._size} bytes")
        if self._status in _EMPTY and self._size and not head_only:
            raise BadAnswer(f"a body with status {self._status}")

    def write(self, connection: Connection, head_only: bool) -> None:
        """Write the answer. For HEAD the length is that of the body which GET would have (RFC 9110 §8.6)."""
        if self._status in _EMPTY:
            connection.respond_empty(self._status, self._lines)
            return
        parts = () if head_only else tuple(self._parts)
        size = self._length if head_only and self._length is not None else self._size
        connection.respond(self._status, self._type, parts, size, self._lines)


def _error(status: int, reason: str, message: str) -> _Answer:
    body = error_body(reason, message)
    answer = _Answer(len(body))
    answer.start(status, [(b"content-type", _JSON), (b"cache-control", b"no-store")])
    answer.add(body)
    return answer


def error_body(reason: str, message: str) -> bytes:
    """An error outside of JSON-RPC as JSON."""
    return msgspec.json.encode({"error": reason, "message": message})


def scope_of(connection: Connection, request: HttpRequest, path: bytes, scheme: str) -> Scope:
    """The ASGI scope of a request.

    Raises:
        HttpRefusal: The path is not ASCII, or not UTF-8 once decoded: two readers could take it for two paths.
    """
    try:
        path.decode("ascii")
        decoded = unquote_to_bytes(path).decode()
        method = request.method.decode("ascii")
    except UnicodeDecodeError:
        raise HttpRefusal(400, "bad_target", "malformed request target") from None
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": method,
        "scheme": scheme,
        "path": decoded,
        "raw_path": path,
        "query_string": request.query,
        "root_path": "",
        "headers": list(request.headers.items()),
        "client": connection.peer,
        "server": None,
    }
