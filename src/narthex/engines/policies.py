"""The engine that decides beside the grants, by the configuration in force.

In: a snapshot's `policy`. Out: an `Engine`; the same one for as long as that says the same, and its bundle does. Making
one may refuse, and then nothing has changed. Cases: `tests/engines/test_policies.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from narthex.authority.fetch import Fetch
from narthex.engines.counts import Counts
from narthex.engines.decision_log import DecisionLog
from narthex.engines.logged import Logged
from narthex.engines.opa import RemoteOpa
from narthex.flow.policy.engines.engine import Engine
from narthex.types import DecisionLogSpec, OpaSpec, RegoSpec

if TYPE_CHECKING:
    from narthex.engines.ruling import Ruling


class Policies:
    """One for the process: `make` before the first call and with each reload, then `use`.

    Args:
        fetch: Asks an agent. secrets: the value of a secret by its name; raises SecretMissing.
        changed: Called when the engine in force is another one without a reload: its bundle has changed.
        now: Unix seconds. clock: monotonic seconds. chance: 0 ≤ x < 1.
        new_id: a UUID.
    """

    def __init__(
        self,
        *,
        fetch: Fetch,
        secrets: Callable[[str], str],
        changed: Callable[[], None],
        now: Callable[[], float],
        clock: Callable[[], float],
        chance: Callable[[], float],
        new_id: Callable[[], str],
    ) -> None:
        self.counts = Counts()
        self._fetch, self._secrets, self._changed = fetch, secrets, changed
        self._now, self._clock, self._chance, self._new_id = now, clock, chance, new_id
        self._spec: RegoSpec | OpaSpec | None = None
        self._opa: RemoteOpa | None = None
        self._ruling: Ruling | None = None
        self._made: Ruling | None = None
        self._log: DecisionLog | None = None
        self._ending: set[asyncio.Task[None]] = set()

    @property
    def engine(self) -> Engine | None:
        """The one in force; its decisions are logged where that is wanted."""
        found = self._ruling.engine if self._ruling is not None else self._opa
        log = self._log
        return found if found is None or log is None else Logged(found, log.add, lists=log.spec.lists)

    async def make(self, spec: RegoSpec | OpaSpec | None) -> Engine | None:
        """The engine of a spec: the one that runs already, or a new one, which does not decide before it is used.

        Raises:
            ConfigError: Its policy cannot be used.
        """
        self.drop()
        if spec is None or spec == self._spec:
            return self.engine if spec is not None else None
        if isinstance(spec, OpaSpec):
            return RemoteOpa(spec, fetch=self._fetch, secrets=self._secrets, clock=self._clock, counts=self.counts)
        from narthex.engines.ruling import Ruling  # an engine for Rego: only where one decides

        self._made = Ruling(
            spec, self._changed, fetch=self._fetch, secrets=self._secrets, now=self._now, clock=self._clock,
            chance=self._chance, counts=self.counts,
        )  # fmt: skip
        return await self._made.start()

    def use(self, spec: RegoSpec | OpaSpec | None, engine: Engine | None) -> None:
        """It decides from now on."""
        if spec == self._spec:
            return
        before = self._ruling
        self._spec, self._ruling, self._made = spec, self._made, None
        self._opa = engine if isinstance(engine, RemoteOpa) else None
        if before is not None:
            before.close()

    def log(self, spec: DecisionLogSpec | None) -> None:
        """Log the decisions of the engine in force there from now on. Another log sends what it has left."""
        rule = (
            "" if self._spec is None else self._spec.path if isinstance(self._spec, OpaSpec) else self._spec.entrypoint
        )
        before = self._log
        if before is not None and (before.spec, before.path) == (spec, rule):
            return
        self._log = None
        if before is not None:
            ending = asyncio.get_running_loop().create_task(before.close())
            self._ending.add(ending)
            ending.add_done_callback(self._ending.discard)
        if spec is not None and rule:
            self._log = DecisionLog(
                spec, rule, fetch=self._fetch, secrets=self._secrets, now=self._now, chance=self._chance,
                new_id=self._new_id, counts=self.counts,
            )  # fmt: skip
            self._log.start()

    @property
    def log_problem(self) -> str:
        """Why decisions cannot be logged at present; empty while all is well, or none are to be."""
        return self._log.problem if self._log is not None else ""

    @property
    def problem(self) -> str:
        """Why calls are not decided at present, or by a policy that has been replaced; empty while all is well."""
        if self._ruling is not None:
            return self._ruling.problem
        return self._opa.problem if self._opa is not None else ""

    async def stop_logging(self) -> None:
        """Send what is left."""
        self.log(None)
        await asyncio.gather(*self._ending, return_exceptions=True)

    def close(self) -> None:
        self.drop()
        if self._ruling is not None:
            self._ruling.close(at_once=True)

    def drop(self) -> None:
        """Let go of what was made for a snapshot that does not come into force."""
        if self._made is not None:
            self._made.close(at_once=True)
            self._made = None
