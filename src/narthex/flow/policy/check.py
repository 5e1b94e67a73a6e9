"""The admission of one call: what its walk asks, what was decided of what, and how it ends for the runs it counts in.

In: an `Admission`; a kind, a target, parameters. Out: the parameters that go on, or the refusal, and what the record
says of it. Cases: `tests/flow/policy/test_admission.py`. Source: design §3 ("One admission function").
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from narthex.errors import GatewayError
from narthex.flow.codec.jsonrpc import RawMap
from narthex.flow.policy.admission import Admission, refusal
from narthex.flow.policy.decision import ALLOW, HIDDEN, Decision
from narthex.flow.policy.document import Document
from narthex.flow.policy.engines.obligations import Duties
from narthex.flow.policy.runs.rules import RUN_COOL_DOWN, RUN_COUNT, uncounted
from narthex.flow.policy.runs.runs import UNWATCHED, End, RunKey, Runs, Taken
from narthex.flow.policy.runs.tally import OTHERS
from narthex.flow.policy.shadow import Shadow
from narthex.flow.route.index import Target
from narthex.flow.route.names import canonical
from narthex.types import Kind

NO_META: Final[RawMap] = {}
NO_TRACE: Final = (b"", b"")


class Check:
    """The admission of one call: what its walk asks, and what was decided of what, for the record.

    `at`: Unix seconds, the moment that decides. `target` is None until a name has led to something; `params` is what
    was looked at then. `pending`: memory alone has not decided; `deciding.decided` goes on. `document`: what an engine
    was asked. `meta`: the call's `_meta`, in which a trusted agent says which run it is part of. `taken`: who is to be
    told what becomes of the call; `held`: the same of the call that this one is a retry of. `run`: what its run was
    before it, as far as anybody asks. `shadow`: what is said of it where rules are in shadow mode. `duties`: what a
    policy demands of the result. `granted` is what the grants alone have said, `watched` what rules over several calls
    say against it: None where they were not asked. `logged`: it is a line in the log of calls, where there is one.
    `trace`: that of the HTTP request, as its headers have it, for an engine. `unsent`: who is to be told if nothing is
    sent of a call that a person has approved.
    """

    __slots__ = (
        "address", "admission", "at", "decision", "document", "duties", "granted", "held", "kind", "logged", "meta",
        "params", "pending", "run", "shadow", "taken", "target", "trace", "unsent", "watched",
    )  # fmt: skip

    def __init__(
        self,
        admission: Admission,
        address: str = "",
        at: float = 0.0,
        *,
        meta: RawMap = NO_META,
        run: Mapping[str, Any] | None = None,
    ) -> None:
        self.admission = admission
        self.address = address
        self.at = at
        self.kind: Kind = "tools"
        self.target: Target | None = None
        self.params: RawMap = NO_META
        self.decision: Decision | None = None
        self.granted: Decision | None = None
        self.watched: tuple[Decision, ...] | None = None
        self.pending = False
        self.document: Document | None = None
        self.meta = meta
        self.taken: Taken | None = None
        self.held: Taken | None = None
        self.run = run
        self.duties: Duties | None = None
        self.logged = True
        self.trace = NO_TRACE
        self.shadow: Shadow | None = None
        self.unsent: tuple[Callable[[], None], ...] = ()

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

    async def look_in_vain(self, kind: Kind, name: str) -> None:
        """Have the engine asked about a name that leads nowhere, or to what the grants hide."""
        await self.admission.look_in_vain(kind, "", name)

    def grants(self, kind: Kind, target: Target) -> bool:
        """Would it be visible but for an engine?"""
        return self.admission.grants(kind, target.server, target.name)

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
        self.granted = self.watched = None
        context, admission = {"address": self.address}, self.admission
        try:
            decision, params = admission.decide(kind, target.server, target.name, params, context, self.run_facts)
            self.granted = decision = decision or ALLOW
            if admission.runs is not None and decision.effect != "deny":
                said = self._watch(admission.runs, kind, canonical(target.server, target.name), counts)
                self.watched = (said,) if said is not None else ()
                if said is not None and (said.effect == "deny" or decision.effect == "allow"):
                    decision = said
        except GatewayError as error:
            self.decision = Decision("deny", error.reason, detail=error.detail)
            raise
        self.decision = decision
        self.pending = admission.asks or decision.effect == "hold"
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
        key, shadow = self._key(runs), self.shadow
        if shadow is not None:
            shadow.would_watch = runs.would(runs.get(key), plan)
        said, self.taken = runs.admit(key, plan, name)
        if shadow is not None:
            shadow.watched = said
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
            others = self.run["calls"].get(OTHERS)
            if others and self.target is not None:  # any of them may have been of this name: nobody hides calls by many
                name, calls = canonical(self.target.server, self.target.name), self.run["calls"]
                self.run = {**self.run, "calls": {**calls, name: calls.get(name, 0) + others}}
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
        if self.unsent:
            told, self.unsent = self.unsent, ()
            if end == "unsent":
                for one in told:
                    one()

    @property
    def asks_how_it_ends(self) -> bool:
        """Must be seen whether the answer is an error?"""
        return self.taken is not None and self.taken.asks
