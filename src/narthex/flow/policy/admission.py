"""The one admission function: what a principal sees at an endpoint, and whether a call of theirs goes on.

In: grants and scopes of the configuration, an engine; a principal; a kind and a target; what a call says. Out:
`Admission`, which answers for lists, for names and for calls alike, so that what is listed is exactly what is not
hidden; for a call the parameters that go on, or the refusal. Rules match the canonical name, whatever the endpoint
shows. What memory alone cannot decide is left to `deciding.py`.
Cases: `tests/flow/policy/test_admission.py`. Source: design §3 ("One admission function").
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

import msgspec

from narthex.errors import Denied, GatewayError, InvalidParams
from narthex.flow.codec.crowds import refuse_crowd
from narthex.flow.codec.jsonrpc import BAD_JSON, Raw, RawMap
from narthex.flow.identity.scopes import Scopes
from narthex.flow.policy.conditions import read_arguments, sent
from narthex.flow.policy.decision import ALLOW, HIDDEN, Decision
from narthex.flow.policy.document import Document
from narthex.flow.policy.engine import Engine
from narthex.flow.policy.grants import Grants, Rights
from narthex.flow.policy.obligations import Duties
from narthex.flow.policy.run_rules import NO_PLANS, RUN_COOL_DOWN, RUN_COUNT, uncounted
from narthex.flow.policy.runs import UNWATCHED, End, RunKey, Runs, Taken
from narthex.flow.policy.site import NOWHERE, Site
from narthex.flow.policy.slices import SLICE, finished, in_slices
from narthex.flow.policy.visibility import Sight, Sights, Thing
from narthex.flow.route.index import Index, Target
from narthex.flow.route.names import canonical
from narthex.types import Kind, Principal

MOST_PRINCIPALS = 8192
NO_META: RawMap = {}


class Admission:
    """What one principal may at one endpoint, as long as nothing changes. `until`: Unix seconds, when that may be.

    Where an engine has a say, it is asked of each call, and `sight` is what it lets them see.
    """

    __slots__ = (
        "endpoint", "engine", "facts", "now", "plans", "principal", "rights", "run_key", "runs", "scopes", "sight",
        "site", "trusted", "until",
    )  # fmt: skip

    def __init__(
        self,
        principal: Principal,
        endpoint: str,
        rights: Rights | None,
        scopes: Scopes | None,
        engine: Engine | None = None,
        sight: Sight | None = None,
        now: Callable[[], float] = lambda: 0.0,
        site: Site = NOWHERE,
        runs: Runs | None = None,
    ) -> None:
        self.principal = principal
        self.engine = engine
        self.sight = sight
        self.now = now
        self.endpoint = endpoint
        self.rights = rights
        self.scopes = scopes
        self.site = site
        self.runs = runs
        self.run_key: RunKey = runs.key_of(principal, endpoint) if runs is not None else (principal.key, endpoint, "")
        self.plans = runs.rules.plans(principal) if runs is not None else NO_PLANS
        self.trusted = runs is not None and runs.trusts(principal)
        self.until = rights.until if rights is not None else math.inf
        if sight is not None:
            self.until = min(self.until, sight.until)
        self.facts = principal_facts(principal)

    def sees(self, kind: Kind, server: str, name: str) -> bool:
        """Is this visible? What is not, does not exist for the caller. What an engine was not asked of is not."""
        sight = self.sight
        return self.grants(kind, server, name) and (sight is None or sight.known.get((kind, server, name), False))

    def grants(self, kind: Kind, server: str, name: str) -> bool:
        """Would it be visible but for an engine?"""
        if self.rights is not None and not self.rights.checks(kind, canonical(server, name)).visible:
            return False
        scopes = self.scopes
        return scopes is None or kind != "tools" or not scopes.hides or scopes.has_all(self.principal, server, name)

    async def look(self, things: Sequence[Thing]) -> None:
        """Ask the engine which of these are visible, where it was not asked before."""
        if self.engine is not None and self.sight is not None:
            await self.sight.look(self.engine, self.principal, self.endpoint, things, self.now())

    def looked_at(self, kind: Kind, server: str, name: str) -> bool:
        """Is it decided whether this is visible? What an engine failed at is not."""
        sight = self.sight
        return sight is None or (kind, server, name) in sight.known or not self.grants(kind, server, name)

    async def look_through(self, index: Index) -> None:
        """Have worked out what of a list is visible, in slices, by an engine too: then `shown` knows it at once."""
        await in_slices(self._working(index))
        if self.engine is not None and self.sight is not None:
            await self.sight.look_through(self.engine, self.principal, self.endpoint, index, self.now())

    def looked_through(self, index: Index) -> bool:
        """Is that known, or so short that it is worked out at once?"""
        if self.sight is not None and not self.sight.looked_through(index):
            return False
        if len(index.targets) <= SLICE:
            return True
        if self.rights is not None and self.rights.known(index) is None:
            return False
        scopes = self._unscoped(index)
        return scopes is None or scopes.known(self.principal, index) is not None

    def _unscoped(self, index: Index) -> Scopes | None:
        """The scopes that hide something of this list."""
        return self.scopes if self.scopes is not None and self.scopes.hides and index.kind == "tools" else None

    def _working(self, index: Index) -> Generator[None, None, int | None]:
        """What grants and scopes show of a list."""
        bits = (yield from self.rights.working(index)) if self.rights is not None else None
        if (scopes := self._unscoped(index)) is not None:
            unscoped = yield from scopes.working(self.principal, index)
            bits = unscoped if bits is None else bits & unscoped
        return bits

    def knows(self, kind: Kind, server: str) -> bool:
        """Is there anything of this kind that the principal could see of a server, by the grants?"""
        return self.rights is None or self.rights.knows(kind, server)

    def knows_of(self, server: str) -> bool:
        """Is there anything at all that the principal could see of a server? Else it does not exist for them."""
        return any(self.knows(kind, server) for kind in ("tools", "prompts", "resources"))

    def sees_call_of(self, server: str, tool: str) -> bool:
        """Is the tool visible whose call made a task? `tool` is empty where that is not known."""
        return self.sees("tools", server, tool) if tool else self.knows("tools", server)

    def reads_arguments(self, kind: Kind, server: str, name: str) -> bool:
        """Does anything that decides about a call of this look at its arguments?"""
        if self.engine is not None and self.engine.reads_arguments:
            return True
        return self.rights is not None and self.rights.checks(kind, canonical(server, name)).reads_arguments

    def shown(self, index: Index) -> int | None:
        """Which items of a list are visible, as bits in its order; None for all. Worked out once for all alike."""
        bits = finished(self._working(index))
        if self.sight is not None:
            seen = self.sight.shown(index)
            bits = seen if bits is None else bits & seen
        return bits

    def decide(
        self,
        kind: Kind,
        server: str,
        name: str,
        params: RawMap,
        context: Mapping[str, Any],
        run: Callable[[], Mapping[str, Any]] = lambda: UNWATCHED,
    ) -> tuple[Decision | None, RawMap]:
        """May this call of something visible go on?

        Args:
            params: The call's. context: What conditions may know beside it. run: What they may know of its run.
        Returns:
            The decision (None where there are no grants), and the parameters that go on: where a condition has looked
            at the arguments, exactly what it saw.
        Raises:
            InsufficientScope: With more scopes it may. InvalidParams: The arguments cannot be read.
        """
        if self.scopes is not None and kind == "tools":
            self.scopes.check(self.principal, server, name)
        if self.rights is None:
            return None, params
        checks = self.rights.checks(kind, canonical(server, name))
        if checks.plain is not None:
            return checks.plain, params
        facts = facts_of(self, kind, (server, name), params if checks.reads_arguments else {}, context)
        if checks.reads_run:
            facts["run"] = run()
        if checks.reads_arguments and "arguments" in params:
            params = {**params, "arguments": Raw(sent(facts["args"]))}
        return checks.decide(facts), params


def facts_of(
    admission: Admission, kind: Kind, target: tuple[str, str], params: RawMap, context: Mapping[str, Any]
) -> dict[str, Any]:
    """What conditions speak of, but for the run. Raises InvalidParams: the arguments cannot be read."""
    raw = params.get("arguments")
    arguments: Any = {}
    if raw is not None:
        refuse_crowd(raw)
        try:
            arguments = read_arguments(bytes(raw))
        except BAD_JSON:
            raise InvalidParams("params.arguments cannot be read") from None
    server, name = target
    full = canonical(server, name)
    data = admission.site.data(kind, full)
    return {
        "args": arguments,
        "principal": admission.facts,
        "resource": {
            "kind": kind,
            "server": server,
            "name": name,
            "canonical": full,
            "classification": data.classification,
            "privacy": data.privacy,
        },
        "context": {
            "endpoint": admission.endpoint,
            "environment": admission.site.environment,
            "arguments_size": len(raw) if raw is not None else 0,
            **context,
        },
    }


def refusal(decision: Decision, retry_after_s: float | None = None) -> Denied:
    """What a denial becomes on the wire. The rule's name is the operator's: it goes into the log and the record."""
    detail = f"{decision.reason} by {decision.rule!r}, line {decision.line}" if decision.rule else decision.reason
    if decision.detail:
        detail = f"{detail}: {decision.detail}"
    return Denied(decision.reason, detail=detail, retry_after_s=retry_after_s)


def principal_facts(principal: Principal) -> dict[str, Any]:
    """What conditions can say of a principal."""
    return {
        "id": principal.subject,
        "issuer": principal.issuer,
        "tenant": principal.tenant,
        "client": principal.client,
        "agent": principal.client,
        "kind": principal.kind,
        "roles": list(principal.roles),
        "groups": list(principal.groups),
        "scopes": sorted(principal.scopes),
        "actors": list(principal.actors),
        "method": principal.method,
        "authenticated_at": int(principal.authenticated_at),
    }


class Admissions:
    """The admissions of a snapshot; bounded in what it remembers.

    Args:
        grants: None where there are none: everything is granted.
        scopes: The endpoints where single tools need scopes.
        now: Unix seconds.
        engine: Who decides beside them; None: nobody.
        site: Where all of it is for.
        runs: What is watched over several calls; None: nothing.
    """

    def __init__(
        self,
        grants: Grants | None,
        scopes: Mapping[str, Scopes],
        now: Callable[[], float],
        engine: Engine | None = None,
        site: Site = NOWHERE,
        runs: Runs | None = None,
    ) -> None:
        self._runs = runs
        self._sights = Sights(engine, site) if engine is not None else None
        self._grants = grants
        self._scopes = scopes
        self._now = now
        self._site = site
        self._of: dict[tuple[int, str], Admission] = {}

    def changes_at(self) -> float:
        """When what is seen may next change by itself: Unix seconds."""
        now = self._now()
        granted = self._grants.until(now) if self._grants is not None else math.inf
        return min(granted, self._sights.until(now)) if self._sights is not None else granted

    def of(self, principal: Principal, endpoint: str) -> Admission:
        """What this principal may at an endpoint. A verified token gives the same object each time: it is the key."""
        return self._at(principal, endpoint, self._now())

    def check(self, principal: Principal, endpoint: str, address: str, meta: RawMap = NO_META) -> Check:
        """What a call of theirs is admitted by. `address`: the client's, for rules on networks; `meta`: its `_meta`."""
        now = self._now()
        return Check(self._at(principal, endpoint, now), address, now, meta=meta)

    def _at(self, principal: Principal, endpoint: str, now: float) -> Admission:
        key = (id(principal), endpoint)
        known = self._of.get(key)
        if known is not None and known.principal is principal and now < known.until:
            return known
        made = self.at(principal, endpoint, now)
        if len(self._of) >= MOST_PRINCIPALS:
            del self._of[next(iter(self._of))]
        self._of[key] = made
        return made

    def at(self, principal: Principal, endpoint: str, now: float) -> Admission:
        """The same, of any moment (Unix seconds), and not kept."""
        rights = self._grants.rights(principal, endpoint, now) if self._grants is not None else None
        engine, sight = None, None
        if self._sights is not None:
            engine, sight = self._sights.engine, self._sights.of(principal, endpoint, now)
        return Admission(
            principal, endpoint, rights, self._scopes.get(endpoint), engine, sight, self._now, self._site, self._runs
        )


class Check(msgspec.Struct):
    """The admission of one call: what its walk asks, and what was decided of what, for the record.

    `at`: Unix seconds, the moment that decides. `target` is None until a name has led to something; `params` is what
    was looked at then. `pending`: memory alone has not decided; `deciding.decided` goes on. `document`: what an engine
    was asked. `meta`: the call's `_meta`, in which a trusted agent says which run it is part of. `taken`: who is to be
    told what becomes of the call; `held`: the same of the call that this one is a retry of. `run`: what its run was
    before it, as far as anybody asks. `duties`: what a policy demands of the result. `logged`: it is a line in the log
    of calls, where there is one. `unsent`: who is to be told if nothing is sent of a call that a person has approved.
    """

    admission: Admission
    address: str = ""
    at: float = 0.0
    kind: Kind = "tools"
    target: Target | None = None
    params: RawMap = {}
    decision: Decision | None = None
    pending: bool = False
    document: Document | None = None
    meta: RawMap = NO_META
    taken: Taken | None = None
    held: Taken | None = None
    run: Mapping[str, Any] | None = None
    duties: Duties | None = None
    logged: bool = True
    unsent: Callable[[], None] | None = None

    def sees(self, kind: Kind, target: Target) -> bool:
        """Is this visible to the caller?"""
        if self.admission.sees(kind, target.server, target.name):
            return True
        self.kind, self.target, self.decision = kind, target, HIDDEN
        return False

    def visible(self, kind: Kind, target: Target | None) -> Target | None:
        """The target, where there is one that the caller sees. To find that there is none takes as long as to find one
        hidden: no clock tells them apart (`bench/hidden.py`)."""
        if target is None:
            self.admission.sees(kind, "", "")
            return None
        return target if self.sees(kind, target) else None

    @property
    def is_judged(self) -> bool:
        """Has an engine a say in what the caller sees? Then `look` before `sees`."""
        return self.admission.engine is not None

    async def look(self, kind: Kind, target: Target) -> None:
        """Have it decided whether this is visible."""
        if self.admission.grants(kind, target.server, target.name):
            await self.admission.look([(kind, target.server, target.name)])

    def knows(self, kind: Kind, server: str) -> bool:
        """Can the caller see anything of this kind of the server? Else the server does not exist for them."""
        return self.admission.knows(kind, server)

    def sees_call_of(self, server: str, tool: str) -> bool:
        """Is the tool visible whose call made a task?"""
        return self.admission.sees_call_of(server, tool)

    def admit(self, kind: Kind, target: Target, params: RawMap, *, counts: bool = True) -> RawMap:
        """The parameters that go on, as far as memory decides.

        Args:
            counts: Is it one of the calls that rules on runs count? Completions are not.
        Raises:
            Denied, InsufficientScope, InvalidParams. Overloaded: It would begin a run, and there are too many.
        """
        self.kind, self.target, self.params = kind, target, params
        context, admission = {"address": self.address}, self.admission
        try:
            decision, params = admission.decide(kind, target.server, target.name, params, context, self.run_facts)
            decision = decision or ALLOW
            if admission.runs is not None and decision.effect != "deny":
                said = self._watch(admission.runs, kind, canonical(target.server, target.name), counts)
                if said is not None and (said.effect == "deny" or decision.effect == "allow"):
                    decision = said
        except GatewayError as error:
            self.decision = Decision("deny", error.reason, detail=error.detail)
            raise
        self.decision = decision
        self.pending = admission.engine is not None or decision.effect == "hold"
        if decision.effect == "deny":
            raise refusal(decision, self._wait_s(decision))
        return params

    def _watch(self, runs: Runs, kind: Kind, name: str, counts: bool) -> Decision | None:
        """What a rule on runs says against the call, and count it."""
        admission = self.admission
        plan = admission.plans.plan(kind, name)
        if runs.told:
            self.run_facts()  # before this call is part of it
        if not counts:
            plan = uncounted(plan)
        if self.held is not None:
            self.taken = self.held  # it goes on with this check
            return self.held.decide_again(plan)
        said, self.taken = runs.admit(self._key(runs), plan, name)
        return said

    def _wait_s(self, decision: Decision) -> float | None:
        """When a rule on runs would let the call through, where it bounds how many there are in a time."""
        runs, target = self.admission.runs, self.target
        if runs is None or target is None or decision.reason not in (RUN_COUNT, RUN_COOL_DOWN):
            return None
        plan = self.admission.plans.plan(self.kind, canonical(target.server, target.name))
        return runs.get(self._key(runs)).wait_s(plan, decision, runs.clock())

    def _key(self, runs: Runs) -> RunKey:
        admission = self.admission
        if not admission.trusted or not (id_ := runs.id_of(self.meta)):
            return admission.run_key
        return (*admission.run_key[:2], id_)

    def run_facts(self) -> Mapping[str, Any]:
        """What conditions and engines are told of the run."""
        if self.run is None:
            runs = self.admission.runs
            self.run = UNWATCHED if runs is None else runs.facts(self._key(runs))
        return self.run

    def told(self, server: str, tool: str, *, tells: bool) -> None:
        """What an earlier call gives, a task, is told to the caller now: that leaves marks as the call does.

        Args:
            tool: Empty where it is not known which.
            tells: Does the caller tell the task something? Then rules look at it as at a call of the tool.
        Raises:
            Denied. Overloaded: It would begin a run, and there are too many.
        """
        runs = self.admission.runs
        if runs is not None:
            plan = self.admission.plans.plan_of_answer(server, tool, tells=tells)
            name = canonical(server, tool)
            said, self.taken = runs.admit(self._key(runs), plan, name, tallied=False)
            if said is not None:  # nobody can be asked: what is held is refused, too
                self.decision = said
                raise refusal(said)

    def tells(self) -> None:
        """The client tells the server more in the middle of the call: an answer to what it was asked.

        Raises:
            Denied: Its run has come meanwhile to where a rule denies the call.
        """
        runs, target, taken = self.admission.runs, self.target, self.taken
        if runs is None or target is None:
            return
        plan = uncounted(self.admission.plans.plan(self.kind, canonical(target.server, target.name)))
        said = taken.decide_again(plan) if taken is not None else runs.decide(runs.get(self._key(runs)), plan)
        if said is not None and said.effect == "deny":
            self.decision = said
            raise refusal(said)

    def end(self, end: End) -> None:
        """What became of the call. The first time counts."""
        if self.taken is not None:
            self.taken.end(end)
        if self.unsent is not None:
            unsent, self.unsent = self.unsent, None
            if end == "unsent":
                unsent()

    @property
    def asks_how_it_ends(self) -> bool:
        """Must be seen whether the answer is an error?"""
        return self.taken is not None and self.taken.asks
