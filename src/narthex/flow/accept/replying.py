"""What an answer is written to: a client's connection, or the place of one message in a batch.

A base class and no `Protocol`, so that compiled code calls its methods directly.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from narthex.flow.held import Held


class Exchanging(Protocol):
    """What is running for a connection's current request: it is told what happens to the client's side."""

    def client_gone(self) -> None:
        """The client closed the connection."""

    def pause(self) -> None:
        """The client reads too slowly."""

    def resume(self) -> None: ...


class Replying:
    """Takes the answer to one request: whole by `respond`, or in pieces behind `begin_body`, until `end_body`."""

    __slots__ = ("exchange", "paused", "peer")

    def __init__(self) -> None:
        self.exchange: Exchanging | None = None
        """What is running for the current request; None while none is."""
        self.paused = False
        """The client reads too slowly."""
        self.peer: tuple[str, int] = ("", 0)
        """The client's address, as the socket has it."""

    @property
    def held(self) -> Held:
        """The budget of bytes that answers may hold, of all connections together."""
        raise NotImplementedError

    def respond(self, status: int, content_type: bytes, parts: Sequence[Any], size: int, extra: bytes = b"") -> None:
        """Write a whole answer: bytes-like `parts`, `size` their length together, `extra` header lines with CRLF."""
        raise NotImplementedError

    def respond_empty(self, status: int, extra: bytes = b"") -> None:
        """Write an answer without a body (202, 204 …)."""
        raise NotImplementedError

    def begin_body(self, status: int, content_type: bytes, size: int | None, extra: bytes = b"") -> bytes:
        """Start an answer whose body follows in pieces; returns the head, to be written with the first of them.

        `size` None: chunked, or for HTTP/1.0 until the connection closes.
        """
        raise NotImplementedError

    def frame(self, data: bytes) -> bytes:
        """`data` as one piece of the body begun: a chunk, where chunks are used."""
        raise NotImplementedError

    def write(self, data: bytes) -> None:
        """Write bytes of the answer that was begun."""
        raise NotImplementedError

    def end_body(self, before: bytes = b"") -> None:
        """End the body begun; `before` is written (framed already) ahead of the end in one piece."""
        raise NotImplementedError

    def abort(self) -> None:
        """Break off: the client must not take what it has for a whole answer."""
        raise NotImplementedError

    def unread(self) -> int:
        """Bytes that were written and that the client has not read yet, as far as we hold them."""
        return 0
