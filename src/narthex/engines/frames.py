"""What the gateway and a helper process say to each other. Imports no engine.

In: nothing. Out: `Source`, `Loaded`; each goes as JSON in a frame (`child.py`).
"""

from __future__ import annotations

from typing import Any

import msgspec

from narthex.flow.policy.engines.rego import Flaw, Uses

LOAD_S = 10.0
"""The longest that compiling a bundle may take."""


class Source(msgspec.Struct, frozen=True):
    """What is compiled. `entrypoint` is the rule below `data`, with `/` between its parts."""

    modules: dict[str, str]
    data: dict[str, Any]
    entrypoint: str


class Flawed(Exception):
    """A bundle that cannot be used."""

    def __init__(self, flaws: list[Flaw]) -> None:
        super().__init__("; ".join(map(str, flaws)))
        self.flaws = flaws


class Loaded(msgspec.Struct, frozen=True):
    """What a helper says once it has compiled: what the policy uses, or what is wrong with it."""

    uses: Uses | None = None
    flaws: tuple[Flaw, ...] = ()
