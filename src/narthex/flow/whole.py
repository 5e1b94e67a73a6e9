"""An HTTP/1.1 message that came whole in one read, parsed without a Python frame for each of its parts.

In: the bytes of one read. Out: the message, or None where it is anything but the plain case: in pieces, with something
behind it, with a header twice, in another framing or version, large, malformed. Then the general reader (`listener`,
`connection`) takes the same bytes from their start and decides. So nothing is refused here, and nothing is let pass
that the general reader would not: the same parser, llhttp, has read every byte.
Cases: `tests/flow/test_whole.py`, against the general readers. Source: RFC 9112 §6.

llhttp reports a header by calling a method. Here that is a method of a dict, which costs a tenth of a Python function;
names are made lower-case together, behind it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, Final

import httptools

MOST: Final = 64 * 1024
"""Bytes of a message above this are read piece by piece, against the budget of held bytes."""
MOST_HEADERS: Final = 100
MOST_TARGET: Final = 8192
NO_REPEATS: Final[frozenset[bytes]] = frozenset()
PARAM: Final = b"mcp-param-"
Headers = dict[bytes, bytes]
_MOST_NAMES: Final = 1024
_LONGEST_NAME: Final = 64
_LONGEST_LENGTH: Final = 10
_CR: Final = 13
_LF: Final = 10
_BLANKS: Final = (32, 9)
_FAULTS: Final = (httptools.HttpParserError, httptools.HttpParserUpgrade)


class HttpRequest:
    """One whole request. `headers`: lower-case names and the first value of each; `repeated`: names given again;
    `params`: those that begin with `Mcp-Param-`."""

    __slots__ = ("body", "headers", "method", "params", "path", "query", "repeated")

    def __init__(
        self,
        method: bytes,
        path: bytes,
        query: bytes,
        headers: Headers,
        repeated: frozenset[bytes],
        body: bytes,
        params: tuple[bytes, ...] = (),
    ) -> None:
        self.method: Final = method
        self.path: Final = path
        self.query: Final = query
        self.headers: Final = headers
        self.repeated: Final = repeated
        self.body: Final = body
        self.params: Final = params


class Line:
    """A header line that a client sends with each request, from the end of the line ahead of it to its own last
    character. Where it stands again, llhttp need not go through it byte by byte: a token is longer than all the rest.

    `text` is compared by Python's hash first, which is keyed by chance: it may hold a secret.
    """

    __slots__ = ("_hash", "_text", "name", "size", "start", "value")

    def __init__(self, text: bytes, name: bytes, value: bytes) -> None:
        self.name: Final = name
        self.value: Final = value
        self.size: Final = len(text)
        self.start: Final = text[: -len(value)]
        """What stands ahead of the value: where this is not in a message, the line is not."""
        self._text: Final = text
        self._hash: Final = hash(text)

    def is_at(self, data: bytes, at: int) -> bool:
        """Does it stand there, and is it one line, which the next does not go on with (RFC 9112 §5.2)?"""
        end = at + self.size
        text = data[at:end]
        if hash(text) != self._hash or text != self._text or len(data) <= end + 2:
            return False
        return data[end] == _CR and data[end + 1] == _LF and data[end + 2] not in _BLANKS


def line_of(data: bytes, name: bytes, value: bytes) -> Line | None:
    """The line of a header in a message that was read; `name` in lower case. None where it is written in an unusual
    way, with more than one blank or none."""
    ahead = b"\r\n%b: " % name
    at = data[: data.find(b"\r\n\r\n")].lower().find(ahead)
    end = at + len(ahead) + len(value)
    if at < 0 or not value or data[at + len(ahead) : end] != value or not data.startswith(b"\r\n", end):
        return None
    return Line(data[at:end], name, value)


class _Reader:
    """llhttp, and what it has found: emptied after each message, so that one serves all connections of a listener."""

    __slots__ = (
        "_asked", "_feed", "_found", "_names", "_params", "_targets", "on_header", "on_message_begin", "on_url",
    )  # fmt: skip

    def __init__(self) -> None:
        self._found: Headers = {}
        self._targets: list[bytes] = []
        self._params: list[bytes] = []
        self._names: Headers = {}  # as written, to lower case: few are ever seen, so each is made lower-case once
        self.on_header = self._found.setdefault
        self.on_url = self._targets.append
        self.on_message_begin: Callable[[], int] = itertools.count(1).__next__
        self._asked = 0
        self._feed = self._new_parser().feed_data

    def _new_parser(self) -> Any:
        raise NotImplementedError

    def _read(self, data: bytes) -> tuple[Headers, bytes] | None:
        """Headers by lower-case name, and the body, of a message that ends where `data` ends.

        Where the body begins follows from its length, and is not searched for: of what llhttp takes for one message,
        what stands behind an empty line and has that length can be nothing else.
        """
        found = self._found
        try:
            self._feed(data)
        except _FAULTS:
            self._forget()
            return None
        headers: Headers = {}
        names = self._names
        for name, value in found.items():
            headers[names.get(name) or self._lower(name)] = value
        length = headers.get(b"content-length", b"")
        start = len(data) - int(length) if length.isdigit() and len(length) < _LONGEST_LENGTH else -1
        if (
            not self._is_one()
            or start < 4
            or not data.startswith(b"\r\n\r\n", start - 4)
            or length != b"%d" % (len(data) - start)
            or len(headers) != data.count(b"\n", 0, start - 4)  # one twice, or folded; or llhttp sees another end
            or len(headers) > MOST_HEADERS
            or b"transfer-encoding" in headers
            or (b"connection" in headers and headers[b"connection"].lower() != b"keep-alive")
        ):
            self._forget()
            return None
        found.clear()
        return headers, data[start:]

    def _is_one(self) -> bool:
        """Has exactly one message begun since this was asked last?"""
        before, self._asked = self._asked, self.on_message_begin()
        return self._asked - before == 2  # the message, and the question

    def _lower(self, name: bytes) -> bytes:
        """A name that is not known yet. Those of parameters never are, so that all are seen, and stand in `_params`."""
        lower = name.lower()
        if lower.startswith(PARAM):
            self._params.append(lower)
        elif len(self._names) < _MOST_NAMES and len(name) <= _LONGEST_NAME:
            self._names[name] = lower
        return lower

    def _forget(self) -> None:
        """Begin anew: the parser may stand in the middle of something."""
        self._found.clear()
        self._targets.clear()
        self._params.clear()
        self._feed = self._new_parser().feed_data
        self._asked = self.on_message_begin()


class RequestReader(_Reader):
    """Reads requests: POST over HTTP/1.1 with a body of stated length, on a connection that stays open."""

    __slots__ = ()

    def _new_parser(self) -> Any:
        return httptools.HttpRequestParser(self)

    def read(self, data: bytes) -> HttpRequest | None:
        """The request that `data` is. Its path has no query."""
        if not data.startswith(b"POST /") or (message := self._read(data)) is None:
            return None
        headers, body = message
        target = self._targets.pop()
        if self._targets or not data.startswith(b" HTTP/1.1\r\n", 5 + len(target)):
            self._forget()
        elif b"?" not in target and len(target) <= MOST_TARGET and b"expect" not in headers:
            if self._params:
                params = tuple(self._params)
                self._params.clear()
                return HttpRequest(b"POST", target, b"", headers, NO_REPEATS, body, params)
            return HttpRequest(b"POST", target, b"", headers, NO_REPEATS, body)
        self._params.clear()
        return None

    def read_beside(self, data: bytes, line: Line) -> HttpRequest | None:
        """As `read`, whatever `data` is; where `line` is a line of its head, llhttp reads what stands around it.

        To llhttp a line of a head is one header, whatever came before it and comes behind it: it begins each in the
        same state. So what it makes of the rest is what it would make of the rest beside the line.
        """
        at = data.find(line.start)
        if at < 0 or not line.is_at(data, at):
            return self.read(data)
        rest = data[:at] + data[at + line.size :]
        request = self.read(rest)
        if request is not None:
            headers = request.headers
            in_head = at <= len(rest) - len(request.body) - 4  # at the last line's end, if not before it
            if in_head and line.name not in headers and len(headers) < MOST_HEADERS:
                headers[line.name] = line.value
                return request
        return self.read(data)


class AnswerReader(_Reader):
    """Reads answers: 200 over HTTP/1.1 with a body of stated length, on a connection that stays open."""

    __slots__ = ()

    def _new_parser(self) -> Any:
        return httptools.HttpResponseParser(self)

    def read(self, data: bytes) -> tuple[Headers, bytes] | None:
        """The headers and the body of one answer."""
        return self._read(data) if data.startswith(b"HTTP/1.1 200 ") else None
