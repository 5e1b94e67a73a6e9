"""Where a shown name leads. One for each thing that an endpoint shows, read by every call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from narthex.flow.codec.param_headers import Plan

if TYPE_CHECKING:
    from narthex.flow.cache.plans import Plan as CachePlan


class Target:
    """Where a shown name leads: the server, and the name as that server gives it (also as JSON).

    `params` are the arguments of a tool that go into headers, too. `mirrored`: the server gets such headers, if modern.
    `caching`: what the cache does for calls of it; None: nothing. `definition`: SHA-256 of the thing as the server last
    listed it, byte for byte; empty where it is called without having been listed.
    """

    __slots__ = ("caching", "definition", "mirrored", "name", "name_json", "params", "server")

    def __init__(
        self,
        server: str,
        name: str,
        name_json: bytes,
        params: Plan = (),
        mirrored: bool = True,
        caching: CachePlan | None = None,
        definition: bytes = b"",
    ) -> None:
        self.server: Final = server
        self.name: Final = name
        self.name_json: Final = name_json
        self.params: Final = params
        self.mirrored: Final = mirrored
        self.caching: Final = caching
        self.definition: Final = definition
