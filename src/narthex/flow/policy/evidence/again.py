"""A decision taken again, from what was known when it was taken, by the code that decides calls.

In: grants, scopes and an engine; `Asked`, which has the caller, the call, and the moment. Out: the `Decision`. Replay,
`narthex explain`, `narthex policy test` and rules in shadow mode all come through here.
Cases: `tests/flow/policy/test_again.py`. Source: house style, principle 3 (stored facts plus the call give the decision
again: replay is the same code, not a second one).
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import suppress
from typing import Any

import msgspec

from narthex.errors import GatewayError
from narthex.flow.identity.scopes import Scopes
from narthex.flow.policy.admissions import Admissions
from narthex.flow.policy.check import Check
from narthex.flow.policy.deciding import Decide, Look, decided
from narthex.flow.policy.decision import Decision
from narthex.flow.policy.engines.engine import Engine
from narthex.flow.policy.grants import Grants
from narthex.flow.policy.runs.again import Unclear, decided_from
from narthex.flow.policy.runs.rules import RunRules, uncounted
from narthex.flow.policy.runs.runs import Runs
from narthex.flow.policy.site import NOWHERE, Site
from narthex.flow.route.index import KEY, selector_of
from narthex.flow.route.names import canonical
from narthex.flow.route.target import Target
from narthex.types import Call, EndpointSpec, Kind


class Asked(msgspec.Struct, frozen=True):
    """What a decision was taken on.

    Args:
        call: Its `params` need no more than the arguments. target: where its name led.
        at: Unix seconds.
        whole: False where the arguments are not at hand: what does not look at them can be decided all the same.
        run: What its run was before it, as recorded: labels, and calls by canonical name; None: that is not known.
        past: All that its run has done, where that is imagined.
    """

    call: Call
    kind: Kind
    target: Target
    address: str = ""
    at: float = 0.0
    whole: bool = True
    run: Mapping[str, Any] | None = None
    past: Runs | None = None

    @property
    def resource(self) -> str:
        """The canonical name."""
        return canonical(self.target.server, self.target.name)


class Untold(Exception):
    """It cannot be decided with what is at hand. The text says what is missing."""


NOT_THERE = Decision("deny", "not_found")
"""Of what no server of the endpoint gives, or the endpoint does not take: nobody had to decide."""


class Again:
    """Decides as a gateway with these rules does, at any moment.

    Args:
        places: Its endpoints: what none of them shows does not exist. None: that is not asked.
        runs: Its rules over several calls.
    """

    def __init__(
        self,
        grants: Grants | None,
        scopes: Mapping[str, Scopes],
        places: Mapping[str, EndpointSpec] | None = None,
        engine: Engine | None = None,
        site: Site = NOWHERE,
        runs: RunRules | None = None,
    ) -> None:
        self._at = 0.0
        self._runs = runs
        self._shows = {name: _Shows(one) for name, one in places.items()} if places is not None else None
        self._admissions = Admissions(grants, scopes, lambda: self._at, engine, site)

    async def decide(self, asked: Asked) -> Decision:
        """Raises Untold."""
        call, kind, target = asked.call, asked.kind, asked.target
        if self._shows is not None:
            place = self._shows.get(call.endpoint)
            if place is None or not place.shows(kind, target):
                return NOT_THERE
        self._at = asked.at
        admission = self._admissions.at(call.principal, call.endpoint, asked.at)
        run, past = asked.run, asked.past
        if past is not None:
            run = past.facts(past.key_of(call.principal, call.endpoint))
        check = Check(admission, asked.address, asked.at, run=run)
        await check.look(kind, target)
        if not admission.looked_at(kind, target.server, target.name):
            trouble = admission.sight.trouble if admission.sight is not None else None
            why = f": {trouble.reason}: {trouble.detail}".removesuffix(": ") if trouble is not None else ""
            raise Untold(f"the engine does not say what the caller sees{why}")
        if check.sees(kind, target):
            if not asked.whole and admission.reads_arguments(kind, target.server, target.name):
                raise Untold("its arguments were not recorded, and a rule looks at them")
            with suppress(GatewayError):  # the decision says so
                params = check.admit(kind, target, call.params)
                if check.pending:
                    await answered(decided(check, call, kind, target, params))
            self._watch(check, asked)
        assert check.decision is not None
        return check.decision

    def _watch(self, check: Check, asked: Asked) -> None:
        """What rules on runs say of it; a denial of others stands."""
        decision, runs = check.decision, self._runs
        if runs is None or decision is None or decision.effect == "deny":
            return
        plan = runs.plans(asked.call.principal).plan(asked.kind, asked.resource)
        if asked.call.method == "completion/complete":
            plan = uncounted(plan)
        try:
            if asked.past is not None:
                key = asked.past.key_of(asked.call.principal, asked.call.endpoint)
                said = asked.past.decide(asked.past.get(key), plan)
            else:
                said = decided_from(plan, asked.run, runs.spec.window_s)
        except Unclear as error:
            raise Untold(str(error)) from None
        if said is not None and (said.effect == "deny" or decision.effect == "allow"):
            check.decision = said

    def decide_now(self, asked: Asked) -> Decision:
        """The same where no engine is asked."""
        deciding = self.decide(asked)
        try:
            deciding.send(None)
        except StopIteration as done:
            decision: Decision = done.value
            return decision
        finally:
            deciding.close()
        raise AssertionError("an engine was asked")


async def answered(asking: Generator[object, Any, Any]) -> None:
    """Have an engine answer. Whatever else is asked, a person say, was answered then or not: it is not asked again."""
    answer: Any = None
    with suppress(StopIteration):
        while isinstance(question := asking.send(answer), (Decide, Look)):
            answer = question.now()
            if answer is None:
                answer = await question.later()


class _Shows:
    """What an endpoint takes of its servers."""

    def __init__(self, endpoint: EndpointSpec) -> None:
        self._servers = frozenset(endpoint.servers)
        self._selected = {kind: selector_of(endpoint, kind) for kind in KEY}

    def shows(self, kind: Kind, target: Target) -> bool:
        name = canonical(target.server, target.name)
        return target.server in self._servers and self._selected[kind].allows(name)


def scopes_of(endpoints: Mapping[str, EndpointSpec]) -> dict[str, Scopes]:
    """The endpoints where single tools need scopes."""
    found = {name: Scopes(one) for name, one in endpoints.items()}
    return {name: one for name, one in found.items() if one.by_tool}
