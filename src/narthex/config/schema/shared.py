"""`shared`: where several gateways count together."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

import msgspec

from narthex.config.document import Node, Path, Reading
from narthex.config.expand import Expanded
from narthex.config.kinds import FILE, SECRET_TEXT, Choice, Count, Group, JsonSchema, Scalar, Setting, duration

SCHEMES = {"valkey": False, "redis": False, "valkeys": True, "rediss": True}
PORT = 6379


class Place(msgspec.Struct, frozen=True):
    """A server, as its URL says it."""

    host: str
    port: int
    tls: bool
    database: int
    username: str
    written: str

    def __str__(self) -> str:
        return self.written


def parse_shared_url(text: str) -> Place:
    """Raises ValueError."""
    parts = urlsplit(text)
    if parts.scheme not in SCHEMES or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("a server is valkey:// or redis:// (with TLS valkeys:// or rediss://), host, port, /database")
    if parts.password is not None:
        raise ValueError(
            "a password in the URL could be read by anybody; write `password: ${secret:NAME}` beside `url`"
        )
    database = parts.path.strip("/") or "0"
    if not database.isdecimal() or len(database) > 4:
        raise ValueError(f"the database is a number, not '{database[:32]}'")
    try:
        port = parts.port or PORT
    except ValueError:
        raise ValueError("the port is a number up to 65535") from None
    return Place(parts.hostname, port, SCHEMES[parts.scheme], int(database), parts.username or "", text)


def parse_prefix(text: str) -> str:
    if not text.isascii() or not text.isprintable() or not 1 <= len(text) <= 64 or " " in text:
        raise ValueError("a prefix is 1 to 64 characters of ASCII without spaces")
    return text


URL = Scalar(
    "a URL", parse_shared_url, json={"pattern": "^(valkey|redis)s?://", "examples": ["valkey://127.0.0.1:6379"]}
)


class SharedSettings(msgspec.Struct, frozen=True):
    """One Valkey, or Redis 6.2 or newer, in which several gateways count together. The URL alone will do."""

    url: Annotated[
        Place | None,
        Setting(
            URL,
            "`valkey://` or `redis://`, with TLS `valkeys://` or `rediss://`; a user, a port (6379) and the number of a"
            " database may stand in it, a password may not.",
            default="required",
        ),
    ] = None
    password: Annotated[
        Expanded | None, Setting(SECRET_TEXT, "`${secret:NAME}`; of the user in the URL, or of `default`.", secret=True)
    ] = None
    ca: Annotated[
        str | None, Setting(FILE, "The authorities that its certificate is verified against.", default="the system's")
    ] = None
    cert: Annotated[str | None, Setting(FILE, "Our certificate, for a server that wants one.", default="none")] = None
    key: Annotated[str | None, Setting(FILE, "Its private key.", default="none")] = None
    prefix: Annotated[
        str, Setting(Scalar("a text", parse_prefix), "What all keys begin with. Gateways with the same count together.")
    ] = "narthex"
    timeout: Annotated[
        float, Setting(duration("10ms", "10s"), "So long a call waits for its counters, before `when_down` decides.")
    ] = 0.1
    when_down: Annotated[
        str,
        Setting(
            Choice(("local_share", "refuse", "allow")),
            "What becomes of limited calls while the server is away. `local_share`: each gateway gives its part of"
            " every limit, counted in its memory. `refuse`: `limits_unavailable`. `allow`: they go on, and are counted"
            " later.",
        ),
    ] = "local_share"
    processes: Annotated[
        int | None,
        Setting(
            Count(1, 10_000),
            "How many gateways share, for `local_share`.",
            default="as many as were there when the server was last heard",
        ),
    ] = None


class SharedKind(Group, frozen=True):
    """A map, or the URL alone."""

    def read(self, node: Node, path: Path, reading: Reading) -> SharedSettings:
        if node.shape == "text":
            return SharedSettings(url=URL.read(node, path, reading))
        found = super().read(node, path, reading)
        assert isinstance(found, SharedSettings)
        return found

    def schema(self) -> JsonSchema:
        return {"anyOf": [URL.schema(), super().schema()]}


SHARED = Setting(
    SharedKind(SharedSettings, "a URL, or a map `{url, password, when_down, …}`"),
    "Valkey or Redis, where several gateways share limits.",
    default="each gateway counts alone, in its memory",
    nullable=True,
)
