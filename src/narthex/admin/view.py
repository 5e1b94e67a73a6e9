"""What the admin side needs from the running gateway. `app` keeps this Protocol; no more is known about it here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, Protocol

import msgspec

from narthex.authority.approvals import Approvals
from narthex.config.reload import ReloadOutcome
from narthex.flow.cache.cache import Report
from narthex.flow.limit.state import State
from narthex.flow.policy.check import Check
from narthex.telemetry.accounts import Accounts
from narthex.telemetry.audit.keeper import Keeping
from narthex.telemetry.behaviour import Behaviour
from narthex.telemetry.record import Entry
from narthex.types import Era, Principal, Snapshot

Health = Literal["idle", "ok", "degraded", "down"]


class CredentialProblem(msgspec.Struct, frozen=True):
    """A credential that a server cannot be shown now, and why."""

    name: str
    problem: str


class ServerStatus(msgspec.Struct, frozen=True):
    """One upstream as it is now. Texts may come from the server itself; secrets in them are taken out when shown.

    `health`: `idle` was not needed yet, `degraded` failed lately, `down` is not called at present. `pid` and
    `stderr_tail` for stdio servers only. `era_since`: when the server was first found to speak its era, the last time;
    `era_checked_at`: when it was last asked for the other. Times are wall-clock seconds.
    """

    name: str
    health: Health
    breaker: str = "closed"
    era: Era | None = None
    era_since: float | None = None
    era_checked_at: float | None = None
    version: str | None = None
    in_flight: int = 0
    channels: int = 0
    pid: int | None = None
    stderr_tail: tuple[str, ...] = ()
    credentials: tuple[CredentialProblem, ...] = ()
    """Only those that are not well."""
    last_error: str | None = None
    last_error_at: float | None = None


class GatewayView(Protocol):
    """The gateway, read; and its one command, `reload`. Called on the event loop."""

    @property
    def snapshot(self) -> Snapshot:
        """The configuration in force."""

    @property
    def accounts(self) -> Accounts: ...

    @property
    def ready(self) -> bool:
        """Configuration and keys are usable and the public listener is open."""

    @property
    def store_problem(self) -> str:
        """Why the store cannot be used at present; empty while all is well, or none is needed."""

    @property
    def shared_problem(self) -> str:
        """Why counters that several gateways share cannot be asked at present; empty while all is well, or there are
        none."""

    @property
    def checkpoints_problem(self) -> str:
        """Why the journal's checkpoints do not reach their second place; empty while they do, or there is none."""

    @property
    def telemetry_problem(self) -> str:
        """Why traces and metrics cannot be sent at present; empty while they can, or are not to be."""

    @property
    def journal_problem(self) -> str:
        """Why calls cannot be recorded at present; empty while all is well, or none are."""

    @property
    def policy_problem(self) -> str:
        """Why the engine beside the grants does not decide at present; empty while all is well, or there is none."""

    @property
    def missing_secrets(self) -> int:
        """How many secrets that the configuration refers to have no value."""

    def silent_issuers(self) -> Sequence[str]:
        """Issuers of tokens that could not be asked the last time, by name."""

    @property
    def approvals(self) -> Approvals:
        """Held calls."""

    @property
    def keeping(self) -> Keeping:
        """The process beside the journal, where there is one."""

    async def caller(self, authorization: str) -> Principal | None:
        """Whom this value of `Authorization` proves. Nobody, while no identity is configured."""

    async def admit(self, principal: Principal, action: str, address: str) -> Check:
        """May they do this on the admin side? The check is decided."""

    def not_let_in(self, source: str) -> None:
        """Somebody at this address has shown the admin side a credential that proves nothing."""

    def record(self, entry: Entry) -> None:
        """Keep what was done on the admin side, where records are kept."""

    @property
    def draining(self) -> bool:
        """The gateway is about to stop."""

    @property
    def last_reload(self) -> ReloadOutcome | None:
        """The last attempt to take up a configuration, None before the first."""

    def endpoint_urls(self) -> dict[str, str]:
        """Endpoint name to the URL that clients use, with the port really bound."""

    def servers(self) -> Sequence[ServerStatus]:
        """All upstreams of the snapshot, in its order."""

    @property
    def started_at(self) -> float:
        """Unix seconds."""

    @property
    def open_calls(self) -> int:
        """Calls under way."""

    @property
    def behaviour(self) -> Behaviour:
        """What agents do."""

    def listed(self, server: str) -> set[str]:
        """The tools that a server lists, as far as it was asked."""

    async def limit_states(self, subject: str) -> Iterable[State]:
        """What is used of each limit, by callers that were here lately; of one human or service, where it is named.
        Raises LimitsUnavailable: others count, and cannot be asked."""

    def cached(self, tenant: str | None) -> Report | None:
        """What answers are kept, of one tenant or of all; None where none are."""

    def clear_cache(self, pattern: str, tenant: str | None) -> int:
        """End kept answers by a glob on canonical names, of one tenant or of all. How many were there?"""

    async def reload(self, reason: str) -> ReloadOutcome | None:
        """Read the configuration again; None where it comes from no file. Never raises for what the file says."""
