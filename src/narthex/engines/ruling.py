"""Which engine decides beside the grants: made for a snapshot's policy, and anew with each new bundle.

In: the `policy` of a snapshot. Out: the `Engine` in force, told to whoever uses it. A bundle that cannot be used
changes nothing: the last good one goes on. Cases: `tests/engines/test_ruling.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from narthex.authority.bundles import BundleKeeper, BundleSpec
from narthex.authority.fetch import Fetch
from narthex.engines.embedded import Rego, embedded
from narthex.engines.frames import Flawed
from narthex.engines.helper import HelperGone
from narthex.engines.helpers import WAIT_S
from narthex.errors import ConfigError
from narthex.flow.policy.bundles import Bundle, BundleRefused
from narthex.types import RegoSpec

FIRST_S = 30.0


class Ruling:
    """The engine of one `RegoSpec`, from `start` to `close`.

    Args:
        changed: Called when another engine is in force than the one before.
        now: Unix seconds. clock: monotonic seconds. chance: 0 ≤ x < 1.
    """

    def __init__(
        self,
        spec: RegoSpec,
        changed: Callable[[], None],
        *,
        fetch: Fetch,
        now: Callable[[], float],
        clock: Callable[[], float],
        chance: Callable[[], float],
    ) -> None:
        self.spec = spec
        self.engine: Rego | None = None
        self._changed, self._now = changed, now
        self._closed = False
        self._keeper = BundleKeeper(
            BundleSpec(path=spec.bundle), self._take, fetch=fetch, now=now, clock=clock, chance=chance
        )

    async def start(self) -> Rego:
        """Rule by what is there. Raises ConfigError: it cannot be used."""
        await self._keeper.start(FIRST_S)
        if self.engine is None:
            self.close()
            raise ConfigError([f"policy: {self._keeper.problem}"])
        return self.engine

    @property
    def problem(self) -> str:
        """Why there is no newer policy; empty while all is well."""
        return self._keeper.problem

    def close(self, *, at_once: bool = False) -> None:
        self._closed = True
        self._keeper.close()
        if self.engine is not None and at_once:
            self.engine.close()
        else:
            self._let_go(self.engine)

    async def _take(self, bundle: Bundle) -> None:
        spec, before = self.spec, self.engine
        try:
            made = await embedded(bundle, spec.entrypoint, spec.engine, spec.deadline_s, self._now)
        except Flawed as error:
            raise BundleRefused(str(error)) from None
        except HelperGone as error:
            raise BundleRefused(f"no engine comes up: {error}") from None
        if self._closed:
            made.close()
            return
        self.engine = made
        if before is not None:
            self._changed()
            self._let_go(before)

    def _let_go(self, engine: Rego | None) -> None:
        """Who is still asking it gets its answer."""
        if engine is not None:
            asyncio.get_running_loop().call_later(self.spec.deadline_s + WAIT_S, engine.close)
