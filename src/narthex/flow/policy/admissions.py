"""The admissions of a configuration: one for each principal at an endpoint, made once and kept while it holds.

In: what decides; a principal. Out: an `Admission`, or the `Check` of one call. Bounded in what it remembers.
Cases: `tests/flow/policy/test_admission.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from narthex.flow.codec.jsonrpc import RawMap
from narthex.flow.identity.scopes import Scopes
from narthex.flow.policy.admission import Admission
from narthex.flow.policy.check import NO_META, Check
from narthex.flow.policy.engines.engine import Engine
from narthex.flow.policy.engines.visibility import Sights
from narthex.flow.policy.grants import Grants
from narthex.flow.policy.runs.runs import Runs
from narthex.flow.policy.shadow import Shadow
from narthex.flow.policy.site import NOWHERE, Site
from narthex.types import Principal

MOST_PRINCIPALS = 8192


class Admissions:
    """The admissions of a snapshot; bounded in what it remembers.

    Args:
        grants: None where there are none: everything is granted.
        scopes: The endpoints where single tools need scopes.
        now: Unix seconds.
        engine: Who decides beside them; None: nobody.
        site: Where all of it is for.
        runs: What is watched over several calls; None: nothing.
        advisor: An engine in shadow mode.
        shadows: Is anything in shadow mode?
    """

    def __init__(
        self,
        grants: Grants | None,
        scopes: Mapping[str, Scopes],
        now: Callable[[], float],
        engine: Engine | None = None,
        site: Site = NOWHERE,
        runs: Runs | None = None,
        advisor: Engine | None = None,
        *,
        shadows: bool = False,
    ) -> None:
        self._advisor = advisor
        self._shadows = shadows
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
        check = Check(self._at(principal, endpoint, now), address, now, meta=meta)
        if self._shadows:
            check.shadow = Shadow()
        return check

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
            principal, endpoint, rights, self._scopes.get(endpoint), engine, sight, self._now, self._site, self._runs,
            self._advisor,
        )  # fmt: skip
