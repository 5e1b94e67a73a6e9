"""Who decides while no good policy has come yet: everything is denied, and nothing seen. Cases: `test_ruling.py`."""

from __future__ import annotations

import math
from collections.abc import Sequence

from narthex.flow.policy.decision import POLICY_ABSENT, Decision
from narthex.flow.policy.document import Document


class Absent:
    """An `Engine` without a policy. `why`: for the operator."""

    name = "rego"
    bundle = ""
    reads_arguments = False
    seen_s = math.inf

    def __init__(self, why: str) -> None:
        self._denied = Decision("deny", POLICY_ABSENT, detail=why[:500], engine=self.name)

    def known(self, document: Document) -> Decision:
        return self._denied

    async def decide(self, document: Document) -> Decision:
        return self._denied

    async def decide_all(self, documents: Sequence[Document]) -> Sequence[Decision]:
        return [self._denied] * len(documents)

    def seen_by(self, document: Document) -> object:
        return None

    def close(self) -> None: ...
