"""Decisions remembered by the inputs that the policy looks at: who asks the same in those gets the same answer.

In: what a policy uses (`Uses`), documents, decisions. Out: the decision that was remembered, or None. Where it cannot
be known what is looked at, or the answer changes by itself, nothing is remembered.
Cases: `tests/flow/policy/test_remembered.py`, with the promise as a property.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from hashlib import sha256
from operator import attrgetter
from typing import Any

import msgspec

from narthex.flow.policy.decision import UNANSWERED, Decision
from narthex.flow.policy.document import Document
from narthex.flow.policy.engines.obligations import value_of
from narthex.flow.policy.engines.rego import TIMES, Path, Uses
from narthex.types import Principal

MOST = 20_000
LONGEST = 256
"""Bytes that are remembered as they are; of more, which a caller makes as large as it likes, a digest."""
_FIXED = ("subject", "resource", "v")
"""Members of a document that only the caller, the thing called and the site decide about."""
_QUICK: Mapping[Path, Callable[[Document], Any]] = {
    ("action",): attrgetter("action"),
    ("context", "ip"): attrgetter("address"),
    ("context", "endpoint"): attrgetter("endpoint"),
    ("mcp", "arguments_size"): attrgetter("size"),
}
"""How to read a member without making the document."""
_ARGUMENTS = ("mcp", "arguments")
_MISSING = 0
_encode = msgspec.json.Encoder().encode


def pick(value: Any, path: Path) -> Any:
    """The member at a path in a list of one; `_MISSING` where there is none, as for the policy."""
    for name in path:
        if type(value) is not dict or name not in value:
            return _MISSING
        value = value[name]
    return [value]


def timeless(document: Document) -> dict[str, Any]:
    """The input without what every second changes."""
    found = document.input()
    for *around, name in TIMES:
        inner: Any = found
        for one in around:
            inner = inner[one]
        inner.pop(name, None)
    return found


class Remembered:
    """The decisions of one policy."""

    def __init__(self, uses: Uses, now: Callable[[], float]) -> None:
        self._now = now
        paths = [path for path in uses.paths or () if path not in TIMES]
        self.usable = uses.paths is not None
        self._changes = uses.changes
        self._fixed_paths = [path for path in paths if path[0] in _FIXED]
        moving = [path for path in paths if path[0] not in _FIXED]
        self._arguments = [path[2:] for path in moving if path[:2] == _ARGUMENTS]
        self._quick = [_QUICK[path] for path in moving if path in _QUICK]
        self._slow = [path for path in moving if path[:2] != _ARGUMENTS and path not in _QUICK]
        self._fixed: dict[tuple[Any, ...], tuple[Principal, Any, bytes]] = {}
        self._known: dict[tuple[bytes, bytes], tuple[Decision, float]] = {}

    def get(self, document: Document) -> Decision | None:
        """The decision on a document that is the same for the policy."""
        if not self.usable:
            return None
        found = self._known.get(self._key(document))
        if found is None or (found[1] != math.inf and self._now() >= found[1]):
            return None
        return found[0]

    def put(self, document: Document, decision: Decision) -> None:
        """Remember what was decided, for as long as the policy lets it: its `cache_ttl_s`, else as long as it rules."""
        ttl = value_of(decision.obligations, "cache_ttl_s")
        if not self.usable or decision.reason in UNANSWERED or ttl == 0 or (self._changes and ttl is None):
            return
        if len(self._known) >= MOST:
            del self._known[next(iter(self._known))]
        self._known[self._key(document)] = (decision, math.inf if ttl is None else self._now() + ttl)

    def _key(self, document: Document) -> tuple[bytes, bytes]:
        moving = [pick(document.arguments, path) for path in self._arguments]
        for read in self._quick:
            moving.append(read(document))
        if self._slow:
            whole = timeless(document)
            moving += [pick(whole, path) for path in self._slow]
        made = _encode(moving)
        return self._fixed_part(document), made if len(made) <= LONGEST else sha256(made).digest()

    def _fixed_part(self, document: Document) -> bytes:
        """Worked out once for each caller and thing; the objects are kept, so that nobody else gets their identity."""
        principal, site = document.principal, document.site
        place = (id(principal), id(site), document.kind, document.server, document.name)
        known = self._fixed.get(place)
        if known is not None:
            return known[2]
        whole = timeless(document)
        made = _encode([pick(whole, path) for path in self._fixed_paths])
        if len(self._fixed) >= MOST:
            del self._fixed[next(iter(self._fixed))]
        self._fixed[place] = (principal, site, made)
        return made
