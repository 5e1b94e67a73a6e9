"""Where the store is, as the configuration says it; in `narthex.types`."""

from __future__ import annotations

from typing import Literal

import msgspec

from narthex.secret import SecretSource

NO_DRIVER = "the driver of PostgreSQL is not installed; pip install 'narthex[postgres]'"
SslMode = Literal["disable", "require", "verify-ca", "verify-full"]


class PostgresSpec(msgspec.Struct, frozen=True):
    """A database of PostgreSQL, and who we are there.

    `host` is a name, an address or, from its first `/`, the folder of a Unix socket. `password` is the text itself, or
    where it is read whenever a connection is made. `ca`, `cert`, `key` are paths, empty for the system's authorities
    """

    host: str
    port: int = 5432
    database: str = "narthex"
    user: str = "narthex"
    password: str | SecretSource = ""
    sslmode: SslMode = "verify-full"
    ca: str = ""
    cert: str = ""
    key: str = ""
    schema: str = "narthex"

    @property
    def name(self) -> str:
        """For people: no password."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"postgresql://{self.user}@{host}:{self.port}/{self.database}"

    def __repr__(self) -> str:
        return f"PostgresSpec({self.name})"


StorePlace = str | PostgresSpec
"""The path of a file of SQLite, or a database of PostgreSQL."""
