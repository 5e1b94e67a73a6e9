"""What memory alone cannot decide of a call: what an engine says, and what a person says where it is held.

In: a call that scopes and grants have let through, or hold (`Check.admit`). Out: the parameters that go on, or the
refusal. A plain generator as the walks are: it yields a `Decide`, which its driver answers from memory at once, or
later, and what `holding.py` needs. Cases: `tests/flow/policy/test_deciding.py`. Source: design §3, §5.
"""

from __future__ import annotations

from collections.abc import Awaitable, Generator
from typing import Any, Final

import msgspec

from narthex.errors import Denied, GatewayError, InvalidParams
from narthex.flow.codec.crowds import refuse_crowd
from narthex.flow.codec.inputs import MAY_ASK, Ask
from narthex.flow.codec.jsonrpc import BAD_JSON, Raw, RawMap, encode
from narthex.flow.identity.scopes import scopes_needed
from narthex.flow.policy.admission import refusal
from narthex.flow.policy.approvals.holding import Hold, held
from narthex.flow.policy.check import NO_TRACE, Check
from narthex.flow.policy.decision import ALLOW, BAD_POLICY_RESULT, UNKNOWN_OBLIGATION, Decision, both
from narthex.flow.policy.document import Document
from narthex.flow.policy.engines.engine import Engine, failed
from narthex.flow.policy.engines.obligations import duties_of, rewritten, value_of
from narthex.flow.policy.engines.opa import trace_of
from narthex.flow.route.target import Target
from narthex.types import Call, Kind

_TAKES_ARGUMENTS: Final = frozenset({"tools/call", "prompts/get"})


class Question:
    """What an engine is asked. Drivers know no more of it than how it is answered."""

    __slots__ = ()

    def now(self) -> Any:
        """The answer from memory; None where it takes `later`."""
        raise NotImplementedError

    def later(self) -> Awaitable[Any]:
        """The answer, in a while. Raises nothing but what ends the call."""
        raise NotImplementedError


class Look(Question):
    """Needs a thing's visibility decided, so that `check.sees` knows it. Answer: True."""

    __slots__ = ("check", "thing")

    def __init__(self, check: Check, kind: Kind, server: str, name: str) -> None:
        self.check: Final = check
        self.thing: Final = (kind, server, name)

    def now(self) -> bool | None:
        sight = self.check.admission.sight
        return True if sight is None or self.thing in sight.known or not self._granted else None

    @property
    def _granted(self) -> bool:
        return self.check.admission.grants(*self.thing)

    async def later(self) -> bool:
        await self.check.admission.look([self.thing])
        return True


class Decide(Question):
    """Needs the decision of an engine. Answer: a `Decision`; what an engine raises is one, too."""

    __slots__ = ("document", "engine")

    def __init__(self, engine: Engine, document: Document) -> None:
        self.engine: Final = engine
        self.document: Final = document

    def now(self) -> Decision | None:
        try:
            return self.engine.known(self.document)
        except Exception as error:
            return failed(self.engine, error)

    async def later(self) -> Decision:
        try:
            said: object = await self.engine.decide(self.document)
        except Exception as error:
            return failed(self.engine, error)
        if not isinstance(said, Decision):
            return failed(self.engine, TypeError("no decision"), BAD_POLICY_RESULT)
        return said


def decided(
    check: Check, call: Call, kind: Kind, target: Target, params: RawMap, *, passed: bool = False
) -> Generator[Decide | Hold | Ask, Any, RawMap]:
    """Have all that is left decided; `check.decision` is what was said in the end, before any person said something.

    Args:
        params: As `Check.admit` gave them.
        passed: It is under way already: who held it then has approved it.
    Returns:
        Those that go on: where an engine or a person has looked at the arguments, exactly what they saw.
    Raises:
        Denied, InsufficientScope: It does not go on. ApprovalRequired: Not yet.
        InvalidParams: The arguments cannot be read.
    """
    decision, engine = check.decision or ALLOW, check.admission.engine
    if engine is not None:
        document, params = _document(check, engine, call, kind, target, params)
        said: Decision = yield Decide(engine, document)
        check.document = document
        if check.shadow is not None:
            check.shadow.said = said
        check.decision = decision = both(decision, said)
        if decision.obligations and decision.effect != "deny":
            params = _kept(check, call, params, decision)
    elif check.admission.advisor is not None and check.shadow is not None:
        check.shadow.would_say = yield from _advised(check, check.admission.advisor, call, kind, target, params)
    if decision.effect == "hold" and call.method in MAY_ASK:
        if not passed:
            params = yield from held(kind, target, params, decision, "rule" if decision.rule else "engine")
    elif decision.effect != "allow":
        raise refusal(decision)
    return params


def _advised(
    check: Check, advisor: Engine, call: Call, kind: Kind, target: Target, params: RawMap
) -> Generator[Decide, Any, Decision | None]:
    """What an engine in shadow mode says. The call waits for it as it would if it counted, and goes on as it is."""
    try:
        document, _ = _document(check, advisor, call, kind, target, params)
    except GatewayError:
        return None  # it cannot be read: whoever has to will say so
    said: Decision = yield Decide(advisor, document)
    return said


def _kept(check: Check, call: Call, params: RawMap, decision: Decision) -> RawMap:
    """What the policy demands, done now or noted for the result. Raises Denied where it cannot be."""
    obligations, principal = decision.obligations, check.admission.principal
    scopes = frozenset(value_of(obligations, "step_up_scope") or ())
    if lacking := sorted(scopes - principal.scopes):
        if principal.method == "none":  # nobody is there to ask for more
            raise _cannot(check, decision, "step_up_scope: no identity is configured")
        base = check.admission.scopes.base if check.admission.scopes is not None else frozenset[str]()
        refused = scopes_needed(principal, base | scopes)
        lacks = f"step_up_scope: the caller lacks {' '.join(lacking)}"
        check.decision = msgspec.structs.replace(decision, effect="deny", reason=refused.reason, detail=lacks)
        raise refused
    patch = value_of(obligations, "rewrite")
    if patch:
        if call.method not in _TAKES_ARGUMENTS:
            raise _cannot(check, decision, f"rewrite: {call.method} has no arguments")
        arguments = _arguments(params["arguments"]) if "arguments" in params else None
        params = {**params, "arguments": Raw(encode(rewritten(arguments, patch)))}
    check.duties = duties_of(obligations)
    if check.duties is not None and "task" in params:
        raise _cannot(check, decision, "what a task ends with is not looked at")
    check.logged = value_of(obligations, "log") != "none"
    return params


def _arguments(raw: Raw) -> Any:
    refuse_crowd(raw)
    try:
        return msgspec.json.decode(raw)
    except BAD_JSON:
        raise InvalidParams("params.arguments cannot be read") from None


def _cannot(check: Check, decision: Decision, why: str) -> Denied:
    check.decision = msgspec.structs.replace(decision, effect="deny", reason=UNKNOWN_OBLIGATION, detail=why)
    return refusal(check.decision)


def _document(
    check: Check, engine: Engine, call: Call, kind: Kind, target: Target, params: RawMap
) -> tuple[Document, RawMap]:
    raw, arguments, size = params.get("arguments"), None, 0
    if raw is not None:
        size = len(raw)
        if engine.reads_arguments:
            arguments = _arguments(raw)
            params = {**params, "arguments": Raw(encode(arguments))}
    admission = check.admission
    traced = check.trace is not NO_TRACE or "traceparent" in call.meta
    trace = trace_of(call.meta, *check.trace) if traced else ()
    document = Document(
        admission.principal, admission.endpoint, kind, target.server, target.name, check.at,
        call, arguments, size, check.address, admission.site, check.run_facts(), trace,
    )  # fmt: skip
    return document, params
