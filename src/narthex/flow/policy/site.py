"""What rules know beside the call and its caller: the environment of the gateway, and how its servers' data is classed.

In: a `DataSpec`. Out: `Data` of a canonical name: what the operator's rows say of it, of several the strictest; else
what its server's entry says. What nobody has classed counts as the strictest: a rule about classes is not open for what
was forgotten. All of this is configuration, so visibility may depend on it (design §3).
Cases: `tests/flow/policy/test_site.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple

from narthex.flow.route.names import SEPARATOR, canonical
from narthex.flow.route.patterns import compile_globs, narrowed, nothing
from narthex.types import CLASSIFICATIONS, PRIVACY, DataSpec, Kind

PatternKey = Literal["tools", "prompts", "resources"]
PATTERNS_OF: dict[Kind, PatternKey] = {
    "tools": "tools",
    "prompts": "prompts",
    "resources": "resources",
    "templates": "resources",
    "skills": "resources",
    "admin": "tools",
}
"""Which patterns speak of a kind."""


class Data(NamedTuple):
    """How what a name gives is classed."""

    classification: str
    privacy: str


UNCLASSED = Data(CLASSIFICATIONS[-1], PRIVACY[-1])


class _Row(NamedTuple):
    patterns: tuple[str, ...]
    covers: Callable[[str], bool]
    classification: str
    privacy: str


class Site:
    """Where calls are decided."""

    __slots__ = ("_rows", "_servers", "environment")

    def __init__(self, environment: str = "", data: DataSpec | None = None) -> None:
        self.environment = environment
        data = data or DataSpec()
        self._servers = {
            name: Data(classification or UNCLASSED.classification, privacy or UNCLASSED.privacy)
            for name, (classification, privacy) in data.servers.items()
        }
        self._rows: dict[PatternKey, tuple[_Row, ...]] = {
            key: tuple(
                _Row(getattr(one, key), compile_globs(getattr(one, key)), one.classification, one.privacy)
                for one in data.rows
                if getattr(one, key)
            )
            for key in ("tools", "prompts", "resources")
        }

    def data(self, kind: Kind, name: str) -> Data:
        """How what this canonical name gives is classed."""
        server = self._servers.get(name.partition(SEPARATOR)[0], UNCLASSED)
        rows = [one for one in self._rows[PATTERNS_OF[kind]] if one.covers(name)]
        return _strictest(server, rows) if rows else server

    def possible(self, kind: Kind, server: str) -> frozenset[Data]:
        """Every class that something of this server could have, and perhaps more."""
        prefix = canonical(server, "")
        own = self._servers.get(server, UNCLASSED)
        rows = [one for one in self._rows[PATTERNS_OF[kind]] if narrowed(one.patterns, prefix) is not nothing]
        classifications = {own.classification, *(one.classification for one in rows if one.classification)}
        privacies = {own.privacy, *(one.privacy for one in rows if one.privacy)}
        return frozenset(Data(classification, privacy) for classification in classifications for privacy in privacies)


def _strictest(server: Data, rows: Iterable[_Row]) -> Data:
    classifications = [one.classification for one in rows if one.classification] or [server.classification]
    privacies = [one.privacy for one in rows if one.privacy] or [server.privacy]
    return Data(max(classifications, key=CLASSIFICATIONS.index), max(privacies, key=PRIVACY.index))


def fits_class(data: Data, classification: frozenset[str], privacy: frozenset[str]) -> bool:
    """Is data of this class among those that a rule is for? An empty set is for all."""
    return (not classification or data.classification in classification) and (not privacy or data.privacy in privacy)


NOWHERE = Site()
"""No environment, and nothing classed."""
