"""The engine that decides beside the grants, by the configuration in force.

In: a snapshot's `policy`. Out: an `Engine`; the same one for as long as that says the same. Making one may refuse, and
then nothing has changed. Cases: `tests/engines/test_policies.py`.
"""

from __future__ import annotations

from collections.abc import Callable

from narthex.authority.fetch import Fetch
from narthex.engines.counts import Counts
from narthex.engines.opa import RemoteOpa
from narthex.flow.policy.engine import Engine
from narthex.types import OpaSpec, RegoSpec


class Policies:
    """One for the process: `make` before the first call and with each reload, then `use`.

    Args:
        fetch: Asks an agent. secrets: the value of a secret by its name; raises SecretMissing.
        clock: Monotonic seconds.
    """

    def __init__(self, *, fetch: Fetch, secrets: Callable[[str], str], clock: Callable[[], float]) -> None:
        self.counts = Counts()
        self._fetch, self._secrets, self._clock = fetch, secrets, clock
        self._spec: RegoSpec | OpaSpec | None = None
        self._engine: RemoteOpa | None = None

    def make(self, spec: RegoSpec | OpaSpec | None) -> Engine | None:
        """The engine of a spec: the one that runs already, or a new one, which does not decide before it is used."""
        if spec is None or spec == self._spec:
            return self._engine if spec is not None else None
        assert isinstance(spec, OpaSpec), "the other engine is not in this version"
        return RemoteOpa(spec, fetch=self._fetch, secrets=self._secrets, clock=self._clock, counts=self.counts)

    def use(self, spec: RegoSpec | OpaSpec | None, engine: Engine | None) -> None:
        """It decides from now on."""
        assert engine is None or isinstance(engine, RemoteOpa)
        self._spec, self._engine = spec, engine

    @property
    def problem(self) -> str:
        """Why calls are not decided at present; empty while all is well."""
        return self._engine.problem if self._engine is not None else ""
