"""What the gateway asks of a way to an upstream. Three ways keep it: `http`, `sse` (2024-11-05), `stdio`.

A `Channel` is one negotiated conversation with one server: a stateless target (modern HTTP), a session (legacy HTTP),
or a process (stdio). Everything here is called on the event loop and returns at once; answers come to the `Sink`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

import msgspec

from narthex.errors import GatewayError
from narthex.flow.codec.messages import Incoming
from narthex.flow.upstream.outgoing import Outgoing as Outgoing
from narthex.types import Era, ServerSpec


class Certificate(msgspec.Struct, frozen=True):
    """A client certificate and its key, both PEM."""

    chain: str
    key: str

    def __repr__(self) -> str:
        return "Certificate(…)"


class Shown(Protocol):
    """What a channel shows its server of us: one account there. `lines` is looked at anew for each request.

    Raises:
        CredentialUnavailable: From any of the methods: it cannot be had; nothing was sent.
    """

    @property
    def lines(self) -> bytes | None:
        """Header lines, each with its CRLF. None: they must be had first (`obtain`)."""

    @property
    def epoch(self) -> int:
        """Another one than before: what a channel was opened with (environment, query, certificate) is not that any
        more, and another channel is to be opened."""

    async def obtain(self) -> bytes:
        """The lines, fetched where they must be; many callers cause one fetch."""

    async def again(self, status: int, challenge: bytes, request: bytes) -> bytes | None:
        """The server has refused this whole request, with this `WWW-Authenticate`. Other lines to send it with, once;
        None: there are none, and its refusal stands."""

    def environment(self) -> tuple[tuple[str, str], ...]: ...

    def query(self) -> str: ...

    def certificate(self) -> Certificate | None: ...

    def keep(self, *, used: bool) -> None:
        """There is a channel that shows it; where that was used just now, what it shows is renewed before it ends."""


class ShowsNothing:
    """See `Shown`: a server that is shown nothing."""

    lines: bytes | None = b""
    epoch = 0

    async def obtain(self) -> bytes:
        return b""

    async def again(self, status: int, challenge: bytes, request: bytes) -> bytes | None:
        return None

    def environment(self) -> tuple[tuple[str, str], ...]:
        return ()

    def query(self) -> str:
        return ""

    def certificate(self) -> Certificate | None:
        return None

    def keep(self, *, used: bool) -> None:
        return


NOTHING_SHOWN = ShowsNothing()


class Accounts(Protocol):
    """What the fleet asks of those who hold the credentials."""

    def shown(self, spec: ServerSpec, scope: tuple[str, ...]) -> Shown:
        """What a channel of this scope shows the server."""

    def apply(self, servers: Iterable[ServerSpec]) -> None:
        """These are the servers now."""

    def sweep(self) -> None:
        """Once a second."""


class NoAccounts:
    """See `Accounts`: no server is shown anything."""

    def shown(self, spec: ServerSpec, scope: tuple[str, ...]) -> Shown:
        return NOTHING_SHOWN

    def apply(self, servers: Iterable[ServerSpec]) -> None:
        return

    def sweep(self) -> None:
        return


class Behalf(msgspec.Struct, frozen=True):
    """On whose behalf a channel is opened.

    `capabilities` is what we declare that the client can do; `one_session`: the channel serves one client session
    alone, so that what the server asks can only be meant for that client; `shown`: the account with the server.
    """

    capabilities: dict[str, Any] = {}
    one_session: bool = False
    shown: Shown = NOTHING_SHOWN


NOBODY = Behalf()


class Dialect(msgspec.Struct, frozen=True):
    """What was negotiated with an upstream. `capabilities` and `server_info` are as received; never trusted."""

    era: Era
    version: str
    capabilities: dict[str, Any] = {}
    server_info: dict[str, Any] = {}
    instructions: str | None = None
    session_id: str | None = None


class Sink(Protocol):
    """Where the answer to one `Outgoing` goes. After `finished` or `failed` nothing more comes."""

    def started(self, streaming: bool) -> None:
        """The server has begun to answer; `streaming` when it chose an event stream. Optional: stdio never calls it."""

    def message(self, message: Incoming) -> None:
        """One whole message: a notification or server request that belongs to this call, or its response."""

    def splice(self, head: bytes, total: int) -> bool:
        """Offer to hand over a large JSON body of `total` bytes as it arrives, `head` being its first bytes.

        True accepts: `chunk` follows with every byte (`head` included), then `finished`. False: one `message` comes.
        """

    def chunk(self, data: bytes) -> None:
        """Bytes of a spliced body, in order."""

    def finished(self) -> None:
        """The server's answer has ended. An error for the caller if no response came before."""

    def failed(self, error: GatewayError) -> None:
        """The call cannot be answered. `UpstreamUnavailable.sent` says whether the server may have acted."""


class Own(Sink):
    """The sink of a request of ours: no client waits for it, so nothing that a server asks can belong to it."""


class Flight(Protocol):
    """A request under way."""

    def pause(self) -> None:
        """Stop reading the answer, where it has a stream of its own. A shared pipe goes on: its sink bounds itself."""

    def resume(self) -> None: ...

    def cancel(self, reason: str) -> None:
        """Nobody waits any more: tell the server in its era's way and call the sink no more."""


class Channel(Protocol):
    """One negotiated conversation with one server."""

    dialect: Dialect
    alive: bool
    """False once it cannot take a request: closed, dead, or its session lost. Never becomes True again."""
    last_used: float
    """Monotonic seconds; kept by the caller, for reaping what is idle."""
    open_calls: int
    """Kept by the caller."""

    def next_id(self) -> int:
        """A JSON-RPC id never used before on this channel."""

    def request(self, out: Outgoing, sink: Sink) -> Flight:
        """Send; never raises for what the upstream does (that comes to `sink.failed`, possibly before this returns)."""

    def notify(self, body: bytes) -> None:
        """Send a notification or a response; nothing is awaited, failure is logged."""

    async def close(self) -> None:
        """End the conversation politely (DELETE, closing stdin), within 2 s by force. Idempotent."""


class SessionLost(GatewayError):
    """The upstream no longer knows our session (404). Nothing was done: open a new one and send once more."""

    code, status, reason = -31005, 200, "upstream_unavailable"
