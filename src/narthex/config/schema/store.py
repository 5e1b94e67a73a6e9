"""`store`: what keeps API keys, secrets, held calls and costs."""

from __future__ import annotations

import re
from typing import Annotated, cast, get_args
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from narthex.config import values
from narthex.config.document import Node, Path, Reading
from narthex.config.expand import Expanded
from narthex.config.kinds import SECRET_TEXT, Group, JsonSchema, Setting, Template
from narthex.stores import PostgresSpec, SslMode

PORT = 5432
SOCKETS = "/var/run/postgresql"
KNOWN = ("host", "port", "sslmode", "sslrootcert", "sslcert", "sslkey", "schema")
_MODES = get_args(SslMode)


def parse_store(text: str) -> str | PostgresSpec:
    """A path relative to the configuration file, or a database. No message has the text in it: it may hold a password.

    Source: PostgreSQL 15, 34.1.1.2 (connection URIs); of the parameters of libpq those in `KNOWN`, and `schema`.
    """
    if text.partition("://")[0] not in ("postgresql", "postgres"):
        return values.parse_store(text)
    try:
        parts = urlsplit(text)
        asked = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
        port = int(asked.get("port", "") or parts.port or PORT)
        host = unquote(asked.get("host", "") or parts.hostname or SOCKETS)
    except ValueError:
        raise ValueError(_NO_URL) from None
    if parts.fragment or set("/@") & set(parts.path[1:]):
        raise ValueError(_NO_URL)
    if unknown := sorted(asked.keys() - set(KNOWN)):
        raise ValueError(f"'{unknown[0][:32]}' is not known here; after ? may stand {', '.join(KNOWN)}")
    if not 0 < port < 65536 or "," in host or re.search(r"[\s\0]", host):
        raise ValueError("a database is on one host, at a port up to 65535")
    user = unquote(parts.username or "") or "narthex"
    database = unquote(parts.path.removeprefix("/")) or user
    for word in (user, database):
        if not word.isprintable() or len(word.encode(errors="replace")) > 63:
            raise ValueError("a user and a database have names of 1 to 63 printable characters")
    schema = asked.get("schema", "narthex")
    if not re.fullmatch(r"[a-z_][a-z0-9_]{0,62}", schema):
        raise ValueError("a schema is 1 to 63 of a-z, 0-9 and _")
    ca = asked.get("sslrootcert", "")
    mode = asked.get("sslmode", "disable" if _is_here(host) and not ca else "verify-full")
    if mode in ("allow", "prefer"):
        raise ValueError(f"sslmode={mode} goes on in the clear where somebody in between wants that; {_CHOICE}")
    if mode not in _MODES:
        raise ValueError(f"sslmode is not known; {_CHOICE}")
    if mode == "require" and ca:
        mode = "verify-ca"  # as libpq has it: whoever names authorities wants them asked
    return PostgresSpec(
        host=host,
        port=port,
        database=database,
        user=user,
        password=unquote(parts.password or ""),
        sslmode=cast(SslMode, mode),
        ca="" if ca == "system" else ca,
        cert=asked.get("sslcert", ""),
        key=asked.get("sslkey", ""),
        schema=schema,
    )


_NO_URL = "that is no URL of PostgreSQL; a password with @ : / ? # in it is written beside it, in `password`"
_CHOICE = f"write {', '.join(_MODES[:0:-1])} or {_MODES[0]}"


def _is_here(host: str) -> bool:
    return host.startswith("/") or host in ("localhost", "127.0.0.1", "::1")


def is_in_the_clear(place: PostgresSpec) -> bool:
    """Does what is said to it go over a network as it is?"""
    return place.sslmode == "disable" and not _is_here(place.host)


URL = Template("a URL", parse_store, json={"examples": ["sqlite:///.narthex/narthex.db"]})


class StoreSettings(msgspec.Struct, frozen=True):
    """A file of SQLite, or a database of PostgreSQL 14 or newer. The URL alone will do."""

    url: Annotated[
        Expanded | None,
        Setting(
            URL,
            "`sqlite:///PATH`, relative to this file, made when something needs it; or `postgresql://USER@HOST/DATABASE`"
            " with `?sslmode=`, `sslrootcert=`, `sslcert=`, `sslkey=`, `schema=` as they are needed (the guide on"
            " PostgreSQL).",
            default="`sqlite:///`, `narthex.db` in the state directory",
        ),
    ] = None
    password: Annotated[
        Expanded | None,
        Setting(
            SECRET_TEXT,
            "Of the user in the URL: `${env:VAR}`, or `${secret:NAME}` of a secret that `secrets` takes from `env:` or"
            " `file:`, read whenever a connection is made.",
            secret=True,
            default="none",
        ),
    ] = None


class StoreKind(Group, frozen=True):
    """A map, or the URL alone."""

    def read(self, node: Node, path: Path, reading: Reading) -> StoreSettings:
        if node.shape in ("text", "number", "flag"):
            return StoreSettings(url=URL.read(node, path, reading))
        found = super().read(node, path, reading)
        assert isinstance(found, StoreSettings)
        return found

    def schema(self) -> JsonSchema:
        return {"anyOf": [URL.schema(), super().schema()]}


STORE = Setting(
    StoreKind(StoreSettings, "a URL, or a map `{url, password}`"),
    "What keeps API keys, secrets, held calls and costs: a file of SQLite, or a database of PostgreSQL.",
    default="`narthex.db` in the state directory",
)
