"""What engines have done since the process began, for `/metrics`; an engine that is replaced counts on."""

from __future__ import annotations

import msgspec


class Counts(msgspec.Struct):
    """`asked`: requests sent to an agent. `undecided`: decisions that were not made. `opened`: those of them that let
    something through all the same. `logged`, `lost`: decisions that were sent to the decision log, or could not be."""

    asked: int = 0
    undecided: int = 0
    opened: int = 0
    logged: int = 0
    lost: int = 0
