"""Where a shown name leads. One for each thing that an endpoint shows, read by every call."""

from __future__ import annotations

from typing import Final

from narthex.flow.codec.param_headers import Plan


class Target:
    """Where a shown name leads: the server, and the name as that server gives it (also as JSON).

    `params` are the arguments of a tool that go into headers, too. `mirrored`: the server gets such headers, if modern.
    """

    __slots__ = ("mirrored", "name", "name_json", "params", "server")

    def __init__(self, server: str, name: str, name_json: bytes, params: Plan = (), mirrored: bool = True) -> None:
        self.server: Final = server
        self.name: Final = name
        self.name_json: Final = name_json
        self.params: Final = params
        self.mirrored: Final = mirrored
