"""Where traces and metrics leave, by the configuration in force: one exporter and one tracer, or none.

In: snapshots. Out: the tracer that calls ask, None where nothing is traced.
Cases: `tests/telemetry/otlp/test_outlet.py`.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from narthex.authority.fetch import Fetch
from narthex.telemetry.accounts import Accounts
from narthex.telemetry.traces import Tracer
from narthex.types import ServerSpec, Snapshot

if TYPE_CHECKING:
    from narthex.telemetry.otlp.export import Exporter


class Outlet:
    """Lives as long as the process does: `apply` with each snapshot, then `close`.

    Args:
        servers: The servers by name, as they are now. secrets: The value of a secret; raises SecretMissing.
        instance: An id of this process.
    """

    def __init__(
        self,
        accounts: Accounts,
        *,
        fetch: Fetch,
        secrets: Callable[[str], str],
        servers: Callable[[], Mapping[str, ServerSpec]],
        instance: str,
    ) -> None:
        self._accounts, self._fetch, self._secrets, self._servers = accounts, fetch, secrets, servers
        self._instance = instance
        self._exporter: Exporter | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._gone = [0, 0, 0]  # what former exporters have sent, dropped and failed at
        self.tracer: Tracer | None = None

    @property
    def problem(self) -> str:
        """Why nothing can be sent at present; empty while all is well, or nothing is to be sent."""
        return self._exporter.problem if self._exporter is not None else ""

    @property
    def sent(self) -> int:
        """Calls whose spans were sent."""
        return self._gone[0] + (self._exporter.sent if self._exporter is not None else 0)

    @property
    def dropped(self) -> int:
        """Calls whose spans nobody will see."""
        return self._gone[1] + (self._exporter.dropped if self._exporter is not None else 0)

    @property
    def failures(self) -> int:
        """Requests to the collector that failed."""
        return self._gone[2] + (self._exporter.failures if self._exporter is not None else 0)

    def apply(self, snapshot: Snapshot) -> Tracer | None:
        """Send by this snapshot from now on. Returns the tracer that calls are to ask."""
        spec, before = snapshot.telemetry, self._exporter
        if before is not None and before.spec == spec:
            return self.tracer
        if before is not None:
            task = asyncio.get_running_loop().create_task(self._end(before))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
        self._exporter = self.tracer = None
        if spec is None:
            return None
        from narthex.telemetry.otlp.export import Exporter  # only where something is sent

        if spec.traces:
            self.tracer = Tracer(spec.ratio, spec.parent, chance=random.random, bits=random.getrandbits)
        self._exporter = Exporter(
            spec, self.tracer, self._accounts, fetch=self._fetch, servers=self._servers, secrets=self._secrets,
            instance=self._instance, environment=snapshot.environment, now=time.time, clock=time.monotonic,
            chance=random.random,
        )  # fmt: skip
        self._exporter.start()
        return self.tracer

    async def _end(self, exporter: Exporter) -> None:
        await exporter.close()
        did = (exporter.sent, exporter.dropped, exporter.failures)
        self._gone = [before + more for before, more in zip(self._gone, did, strict=True)]

    async def close(self) -> None:
        """Send what is left, if that goes quickly."""
        exporter, self._exporter, self.tracer = self._exporter, None, None
        if exporter is not None:
            await self._end(exporter)
        await asyncio.gather(*self._closing, return_exceptions=True)
