"""One request of a client on its way to a server. Of the small shared types, the one that is made for every call.

A class and no struct: compiled, its members are read without a look-up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from narthex.trace import Context
    from narthex.types import Era, Principal, Session


class Call:
    """One request of a client that goes to a server. It never changes: a rewrite makes a new one.

    `params` maps names to raw JSON, `_meta` included; `meta` is `_meta` decoded one level. `id_json` is the client's
    id as it goes back; `name` is what is called: a shown name, a URI, or empty. `session` is None for a modern or a
    sessionless client. `log_level` is the least severe log message that the client has asked for; empty for none.
    `context` is what the server is told of the trace that the call belongs to; None: what the client has said.
    """

    __slots__ = (
        "context", "endpoint", "era", "id_json", "log_level", "meta", "method", "name", "params", "principal",
        "session", "version",
    )  # fmt: skip

    def __init__(
        self,
        method: str,
        params: dict[str, msgspec.Raw],
        meta: dict[str, msgspec.Raw],
        id_json: bytes,
        era: Era,
        version: str,
        principal: Principal,
        endpoint: str,
        name: str = "",
        session: Session | None = None,
        log_level: str = "",
        context: Context | None = None,
    ) -> None:
        self.method: Final = method
        self.params: Final = params
        self.meta: Final = meta
        self.id_json: Final = id_json
        self.era: Final = era
        self.version: Final = version
        self.principal: Final = principal
        self.endpoint: Final = endpoint
        self.name: Final = name
        self.session: Final = session
        self.log_level: Final = log_level
        self.context: Final = context

    def but(
        self,
        *,
        method: str | None = None,
        params: dict[str, msgspec.Raw] | None = None,
        session: Session | None = None,
        log_level: str | None = None,
        context: Context | None = None,
    ) -> Call:
        """The same call with these instead."""
        return Call(
            self.method if method is None else method,
            self.params if params is None else params,
            self.meta,
            self.id_json,
            self.era,
            self.version,
            self.principal,
            self.endpoint,
            self.name,
            self.session if session is None else session,
            self.log_level if log_level is None else log_level,
            self.context if context is None else context,
        )
