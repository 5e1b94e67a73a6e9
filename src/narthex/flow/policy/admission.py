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

from narthex.errors import Denied, InvalidParams
from narthex.flow.codec.crowds import refuse_crowd
from narthex.flow.codec.jsonrpc import BAD_JSON, Raw, RawMap
from narthex.flow.identity.scopes import Scopes
from narthex.flow.policy.arguments import read_arguments, sent
from narthex.flow.policy.decision import Decision
from narthex.flow.policy.engines.engine import Engine
from narthex.flow.policy.engines.visibility import Sight, Thing
from narthex.flow.policy.grants import Rights
from narthex.flow.policy.runs.rules import NO_PLANS
from narthex.flow.policy.runs.runs import UNWATCHED, RunKey, Runs
from narthex.flow.policy.site import NOWHERE, Site
from narthex.flow.policy.slices import SLICE, finished, in_slices
from narthex.flow.route.index import Index
from narthex.flow.route.names import canonical
from narthex.types import Kind, Principal


class Admission:
    """What one principal may at one endpoint, as long as nothing changes. `until`: Unix seconds, when that may be.

    Where an engine has a say, it is asked of each call, and `sight` is what it lets them see. One in shadow mode,
    `advisor`, is asked too, and decides nothing. `asks`: there is one or the other.
    """

    __slots__ = (
        "advisor", "asks", "endpoint", "engine", "facts", "now", "plans", "principal", "rights", "run_key", "runs",
        "scopes", "sight", "site", "trusted", "until",
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
        advisor: Engine | None = None,
    ) -> None:
        self.principal = principal
        self.advisor = advisor
        self.asks = engine is not None or advisor is not None
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
        if self.rights is not None and not self.rights.checks(kind, server, name).visible:
            return False
        scopes = self.scopes
        return scopes is None or kind != "tools" or not scopes.hides or scopes.has_all(self.principal, server, name)

    async def look(self, things: Sequence[Thing]) -> None:
        """Ask the engine which of these are visible, where it was not asked before."""
        if self.engine is not None and self.sight is not None:
            await self.sight.look(self.engine, self.principal, self.endpoint, things, self.now())

    async def look_in_vain(self, kind: Kind, server: str, name: str) -> None:
        """Ask the engine about what is not there: no clock tells it from what is hidden."""
        if self.engine is not None and self.sight is not None:
            thing = (kind, server, name)
            await self.sight.look_in_vain(self.engine, self.principal, self.endpoint, thing, self.now())

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

    def names(self, server: str) -> bool:
        """May the principal be told of this server: by its name, by what it says of itself, by what it logs? With an
        engine, where something of it is visible, as far as that is known (`upstream.naming.may_name` finds out)."""
        sight = self.sight
        return self.knows_of(server) and (sight is None or server in sight.servers or server in sight.before)

    def sees_call_of(self, server: str, tool: str) -> bool:
        """Is the tool visible whose call made a task? `tool` is empty where that is not known."""
        return self.sees("tools", server, tool) if tool else self.knows("tools", server) and self.names(server)

    def reads_arguments(self, kind: Kind, server: str, name: str) -> bool:
        """Does anything that decides about a call of this look at its arguments?"""
        if self.engine is not None and self.engine.reads_arguments:
            return True
        return self.rights is not None and self.rights.checks(kind, server, name).reads_arguments

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
        checks = self.rights.checks(kind, server, name)
        if checks.plain is not None:
            return checks.plain, params
        raw = params.get("arguments")
        facts: dict[str, Any] = {"principal": self.facts, "args": {}}
        if checks.reads_context:
            facts["context"] = self._context(raw, context)
        if "resource" in checks.reads:
            facts["resource"] = checks.resource = checks.resource or resource_of(self.site, kind, server, name)
        if "run" in checks.reads:
            facts["run"] = run()
        if raw is not None and checks.reads_arguments:
            facts["args"] = arguments = read(raw)
            params = {**params, "arguments": Raw(sent(arguments))}
        return checks.decide(facts), params

    def _context(self, raw: Raw | None, more: Mapping[str, Any]) -> dict[str, Any]:
        size = len(raw) if raw is not None else 0
        return {"endpoint": self.endpoint, "environment": self.site.environment, "arguments_size": size, **more}

    def facts_of(
        self, kind: Kind, server: str, name: str, params: RawMap, context: Mapping[str, Any]
    ) -> dict[str, Any]:
        """All that conditions can speak of, but for the run. Raises InvalidParams: the arguments cannot be read."""
        raw = params.get("arguments")
        return {
            "args": read(raw) if raw is not None else {},
            "principal": self.facts,
            "resource": resource_of(self.site, kind, server, name),
            "context": self._context(raw, context),
        }


def read(raw: Raw) -> Any:
    """The arguments of a call, as conditions see them. Raises InvalidParams."""
    refuse_crowd(raw)
    try:
        return read_arguments(bytes(raw))
    except BAD_JSON:
        raise InvalidParams("params.arguments cannot be read") from None


def resource_of(site: Site, kind: Kind, server: str, name: str) -> dict[str, Any]:
    """What conditions can say of what is called."""
    full = canonical(server, name)
    data = site.data(kind, full)
    return {
        "kind": kind,
        "server": server,
        "name": name,
        "canonical": full,
        "classification": data.classification,
        "privacy": data.privacy,
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
