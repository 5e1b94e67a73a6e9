"""Rego by the engine that is built in, as an `Engine`: in helper processes, or on the loop where the operator says so.

In: a bundle, documents. Out: decisions. What it remembers, it remembers by the inputs that the policy looks at.
Cases: `tests/engines/test_embedded.py`.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Callable, Sequence
from typing import Any, Literal

import msgspec

from narthex.engines.counts import Counts
from narthex.engines.covered import covered
from narthex.engines.frames import Source
from narthex.engines.helper import probe
from narthex.engines.helpers import Helpers, TookTooLong
from narthex.flow.policy.arguments import LONG_NUMBER, fits_64_bits
from narthex.flow.policy.bundles.bundle import Bundle
from narthex.flow.policy.decision import BAD_POLICY_RESULT, POLICY_FAILED, POLICY_TIMEOUT, UNANSWERED, Decision
from narthex.flow.policy.document import Document
from narthex.flow.policy.engines.engine import failed
from narthex.flow.policy.engines.rego import Uses
from narthex.flow.policy.engines.remembered import Remembered, pick, timeless
from narthex.flow.policy.engines.results import UNDEFINED, read_result
from narthex.flow.policy.engines.trace import Trace

SEEN_S = 60.0
"""What somebody sees by a policy that looks at the time is decided anew each minute, as the hours of grants are."""
SLICE = 8
"""Documents that are made and decided between two pauses: well under a millisecond."""
_NOTHING = b'"<undefined>"'
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class Rego:
    """An `Engine` (`flow/policy/engines/engine.py`) over one bundle; another bundle is another one."""

    name = "rego"

    def __init__(
        self, bundle: str, uses: Uses, way: Helpers | Inline, now: Callable[[], float], counts: Counts | None = None
    ) -> None:
        self.bundle = bundle
        self._counts = counts or Counts()
        self.uses = uses
        self.reads_arguments = uses.reads(("mcp", "arguments"))
        self.seen_s = SEEN_S if uses.changes else math.inf
        self.remembered = Remembered(uses, now)
        self._way = way
        self._inline = way if isinstance(way, Inline) else None
        self._members = None if uses.paths is None else sorted({path[0] for path in uses.paths})
        self._of_subject = None if uses.paths is None else [path for path in uses.paths if path[0] in _OF_CALLER]

    def known(self, document: Document) -> Decision | None:
        found = self.remembered.get(document)
        if found is None and self._inline is not None:
            try:
                said: bytes | BaseException = self._inline.ask(self._sent(document))
            except Exception as error:
                said = error
            found = self._answered(document, said)
        return found

    async def decide(self, document: Document) -> Decision:
        return await self._ask(document)

    async def decide_all(self, documents: Sequence[Document]) -> Sequence[Decision]:
        found: list[Decision] = []
        for at in range(0, len(documents), SLICE):
            some = documents[at : at + SLICE]
            found += [self._answered(*one) for one in zip(some, await self._ask_all(some), strict=True)]
        return found

    async def _ask_all(self, documents: Sequence[Document]) -> Sequence[bytes | BaseException]:
        """What is said of each, or why nothing is."""
        asked: list[bytes] = [self._sent(one) for one in documents]
        if isinstance(self._way, Helpers):
            return await self._way.ask_all(asked, 1)
        await asyncio.sleep(0)
        return [self._way.ask(one) for one in asked]

    def seen_by(self, document: Document) -> object:
        asked = timeless(document)
        if self._of_subject is None:
            return _encode([asked["subject"], asked["context"]["tenant"], asked["context"]["endpoint"]])
        return _encode([pick(asked, path) for path in self._of_subject])

    async def trace(self, document: Document) -> Trace:
        """Which lines are looked at for this document: evaluated once more, elsewhere. Not for calls."""
        try:
            sent = self._sent(document)
        except EngineError as error:
            return Trace(problem=str(error))
        return await asyncio.to_thread(covered, self._way.source, sent, _where)

    @property
    def problem(self) -> str:
        """Why calls are not decided at present; empty while all is well."""
        return "" if self._inline is not None or self.pids() else "no helper process of the policy is up"

    def pids(self) -> list[int]:
        """Its helper processes."""
        return self._way.pids() if isinstance(self._way, Helpers) else []

    def close(self) -> None:
        """Let go of what it evaluates with."""
        self._way.close()

    async def _ask(self, document: Document) -> Decision:
        try:
            sent = self._sent(document)
            said: bytes | BaseException = (
                await self._way.ask(sent) if isinstance(self._way, Helpers) else self._way.ask(sent)
            )
        except Exception as error:
            said = error
        return self._answered(document, said)

    def _answered(self, document: Document, said: bytes | BaseException) -> Decision:
        if isinstance(said, BaseException):
            decision = failed(self, said, POLICY_TIMEOUT if isinstance(said, TookTooLong) else POLICY_FAILED)
        else:
            decision = self._decided(document, said)
        if decision.reason in UNANSWERED:
            self._counts.undecided += 1
        return decision

    def _sent(self, document: Document) -> bytes:
        """The document as the engine gets it: of its members those that the policy looks at. Numbers beyond 64 bits it
        would round: then it would look at others than the server gets.

        Raises:
            EngineError: It has such a number.
        """
        asked = document.input()
        if self._members is not None:
            asked = {name: asked[name] for name in self._members if name in asked}
        raw = _encode(asked)
        if LONG_NUMBER(raw) is not None and not fits_64_bits(document.arguments):
            raise EngineError("a number in the arguments does not fit into 64 bits")
        return raw

    def _decided(self, document: Document, said: bytes) -> Decision:
        """What `said` means: `=` and a value, or `!` and an error."""
        if said[:1] == b"!":
            return failed(self, EngineError(_where(said[1:].decode(errors="replace"))))
        try:
            value: Any = UNDEFINED if said[1:] == _NOTHING else _decode(said[1:])
        except msgspec.DecodeError as error:
            return failed(self, error, BAD_POLICY_RESULT)
        if said[:1] != b"=":
            return failed(self, EngineError("not an answer"), BAD_POLICY_RESULT)
        decision = read_result(value, self.name, self.bundle)
        if (
            document.call is not None
        ):  # what somebody sees is remembered elsewhere (`flow/policy/engines/visibility.py`)
            self.remembered.put(document, decision)
        return decision


_OF_CALLER = ("subject", "context")


_PLACE = re.compile(r"--> (\S+:\d+:\d+)")


def _where(said: str) -> str:
    """Where the policy failed. What the engine says of it beside names values of the input: arguments of the call, and
    this goes into logs and records."""
    place = _PLACE.search(said)
    return f"it fails at this input, in {place[1]}" if place is not None else "it fails at this input"


class EngineError(Exception):
    """The engine found an error in the policy, or in what it was asked."""


class Inline:
    """Evaluates on the loop: every other call waits for as long as it takes."""

    def __init__(self, source: Source) -> None:
        """Raises Flawed."""
        from narthex.engines.evaluator import EvaluationFailed, Evaluator  # ten megabytes of engine: only where it is

        self.source = source
        self._evaluator = Evaluator(source)
        self._failed = EvaluationFailed

    @property
    def uses(self) -> Uses:
        return self._evaluator.uses

    def ask(self, document: bytes) -> bytes:
        try:
            return b"=" + self._evaluator.evaluate(document.decode()).encode()
        except self._failed as error:
            return b"!" + str(error).encode()

    def close(self) -> None:
        self._evaluator.close()


async def embedded(
    bundle: Bundle,
    entrypoint: str,
    engine: Literal["helper", "inline"],
    deadline_s: float,
    now: Callable[[], float],
    counts: Counts | None = None,
) -> Rego:
    """An engine over a bundle.

    Args:
        entrypoint: The rule below `data`, such as `narthex/decision`. now: Unix seconds.
    Raises:
        Flawed: The bundle cannot be used.
        HelperGone: No process comes up.
    """
    source = Source(bundle.modules, bundle.data, entrypoint)
    if engine == "inline":
        await asyncio.to_thread(probe, source)  # what ends its process must not end this one
        inline = Inline(source)
        return Rego(bundle.revision, inline.uses, inline, now, counts)
    helpers = Helpers(source, deadline_s)
    return Rego(bundle.revision, await helpers.start(), helpers, now, counts)
