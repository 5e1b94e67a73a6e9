"""What an engine lets one kind of caller see: asked once a thing, and the same for all of whom it reads the same.

In: an engine, a caller, things by kind, server and name. Out: which of them are visible. What is not decided yet is not
visible: `look` asks. Cases: `tests/flow/policy/engines/test_visibility.py`. Source: design §3 (visibility depends on
principal, endpoint, revision and time boundary, never on arguments, run, limits or connection).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from itertools import islice

from narthex.flow.policy.decision import UNANSWERED, Decision
from narthex.flow.policy.document import Document
from narthex.flow.policy.engines.engine import BATCH, Engine, failed
from narthex.flow.policy.site import NOWHERE, Site
from narthex.flow.route.index import Index
from narthex.types import Kind, Principal

Thing = tuple[Kind, str, str]
"""Kind, server, and name as the server gives it."""
MOST_SIGHTS = 1024
MOST_THINGS = 50_000
MOST_TEXT = 4 * 1024 * 1024
"""Characters of their names: a client makes up URIs as it likes, where a template shows them."""
MOST_LISTS = 16
MOST_MISSING = 4096
"""Names that lead nowhere whose question is not put again."""


class Sight:
    """What all see of whom the policy reads the same. `until`: Unix seconds, when that may change by itself.

    `trouble`: what came instead, the last time that something was not decided. `servers`: of which something is
    visible, as far as was asked; `before`: the same a period ago.
    """

    __slots__ = ("_missing", "_shown", "_site", "_text", "before", "known", "servers", "trouble", "until")

    def __init__(self, until: float, site: Site = NOWHERE, before: frozenset[str] = frozenset()) -> None:
        self.until = until
        self._site = site
        self.known: dict[Thing, bool] = {}
        self.trouble: Decision | None = None
        self.servers: set[str] = set()
        self.before = before
        self._text = 0
        self._shown: list[tuple[Index, int, bool]] = []
        self._missing: set[Thing] = set()

    def shown(self, index: Index) -> int:
        """Which items of a list are visible, as bits in its order: none before `look_through`."""
        return next((bits for known, bits, _ in self._shown if known is index), 0)

    def looked_through(self, index: Index) -> bool:
        """Is all of a list decided?"""
        return any(whole for known, _, whole in self._shown if known is index)

    async def look(
        self, engine: Engine, principal: Principal, endpoint: str, things: Sequence[Thing], now: float
    ) -> None:
        """Have decided what is not. What the engine fails at stays undecided, and so unseen; it is asked again."""
        left = iter([one for one in things if one not in self.known])
        while batch := list(islice(left, BATCH)):
            documents = [Document(principal, endpoint, *one, now, site=self._site) for one in batch]
            try:
                said = await engine.decide_all(documents)
            except Exception as error:
                self.trouble = failed(engine, error)
                return
            if len(self.known) > MOST_THINGS or self._text > MOST_TEXT:
                self.known.clear()
                self._shown, self._text = [], 0
            self._text += sum(len(name) for _, _, name in batch)
            for one, decision in zip(batch, said, strict=False):
                if decision.reason in UNANSWERED:
                    self.trouble = decision
                elif decision.effect != "deny":
                    self.known[one] = True
                    self.servers.add(one[1])
                else:
                    self.known[one] = False

    async def look_in_vain(self, engine: Engine, principal: Principal, endpoint: str, thing: Thing, now: float) -> None:
        """Ask about what is not there, as about what is hidden: once, and whatever is said."""
        if thing in self._missing or thing in self.known:
            return
        if len(self._missing) >= MOST_MISSING:
            self._missing.clear()
        with suppress(Exception):
            await engine.decide_all([Document(principal, endpoint, *thing, now, site=self._site)])
            self._missing.add(thing)

    async def look_through(self, engine: Engine, principal: Principal, endpoint: str, index: Index, now: float) -> None:
        """The same for a whole list."""
        if self.looked_through(index):
            return
        bits: list[str] = []
        kind = index.kind
        targets = ((kind, one.server, one.name) for one in index.targets.values())
        whole = True
        while batch := list(islice(targets, BATCH)):
            await self.look(engine, principal, endpoint, batch, now)
            bits += ["1" if self.known.get(one) else "0" for one in batch]
            whole = whole and all(one in self.known for one in batch)
            if not any(one in self.known for one in batch):
                break  # nobody is there to decide: the rest waits as this did
        made = int("".join(bits)[::-1] or "0", 2)
        others = [one for one in self._shown if one[0] is not index]
        self._shown = [*others[-MOST_LISTS + 1 :], (index, made, whole)]


class Sights:
    """Those of an engine, by what its policy reads of a caller."""

    def __init__(self, engine: Engine, site: Site = NOWHERE) -> None:
        self.engine = engine
        self._site = site
        self._of: dict[object, Sight] = {}

    def of(self, principal: Principal, endpoint: str, now: float) -> Sight:
        key = self.engine.seen_by(Document(principal, endpoint, "tools", "", "", now, site=self._site))
        known = self._of.get(key)
        if known is not None and now < known.until:
            return known
        if len(self._of) >= MOST_SIGHTS:
            del self._of[next(iter(self._of))]
        before = frozenset(known.servers) if known is not None else frozenset[str]()
        made = self._of[key] = Sight(self.until(now), self._site, before)
        return made

    def until(self, now: float) -> float:
        """When what is seen may change by itself: Unix seconds."""
        seconds = self.engine.seen_s
        return math.inf if seconds == math.inf else (now // seconds + 1) * seconds
