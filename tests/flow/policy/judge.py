"""An engine that decides by a function of the input document: for tests of what is around engines."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from typing import Any

from narthex.flow.policy.decision import ALLOWED_BY_POLICY, DENIED_BY_POLICY, Decision
from narthex.flow.policy.document import Document
from narthex.flow.policy.engines.obligations import Obligation

Rule = Callable[[dict[str, Any]], Any]


class Judge:
    """`rule` gives True or False, or a `Decision`; what it raises, the engine raises. `slow`: never from memory."""

    name = "judge"
    bundle = "b1"
    reads_arguments = True

    def __init__(self, rule: Rule, *, slow: bool = False, seen_s: float = math.inf) -> None:
        self.rule = rule
        self.slow = slow
        self.seen_s = seen_s
        self.asked: list[dict[str, Any]] = []
        self.open = asyncio.Event()
        self.open.set()

    @property
    def calls(self) -> list[dict[str, Any]]:
        """What was asked of calls."""
        return [one for one in self.asked if one["action"] != "list"]

    def known(self, document: Document) -> Decision | None:
        return None if self.slow else self._decide(document)

    async def decide(self, document: Document) -> Decision:
        await self.open.wait()
        return self._decide(document)

    async def decide_all(self, documents: Sequence[Document]) -> Sequence[Decision]:
        await asyncio.sleep(0)
        return [self._decide(one) for one in documents]

    def seen_by(self, document: Document) -> object:
        return document.principal.key, document.endpoint

    def _decide(self, document: Document) -> Decision:
        asked = document.input()
        self.asked.append(asked)
        said = self.rule(asked)
        if said is True or said is False:
            return allow() if said else DENY
        return said  # type: ignore[no-any-return]


def allow(*obligations: tuple[str, Any]) -> Decision:
    """The engine says yes, on these conditions."""
    conditions = tuple(Obligation(*one) for one in obligations)
    return Decision("allow", ALLOWED_BY_POLICY, obligations=conditions, engine="judge", bundle="b1")


DENY = Decision("deny", DENIED_BY_POLICY, detail="the table says so", engine="judge", bundle="b1")
HOLD = Decision("hold", "approval_required", engine="judge", bundle="b1")


def sees_all(rule: Rule) -> Rule:
    """`rule` for calls; everything is visible."""
    return lambda asked: True if asked["action"] == "list" else rule(asked)
