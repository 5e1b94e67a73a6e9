"""Settings of the two listeners: TLS, the admin side, bounds."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from narthex.config.kinds import ADDRESS, FILE, Choice, Count, Group, Setting, duration, size
from narthex.types import Address, Limits

BOUNDS = Limits()  # the defaults of bounds live beside the type that carries them
TLS_FILE = "PEM file, relative to the configuration file."


class TlsSettings(msgspec.Struct, frozen=True):
    """TLS of a listener. Changed files are taken up without a restart."""

    cert: Annotated[str | None, Setting(FILE, f"Certificate chain. {TLS_FILE}", default="required")] = None
    key: Annotated[str | None, Setting(FILE, f"Private key. {TLS_FILE}", default="required")] = None
    client_ca: Annotated[
        str | None,
        Setting(
            FILE, f"Ask clients for a certificate and verify it against these authorities. {TLS_FILE}", nullable=True
        ),
    ] = None
    client_auth: Annotated[
        Literal["required", "optional"],
        Setting(
            Choice(("required", "optional")),
            "Whether a client without a certificate is let in by TLS; one of another authority never is. `optional` is "
            "for clients of both kinds: those without one come with a token or a key.",
        ),
    ] = "required"


TLS = Group(TlsSettings, "a map `{cert, key, client_ca, client_auth}`")


class AdminSettings(msgspec.Struct, frozen=True):
    """The second listener: API, metrics and health. Loopback only while no identity is configured."""

    listen: Annotated[Address, Setting(ADDRESS, "Where the admin side listens. Port 0 lets the system choose.")] = (
        "127.0.0.1",
        8081,
    )
    tls: Annotated[TlsSettings | None, Setting(TLS, "TLS of the admin side.", nullable=True)] = None


class BoundSettings(msgspec.Struct, frozen=True):
    """Bounds of the public listener and of the process. Whatever goes beyond is refused early and clearly."""

    max_header: Annotated[int, Setting(size("1KiB", "1MiB"), "Largest request head.")] = BOUNDS.max_header
    max_body: Annotated[int, Setting(size("1KiB", "256MiB"), "Largest request body.")] = BOUNDS.max_body
    max_connections: Annotated[int, Setting(Count(1, 1_000_000), "Client connections at one time.")] = (
        BOUNDS.max_connections
    )
    max_calls: Annotated[int, Setting(Count(1, 1_000_000), "Calls in flight at one time, over all servers.")] = (
        BOUNDS.max_calls
    )
    max_waiting: Annotated[
        int,
        Setting(
            Count(1, 1_000_000),
            "Calls of one principal at one endpoint that wait for answers to what their servers ask. Each takes one of "
            "the places of its server meanwhile (`max_in_flight`), for minutes.",
        ),
    ] = BOUNDS.max_waiting
    max_held: Annotated[
        int, Setting(size("1MiB", "64GiB"), "Memory for bodies that are held back, over all calls.")
    ] = BOUNDS.max_held
    header_timeout: Annotated[float, Setting(duration("100ms", "10m"), "A request head arrives within this time.")] = (
        BOUNDS.header_timeout_s
    )
    body_timeout: Annotated[float, Setting(duration("100ms", "1h"), "A request body arrives within this time.")] = (
        BOUNDS.body_timeout_s
    )
    keep_alive: Annotated[float, Setting(duration("1s", "1h"), "An idle client connection is kept this long.")] = (
        BOUNDS.keep_alive_s
    )
    sse_comment: Annotated[float, Setting(duration("1s", "10m"), "A silent stream gets a comment this often.")] = (
        BOUNDS.sse_comment_s
    )
    drain_accept: Annotated[float, Setting(duration("0s", "5m"), "After SIGTERM: unready, but still accepting.")] = (
        BOUNDS.drain_accept_s
    )
    drain: Annotated[float, Setting(duration("0s", "1h"), "After SIGTERM: calls may finish within this time.")] = (
        BOUNDS.drain_s
    )
    principal_rate: Annotated[
        int,
        Setting(
            Count(0, 1_000_000),
            "Requests of any kind a second, of one principal; beyond, 429 before they are read. 0: no bound.",
        ),
    ] = BOUNDS.principal_rate
    address_rate: Annotated[
        int,
        Setting(
            Count(0, 1_000_000),
            "The same of one client address, counted before it is known who calls. 0: no bound.",
        ),
    ] = BOUNDS.address_rate
    session_ttl: Annotated[float, Setting(duration("1m", "30d"), "An unused legacy session ends after this long.")] = (
        BOUNDS.session_ttl_s
    )
