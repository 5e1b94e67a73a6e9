"""Who decides beside the grants: the embedded Rego engine, or a remote Open Policy Agent. Both are asked the same way.

In: a `Document`. Out: a `Decision`. An engine never lets through what it could not decide: whatever goes wrong is a
denial with a reason of its own. Cases: `tests/flow/policy/test_deciding.py`; the engines are in `narthex.engines`.
Source: design §3 ("One admission function"), §5.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Protocol

from narthex.flow.policy.decision import POLICY_FAILED, Decision
from narthex.flow.policy.document import Document


class Engine(Protocol):
    """What decides a document.

    Attributes:
        name: `rego`, `opa`.
        bundle: The revision of its policy.
        reads_arguments: May the policy look at the arguments of a call? Then exactly what it saw is sent on.
        seen_s: Seconds for which what somebody sees stays decided; `inf` where only a new policy changes it.
    """

    @property
    def name(self) -> str: ...

    @property
    def bundle(self) -> str: ...

    @property
    def reads_arguments(self) -> bool: ...

    @property
    def seen_s(self) -> float: ...

    def known(self, document: Document) -> Decision | None:
        """The decision, where it can be told at once; None: `decide` has to be asked."""
        ...

    def decide(self, document: Document) -> Awaitable[Decision]:
        """The decision, once it is there."""
        ...

    def decide_all(self, documents: Sequence[Document]) -> Awaitable[Sequence[Decision]]:
        """The decisions on up to `BATCH` documents, in their order: what a list shows."""
        ...

    def seen_by(self, document: Document) -> object:
        """What a document for a list says of its caller that the policy looks at: all of whom it says the same see the
        same. Hashable."""
        ...


BATCH = 100
"""Documents that an engine is asked at once, for a list: made in well under a millisecond."""


def failed(engine: Engine, error: BaseException, reason: str = POLICY_FAILED) -> Decision:
    """The denial where an engine did not decide."""
    detail = f"{type(error).__name__}: {error}"[:500]
    return Decision("deny", reason, detail=detail, engine=engine.name, bundle=engine.bundle)
