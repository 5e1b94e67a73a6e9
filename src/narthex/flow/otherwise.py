"""What becomes of a call for which a limit has no room, where the limit says something else than no.

In: the refusal, with what its limit says; the call as it stood. Out: the target and the parameters that go on, and are
reserved; or the refusal. A person may let it through; or another tool answers in its place, if the caller may call
that, and its own limits have room. A plain generator, as the walks are.
Cases: `tests/flow/accept/test_otherwise.py`.
Source: design §3 ("Two moments of limits", "One admission function").
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Final

from narthex.errors import Denied, InsufficientScope, RateLimited
from narthex.flow.codec.inputs import MAY_ASK
from narthex.flow.codec.jsonrpc import Raw, RawMap
from narthex.flow.codec.param_headers import Said
from narthex.flow.limit.reserve import Reserve, taken
from narthex.flow.limit.reserving import Instead, Reserving
from narthex.flow.policy.approvals.holding import held
from narthex.flow.policy.check import Check
from narthex.flow.policy.deciding import decided
from narthex.flow.policy.decision import Decision
from narthex.flow.route.names import canonical
from narthex.flow.route.target import Target
from narthex.types import Call, Kind

MOST: Final = 3
"""Tools that are tried one after the other, each named by the limit of the one before."""
NOTHING_SAID: Final = Said({}, frozenset(), ())
"""The headers of a call that is answered by another tool: what the client said was for the one that it named."""


class FindNamed:
    """Needs the tool of a canonical name, where the caller sees it, and whether the schema of its output is that of the
    tool `asked` for. Answer: `(Target, bool)`, or None where there is no such tool."""

    __slots__ = ("asked", "check", "name")

    def __init__(self, name: str, asked: str, check: Check | None) -> None:
        self.name: Final = name
        self.asked: Final = asked
        self.check: Final = check


def otherwise(
    spent: RateLimited, call: Call, kind: Kind, target: Target, params: RawMap, check: Check | None, limited: Reserving
) -> Generator[Any, Any, tuple[Target, RawMap]]:
    """Do what the limit says.

    Raises:
        RateLimited, BudgetExhausted: There is no other way, or it is closed, too.
        ApprovalRequired, Denied: A person has not said yes, or has said no.
    """
    if spent.holds:
        if check is None or call.method not in MAY_ASK:
            raise spent
        params = yield from held(kind, target, params, Decision("hold", spent.reason, f"limit {spent.limit}"), "limit")
        return target, taken((yield Reserve(limited, call, target, params, beyond=True)))
    if call.method != "tools/call" or "task" in call.params:
        raise spent
    asked, limit = canonical(target.server, target.name), spent.limit
    tried = {asked}
    while spent.use and spent.use not in tried and len(tried) <= MOST:
        tried.add(spent.use)
        found = yield FindNamed(spent.use, asked, check)
        if found is None:
            break
        other, same = found
        params = call.params
        if check is not None:
            check.end("unsent")  # of the one that was named nothing is sent
            try:
                params = check.admit(kind, other, params)
                if check.pending:
                    params = yield from decided(check, call, kind, other, params)
            except (Denied, InsufficientScope):
                raise spent from None
        answer = yield Reserve(limited, call, other, {**params, "name": Raw(other.name_json)})
        if not isinstance(answer, RateLimited):
            limited.instead = Instead(asked, spent.use, limit, "same" if same else "differs")
            return other, answer
        spent = answer
    raise spent
