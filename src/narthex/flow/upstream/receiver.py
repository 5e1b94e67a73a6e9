"""Who gets the answer to one HTTP request. A `Protocol` that classes inherit, so it is not compiled."""

from __future__ import annotations

from typing import Protocol


class Receiver(Protocol):
    """Who gets the answer to one HTTP request: all of it by `whole`, or in parts. `lost` or `end` comes last, once."""

    def whole(self, headers: dict[bytes, bytes], body: bytes) -> None:
        """A plain answer of status 200 that came in one read: `head`, `body` and `end` in one."""
        self.head(200, headers, len(body))
        self.body(body)
        self.end()

    def head(self, status: int, headers: dict[bytes, bytes], length: int | None) -> None: ...

    def body(self, data: bytes) -> None: ...

    def end(self) -> None: ...

    def lost(self, detail: str, *, sent: bool, begun: bool) -> None:
        """The connection died: `sent` once a byte was written, `begun` once the answer's head was read."""
