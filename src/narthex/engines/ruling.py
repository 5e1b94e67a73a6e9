"""Which engine decides beside the grants: made for a snapshot's policy, and anew with each new bundle.

In: the `policy` of a snapshot. Out: the `Engine` in force, told to whoever uses it. A bundle that cannot be used
changes nothing: the last good one goes on. Cases: `tests/engines/test_ruling.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from narthex.authority.bundle_keys import read_trust
from narthex.authority.bundles import BundleKeeper, BundleSpec
from narthex.authority.fetch import Fetch, Headers
from narthex.engines.absent import Absent
from narthex.engines.counts import Counts
from narthex.engines.embedded import Rego, embedded
from narthex.engines.frames import Flawed
from narthex.engines.helper import HelperGone
from narthex.engines.helpers import WAIT_S
from narthex.errors import ConfigError
from narthex.flow.policy.bundles.bundle import Bundle, BundleRefused
from narthex.flow.policy.bundles.signatures import Trust
from narthex.flow.upstream.secrets import HANDED_OUT
from narthex.types import RegoSpec

FIRST_S = 30.0
FETCH_S = 5.0
"""How long a start waits for a bundle server."""


def source_of(spec: RegoSpec) -> BundleSpec:
    """Where its bundle comes from."""
    if not spec.is_fetched:
        return BundleSpec(path=spec.bundle)
    every_s = (spec.every_s, 2 * spec.every_s)
    return BundleSpec(
        url=spec.bundle, every_s=every_s, long_poll_s=spec.long_poll_s, kept_in=spec.kept_in, tls=spec.tls
    )


class Ruling:
    """The engine of one `RegoSpec`, from `start` to `close`.

    Args:
        changed: Called when another engine is in force than the one before.
        fetch: Asks a bundle server. secrets: the value of a secret by its name; raises SecretMissing.
        now: Unix seconds. clock: monotonic seconds. chance: 0 ≤ x < 1.
    """

    def __init__(
        self,
        spec: RegoSpec,
        changed: Callable[[], None],
        *,
        fetch: Fetch,
        secrets: Callable[[str], str],
        now: Callable[[], float],
        clock: Callable[[], float],
        chance: Callable[[], float],
        counts: Counts | None = None,
    ) -> None:
        self._counts = counts
        self.spec = spec
        self.engine: Rego | Absent | None = None
        self._changed, self._now, self._secrets = changed, now, secrets
        self._closed = False
        self._keeper = BundleKeeper(
            source_of(spec), self._take, fetch=fetch, now=now, clock=clock, chance=chance,
            trust=self._trust, headers=self._headers,
        )  # fmt: skip

    async def start(self) -> Rego | Absent:
        """Rule by what is there; where a bundle server has given nothing yet, everything is denied.

        Raises:
            ConfigError: The bundle stands here, and cannot be used.
        """
        fetched = self.spec.is_fetched
        await self._keeper.start(FETCH_S if fetched else FIRST_S)
        if self.engine is None and not fetched:
            self.close()
            raise ConfigError([f"policy: {self._keeper.problem}"])
        if self.engine is None:
            self.engine = Absent(self._keeper.problem)
        return self.engine

    def _trust(self) -> Trust | None:
        return read_trust(self.spec.signing, self._secrets) if self.spec.signing is not None else None

    def _headers(self) -> Headers:
        """Who we are to a bundle server. Raises SecretMissing."""
        if self.spec.token is None:
            return ()
        token = self.spec.token.fill(self._secrets)
        HANDED_OUT.add(token)
        return (("Authorization", f"Bearer {token}"),)

    @property
    def problem(self) -> str:
        """Why there is no newer policy, or nobody to decide by it; empty while all is well."""
        return self._keeper.problem or (self.engine.problem if isinstance(self.engine, Rego) else "")

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
            made = await embedded(bundle, spec.entrypoint, spec.engine, spec.deadline_s, self._now, self._counts)
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

    def _let_go(self, engine: Rego | Absent | None) -> None:
        """Who is still asking it gets its answer."""
        if engine is not None:
            asyncio.get_running_loop().call_later(self.spec.deadline_s + WAIT_S, engine.close)
