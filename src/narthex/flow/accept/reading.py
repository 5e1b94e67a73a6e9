"""Requests read piece by piece: llhttp parses, the bounds and what two parsers could read differently are ours.

In: the bytes of one connection, cut anywhere. Out: whole requests, in order, for the connection to take; or a refusal,
after which nothing on it can be trusted to be a request. A request that comes whole in one read never gets here
(`flow/whole.py`), so a connection has a `Reading` only once it needs one.
Cases: `tests/flow/accept/test_listener.py` (each row whole and byte by byte), `fuzz/connections.py`.
Source: RFC 9112 (HTTP/1.1), §6.1 and §6.3 on framing; RFC 9110 §10.1.1 (Expect).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httptools

from narthex.errors import HttpRefusal, Overloaded
from narthex.flow.held import LARGE
from narthex.flow.whole import MOST_HEADERS, MOST_TARGET, NO_REPEATS, PARAM, HttpRequest

if TYPE_CHECKING:
    from narthex.flow.accept.listener import Connection, Shared

_SINGLE = frozenset(
    {b"host", b"origin", b"content-type", b"authorization", b"mcp-session-id", b"expect", b"transfer-encoding"}
    | {b"content-length", b"accept", b"last-event-id"}
)
"""Headers that may not come twice: which one counts would be a matter of taste."""


class Reading:
    """One connection's requests in the making. It is llhttp's protocol."""

    __slots__ = (
        "_body_size", "_connection", "_first", "_handed", "_head_size", "_headers", "_held", "_in_body", "_old",
        "_parser", "_repeated", "_repeats", "_request_headers", "_rest", "_shared", "_target", "_upgrading",
    )  # fmt: skip

    def __init__(self, connection: Connection, shared: Shared) -> None:
        self._connection = connection
        self._shared = shared
        self._parser: Any = httptools.HttpRequestParser(self)
        self._handed = False  # has this read brought a whole request already?
        self._old = False
        self._target = b""
        self._first = b""
        self._rest = bytearray()  # not a list of pieces: a piece may be one byte
        self._headers: dict[bytes, bytes] = {}
        self._request_headers: dict[bytes, bytes] = {}
        self._repeated = NO_REPEATS
        self._repeats = 0
        self._body_size = 0
        self._head_size = 0
        self._in_body = False
        self._upgrading = False
        self._held = 0

    @property
    def begun(self) -> bool:
        """Is a part of a request here?"""
        return self._in_body or self._head_size > 0

    def feed(self, data: bytes) -> None:
        """Read on. Whole requests are handed to the connection; what cannot be one is refused there."""
        connection, self._handed = self._connection, False
        in_head = not self._in_body
        begun, bodied = self._head_size, self._body_size
        if in_head:
            self._head_size = begun + len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._after_upgrade(data[upgrade.args[0] :])
            connection.take_turns()
            return
        except httptools.HttpParserError as error:
            cause = error.__context__
            if isinstance(cause, (HttpRefusal, Overloaded)):
                connection.refuse(cause)
            else:
                connection.refuse(HttpRefusal(400, "bad_request", "malformed HTTP request", detail=str(error)))
            return
        connection.take_turns()
        if not connection.busy:
            if not in_head and self._in_body:  # trailers and chunk extensions are no body: they are bounded like a head
                self._head_size = self._head_size + len(data) if self._body_size == bodied else 0
            self._await_rest(in_head, begun)

    def _await_rest(self, was_in_head: bool, begun: int) -> None:
        """The request is not whole yet: bound the time and the size of the part that is under way."""
        limits = self._shared.limits
        if not self._head_size and not self._in_body and self._target:
            self._head_size = len(self._target) + _size(self._headers)  # begun behind another request, in one read
        if self._in_body:
            if was_in_head:
                self._connection.deadline = self._shared.clock() + limits.body_timeout_s
            if self._head_size > limits.max_header:
                self._connection.refuse(HttpRefusal(431, "headers_too_large", "the request's trailers are too large"))
        elif self._head_size > limits.max_header:
            self._connection.refuse(HttpRefusal(431, "headers_too_large", "the request's headers are too large"))
        elif self._head_size and not begun:
            self._connection.deadline = self._shared.clock() + limits.header_timeout_s

    def _upgrade_asked(self, has_body: bool) -> None:
        if self._parser.get_method() == b"CONNECT":
            raise HttpRefusal(405, "method_not_allowed", "there are no tunnels here", headers=(("Allow", "POST"),))
        self._upgrading = has_body

    def _after_upgrade(self, rest: bytes) -> None:
        """llhttp stops behind the head of an upgrade request. We never upgrade (RFC 9110 §7.8): a new parser reads on.

        A body belongs to this request, never to a next one: the new parser first reads a head that frames it the same.
        """
        before, self._parser = self._parser, httptools.HttpRequestParser(self)
        if self._upgrading:
            self._upgrading = False
            target, headers, repeated = self._target, self._request_headers, self._repeated
            self._reset()
            keep_alive = before.should_keep_alive()
            self._parser.feed_data(_head_again(before.get_method(), target, headers, self._old, keep_alive))
            self._request_headers, self._repeated = headers, repeated
            if not self._connection.busy:
                self._connection.deadline = self._shared.clock() + self._shared.limits.body_timeout_s
            if rest:
                self.feed(rest)
        elif rest:
            self._connection.take_turns()  # first: what has been read waits before what comes now
            self._connection.data_received(rest)

    def on_message_begin(self) -> None:
        self._connection.under_way = True

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name in self._headers:
            self._repeat(name)
        else:
            self._headers[name] = value

    def _repeat(self, name: bytes) -> None:
        if name in _SINGLE and not self._in_body:
            raise HttpRefusal(400, "repeated_header", "a header that may come once came twice")
        self._repeats += 1
        if self._repeats > MOST_HEADERS:
            raise HttpRefusal(431, "headers_too_large", "the request's headers are too many")
        self._repeated |= {name}

    def on_headers_complete(self) -> None:
        # What follows as a header is a trailer field: it must not pass for one of these (RFC 9110 §6.5.1).
        headers, self._headers = self._headers, {}
        self._request_headers = headers
        limits = self._shared.limits
        if len(headers) > MOST_HEADERS or (self._head_size > limits.max_header and _size(headers) > limits.max_header):
            raise HttpRefusal(431, "headers_too_large", "the request's headers are too large")
        if len(self._target) > MOST_TARGET:
            raise HttpRefusal(414, "target_too_long", "the request target is too long")
        version = self._parser.get_http_version()
        self._old = version != "1.1"
        if self._old and version != "1.0":
            raise HttpRefusal(505, "version_not_supported", "speak HTTP/1.1")
        coding = headers.get(b"transfer-encoding")
        length = headers.get(b"content-length")
        if coding is not None and (coding.lower() != b"chunked" or self._old or length is not None):
            raise HttpRefusal(400, "bad_framing", "this transfer coding is not accepted")
        if length is not None and int(length) > limits.max_body:
            raise HttpRefusal(413, "body_too_large", f"the body may have {limits.max_body} bytes")
        if b"expect" in headers:
            self._expected(headers[b"expect"], bool(length or coding))
        if self._parser.should_upgrade():
            self._upgrade_asked(coding is not None or (length is not None and int(length) > 0))
        self._in_body = True
        self._head_size = 0

    def _expected(self, expect: bytes, has_body: bool) -> None:
        if expect.lower() != b"100-continue":
            raise HttpRefusal(417, "expectation_failed", "only 100-continue can be expected")
        if not self._old and has_body and not self._connection.busy:
            self._connection.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, chunk: bytes) -> None:
        if not self._body_size:
            self._first, self._body_size = chunk, len(chunk)
        else:
            self._rest += chunk
            self._body_size += len(chunk)
        if self._body_size > LARGE:
            self._large_body(len(chunk))

    def _large_body(self, more: int) -> None:
        """Bound a body that did not come in one small piece, and count it against the budget of held bytes."""
        if self._body_size > self._shared.limits.max_body:
            raise HttpRefusal(413, "body_too_large", f"the body may have {self._shared.limits.max_body} bytes")
        if self._body_size - more > LARGE:
            self._shared.held.take(more)
            self._held += more
        else:
            self._shared.held.take(self._body_size)
            self._held = self._body_size

    def on_message_complete(self) -> None:
        if self._upgrading:
            return  # only its head is complete
        self._connection.under_way = False
        if self._connection.closing:
            return  # "Connection: close" was said: what came behind it is not processed (RFC 9112 §9.6)
        if self._body_size > self._shared.limits.max_body:
            raise HttpRefusal(413, "body_too_large", f"the body may have {self._shared.limits.max_body} bytes")
        body = self._first + self._rest if self._rest else self._first
        path, query = self._target, b""
        if b"?" in path:
            path, _, query = path.partition(b"?")
        parser = self._parser
        headers = self._request_headers
        params = tuple(name for name in headers if name.startswith(PARAM))
        request = HttpRequest(parser.get_method(), path, query, headers, self._repeated, body, params)
        keep_alive, old = parser.should_keep_alive(), self._old
        if self._held:
            self.release()
        self._target = self._first = b""  # `_first` too: a request without a body must not get the one before it
        self._body_size = self._head_size = 0
        self._in_body = False
        if self._rest or self._headers or self._repeated:
            self._reset()
        first, self._handed = not self._handed, True
        self._connection.take(request, keep_alive, old, first=first)

    def _reset(self) -> None:
        self._target = self._first = b""
        self._headers = {}
        self._repeated, self._repeats = NO_REPEATS, 0
        if self._rest:
            self._rest = bytearray()
        self._body_size = self._head_size = 0
        self._in_body = False

    def release(self) -> None:
        """Give back what the body under way holds."""
        self._shared.held.give(self._held)
        self._held = 0


def _size(headers: dict[bytes, bytes]) -> int:
    return sum(map(len, headers)) + sum(map(len, headers.values()))


def _head_again(method: bytes, target: bytes, headers: dict[bytes, bytes], old: bool, keep_alive: bool) -> bytes:
    """A head with the framing of another one, and without its wish for an upgrade."""
    length = headers.get(b"content-length")
    framing = b"Transfer-Encoding: chunked" if length is None else b"Content-Length: " + length
    connection = b"keep-alive" if keep_alive else b"close"
    version = b"1.0" if old else b"1.1"
    return b"%b %b HTTP/%b\r\n%b\r\nConnection: %b\r\n\r\n" % (method, target, version, framing, connection)
