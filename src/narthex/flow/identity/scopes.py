"""Which scopes a call needs: those of its endpoint, and those that the configuration asks for its tool.

In: a principal, a tool's canonical name. Out: nothing, or the refusal that names all that is needed, in one challenge.
Cases: `tests/flow/identity/test_scopes.py`. Source: MCP 2026-07-28, authorization ("Scope Challenge Handling").
"""

from __future__ import annotations

from collections.abc import Generator

from narthex.errors import Unauthorized
from narthex.flow.identity.challenge import missing_scopes
from narthex.flow.route.index import Index
from narthex.flow.route.names import canonical
from narthex.flow.route.patterns import compile_globs
from narthex.types import EndpointSpec, Principal

MOST_NAMES = 10_000
MOST_LISTS = 64
SLICE = 500
"""Tools that are looked at between two pauses."""


class Scopes:
    """The scopes of one endpoint."""

    def __init__(self, endpoint: EndpointSpec) -> None:
        self.base = frozenset(endpoint.base_scopes)
        self.by_tool = bool(endpoint.scopes)
        self.hides = endpoint.hide_unscoped and self.by_tool
        self._rules = [(compile_globs((pattern,)), frozenset(scopes)) for pattern, scopes in endpoint.scopes]
        self._needed: dict[tuple[str, str], frozenset[str]] = {}
        self._shown: list[tuple[Index, frozenset[str], int]] = []

    def check_base(self, principal: Principal) -> None:
        """May this principal do anything here? Raises InsufficientScope; Unauthorized for who came without a token."""
        if not self.base <= principal.scopes:
            raise scopes_needed(principal, self.base)

    def needed(self, server: str, name: str) -> frozenset[str]:
        """What a call of this tool needs beyond the base."""
        found = self._needed.get((server, name))
        if found is None:
            full = canonical(server, name)
            found = frozenset().union(*(scopes for matches, scopes in self._rules if matches(full)))
            if len(self._needed) >= MOST_NAMES:
                self._needed.clear()
            self._needed[server, name] = found
        return found

    def has_all(self, principal: Principal, server: str, name: str) -> bool:
        """Has the principal all that a call of this tool needs beyond the base?"""
        return self.needed(server, name) <= principal.scopes

    def check(self, principal: Principal, server: str, name: str) -> None:
        """May this principal call this tool? Raises InsufficientScope; Unauthorized for who came without a token."""
        needed = self.needed(server, name)
        if not needed <= principal.scopes:
            raise scopes_needed(principal, self.base | needed)

    def known(self, principal: Principal, index: Index) -> int | None:
        """Which tools of a list the principal is shown, as bits in its order. None: `working` it out."""
        scopes = principal.scopes
        return next((bits for known, had, bits in self._shown if known is index and had == scopes), None)

    def working(self, principal: Principal, index: Index) -> Generator[None, None, int]:
        """The same, once for the same scopes and in slices."""
        made = self.known(principal, index)
        if made is not None:
            return made
        lacking = [matches for matches, scopes in self._rules if not scopes <= principal.scopes]
        bits: list[str] = []
        for at, tool in enumerate(index.targets.values()):
            if at and at % SLICE == 0:
                yield
            full = canonical(tool.server, tool.name)
            bits.append("0" if any(matches(full) for matches in lacking) else "1")
        made = int("".join(reversed(bits)) or "0", 2)
        self._shown = [*self._shown[-MOST_LISTS + 1 :], (index, principal.scopes, made)]
        return made


def scopes_needed(principal: Principal, needed: frozenset[str]) -> Unauthorized:
    """The refusal of a caller who lacks some of these scopes."""
    scopes = tuple(sorted(needed))
    if principal.method == "anonymous":
        return Unauthorized("a credential is needed", scopes=scopes)
    return missing_scopes(scopes)
