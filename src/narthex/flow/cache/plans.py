"""Which rule keeps the answers of a listed thing, and which rules a call of it ends kept answers by.

In: the rules of a configuration; each thing as its server lists it. Out: its `Plan`, made once when lists are merged;
None for the rest, so that a call of what is not cached asks nothing. Annotations are the server's word, and hostile:
they count only where the operator trusts that server's. Cases: `tests/flow/cache/test_plans.py`.
Source: MCP 2026-07-28, server/tools ("clients MUST consider tool annotations to be untrusted unless they come from
trusted servers"); design §3 (canonical names).
"""

from __future__ import annotations

from collections.abc import Callable, Container, Hashable, Mapping
from hashlib import sha256
from typing import Any, Final

import msgspec

from narthex.flow.cache.marks import Mark, marks_in
from narthex.flow.codec.jsonrpc import BAD_JSON, Raw, encode
from narthex.flow.route.names import canonical
from narthex.flow.route.patterns import compile_globs
from narthex.types import CacheRule, CacheSpec, ClearRule, Kind, ServerSpec, TokenCredential

Matches = Callable[[str], bool]
MOST_READ: Final = 64 * 1024
"""Bytes of a tool that is read for its annotations."""


class _Annotations(msgspec.Struct):
    reads: bool = msgspec.field(name="readOnlyHint", default=False)
    idempotent: bool = msgspec.field(name="idempotentHint", default=False)


class _Annotated(msgspec.Struct):
    annotations: _Annotations = msgspec.field(default_factory=_Annotations)


_decode: Final = msgspec.json.Decoder(_Annotated).decode


def says_harmless(tool: Raw) -> bool:
    """Does a tool say of itself, in so many words, that it only reads and may be called twice?"""
    if len(tool) > MOST_READ:
        return False
    try:
        said = _decode(tool).annotations
    except BAD_JSON:
        return False
    return said.reads and said.idempotent


class Clear:
    """One clearing rule. `number` is its place; what it ends is named by that, the tenant and the values compared."""

    __slots__ = ("after", "covers", "number", "rule", "said", "told")

    def __init__(self, number: int, rule: ClearRule) -> None:
        self.number: Final = number
        self.rule: Final = rule
        self.after: Final = compile_globs(rule.after)
        self.covers: Final = _by_kind(rule)
        self.said: Final = tuple(pair[0] for pair in rule.same)
        self.told: Final = tuple(pair[1] for pair in rule.same)

    def lots(self, tenant: str, arguments: Any) -> tuple[Hashable, ...]:
        """Names of the lots that an answer belongs to, by the arguments of its call: one for all that the rule covers,
        and one for those with its values. Where one is missing, what has none: any write may mean it."""
        if not self.told:
            return ((tenant, self.number),)
        return (tenant, self.number), (tenant, self.number, marks_in(arguments, self.told))

    def ended(self, tenant: str, arguments: Any) -> tuple[Hashable, ...]:
        """Names of the lots that a call with these arguments ends."""
        values: Mark | None = marks_in(arguments, self.said) if self.said else None
        if values is None:
            return ((tenant, self.number),)
        return (tenant, self.number, values), (tenant, self.number, None)


class Plan:
    """What the cache does for calls of one listed thing.

    `rule`: its answers are kept by this one; None: they are not. `shared`: for several callers. `place`: a digest of
    what it is and where, as listed: what is listed otherwise is something else. `clears`: rules that end its kept
    answers; `ends`: those by which a call of it ends others'.
    """

    __slots__ = ("clears", "ends", "kind", "name", "place", "rule", "server", "shared")

    def __init__(
        self,
        kind: Kind,
        server: str,
        name: str,
        rule: CacheRule | None,
        place: bytes,
        clears: tuple[Clear, ...],
        ends: tuple[Clear, ...],
        *,
        shared: bool,
    ) -> None:
        self.kind: Final = kind
        self.server: Final = server
        self.name: Final = name
        self.rule: Final = rule
        self.place: Final = place
        self.clears: Final = clears
        self.ends: Final = ends
        self.shared: Final = shared

    def lots(self, tenant: str, arguments: Any) -> tuple[Hashable, ...]:
        """Names of the lots that an answer belongs to: its server's list, itself, what clearing rules cover."""
        found: list[Hashable] = [(self.server, self.kind), (self.server, self.kind, self.name)]
        for clear in self.clears:
            found += clear.lots(tenant, arguments)
        return tuple(found)


class Plans:
    """The rules of a configuration, bound to what servers list.

    Args:
        servers: By name: whose annotations are trusted, and which are shown the caller's own token: of these nobody
            gets another's answer, whatever a rule says.
    """

    def __init__(self, spec: CacheSpec, servers: Mapping[str, ServerSpec]) -> None:
        self._rules: Final = tuple((rule, _by_kind(rule)) for rule in spec.rules)
        self._clears: Final = tuple(Clear(number, rule) for number, rule in enumerate(spec.clears))
        self._trusted: Final[Container[str]] = {name for name, one in servers.items() if one.trusts_annotations}
        self._own: Final[Container[str]] = {name for name, one in servers.items() if shows_callers(one)}

    def of(self, kind: Kind, endpoint: str, server: str, name: str, listed: Raw | None = None) -> Plan | None:
        """The plan of a thing at an endpoint. `listed`: its bytes; None where it is in no list, as most resources."""
        if kind not in ("tools", "prompts", "resources"):
            return None
        full = canonical(server, name)
        rule = next((one for one, by in self._rules if self._fits(one, by[kind], kind, endpoint, full, server, listed)),
                    None)  # fmt: skip
        ends = tuple(one for one in self._clears if kind == "tools" and one.after(full))
        if rule is None:
            return Plan(kind, server, name, None, b"", (), ends, shared=False) if ends else None
        clears = tuple(one for one in self._clears if one.covers[kind](full))
        definition = sha256(listed).hexdigest() if listed is not None and kind != "resources" else ""
        shared = rule.shared and server not in self._own
        place = sha256(encode([kind, endpoint, server, name, definition, shared])).digest()
        return Plan(kind, server, name, rule, place, clears, ends, shared=shared)

    def _fits(
        self, rule: CacheRule, covers: Matches, kind: Kind, endpoint: str, full: str, server: str, listed: Raw | None
    ) -> bool:
        if (rule.endpoints and endpoint not in rule.endpoints) or not covers(full):
            return False
        if not rule.annotated or kind != "tools":
            return True
        return server in self._trusted and listed is not None and says_harmless(listed)


def shows_callers(server: ServerSpec) -> bool:
    """Is anybody's own token shown to this server?"""
    return any(isinstance(use.credential, TokenCredential) and use.credential.of_caller for use in server.accounts)


def _by_kind(rule: CacheRule | ClearRule) -> dict[str, Matches]:
    return {kind: compile_globs(getattr(rule, kind)) for kind in ("tools", "prompts", "resources")}
