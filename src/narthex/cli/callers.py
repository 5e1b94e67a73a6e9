"""A caller that somebody describes, for `narthex explain` and `narthex policy test`.

In: the keys of a grant's `who` with values. Out: a `Principal`. Cases: `tests/cli/test_explain.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from narthex.types import Principal


def principal_of(values: Mapping[str, Sequence[str]], *, identified: bool) -> Principal:
    """Who is described; without values, who calls while no identity is configured, else somebody.

    Args:
        values: Of what a caller has one of, the last counts. identified: Whether the configuration has an identity.
    """
    from narthex.types import ANONYMOUS, LOCAL, Principal

    if values.get("anonymous") == ["true"]:
        return ANONYMOUS
    if not values and not identified:
        return LOCAL

    def one(key: str, default: str) -> str:
        return list(values.get(key) or [default])[-1]

    return Principal(
        one("tenant", "default"),
        one("issuer", ""),
        one("subject", "somebody"),
        one("client", one("agent", "")),
        roles=tuple(values.get("role", ())),
        groups=tuple(values.get("group", ())),
        scopes=frozenset(values.get("scope", ())),
        kind="human" if one("kind", "service") == "human" else "service",
        method="jwt",
    )
