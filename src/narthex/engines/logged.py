"""An engine whose decisions are logged. Cases: `tests/engines/test_logged.py`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from narthex.flow.policy.decision import Decision
from narthex.flow.policy.document import Document
from narthex.flow.policy.engines.engine import Engine

Add = Callable[[Document, Decision], None]


class Logged:
    """Another engine, and each decision of it on a call told to `add`; those for lists where `lists` says so."""

    def __init__(self, engine: Engine, add: Add, *, lists: bool) -> None:
        self.inner = engine
        self._add, self._lists = add, lists

    @property
    def name(self) -> str:
        return self.inner.name

    @property
    def bundle(self) -> str:
        return self.inner.bundle

    @property
    def reads_arguments(self) -> bool:
        return self.inner.reads_arguments

    @property
    def seen_s(self) -> float:
        return self.inner.seen_s

    def seen_by(self, document: Document) -> object:
        return self.inner.seen_by(document)

    def known(self, document: Document) -> Decision | None:
        found = self.inner.known(document)
        if found is not None and document.call is not None:
            self._add(document, found)
        return found

    async def decide(self, document: Document) -> Decision:
        found = await self.inner.decide(document)
        self._add(document, found)
        return found

    async def decide_all(self, documents: Sequence[Document]) -> Sequence[Decision]:
        found = await self.inner.decide_all(documents)
        if self._lists:
            for document, decision in zip(documents, found, strict=False):
                self._add(document, decision)
        return found
