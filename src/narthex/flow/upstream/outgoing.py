"""One request to an upstream, as every way to one takes it. A class and no struct, as `narthex.call.Call` is."""

from __future__ import annotations


class Outgoing:
    """One request to an upstream.

    `id` is ours, unique on its channel (`Channel.next_id`), and stands in `body`. A progress token in `body`, if any,
    equals `id`: so a shared pipe knows whose progress it is. `name` is what `Mcp-Name` says, None where it is not sent.
    `resend` allows a second sending when the connection dies after bytes were written. `lines` are further
    headers, each with its CRLF, sent by Streamable HTTP alone. `status` is what comes back: the HTTP status that it was
    last answered with; 0 for none yet, and over stdio.
    """

    __slots__ = ("body", "id", "lines", "method", "name", "resend", "status")

    def __init__(
        self, id: int, method: str, body: bytes, name: str | None = None, resend: bool = False, lines: bytes = b""
    ) -> None:
        self.id = id
        self.method = method
        self.body = body
        self.name = name
        self.resend = resend
        self.lines = lines
        self.status = 0
