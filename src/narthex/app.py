"""Settings in, running gateway out: the only file that wires the rooms together.

`serve.py` drives it, `listening.py` is its socket. Cases: `tests/e2e/test_lifecycle.py`.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import random
import time
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from narthex.admin.readings import register_readings
from narthex.admin.status import status_of
from narthex.admin.view import ServerStatus
from narthex.authority.accounts import Means
from narthex.authority.alerts import AlertHooks
from narthex.authority.approvals import Approvals, words_of
from narthex.authority.credentials import Credentials
from narthex.authority.fetch import Fetched, Fetcher
from narthex.authority.files import mark_of
from narthex.authority.subjects import Subjects
from narthex.authority.upkeep import Upkeep
from narthex.authority.webhook import Hook, Sender
from narthex.config.changes import act_of_reload
from narthex.config.compile import Overrides, endpoint_url
from narthex.config.reload import Reloader, ReloadOutcome
from narthex.config.values import is_loopback
from narthex.engines.policies import Policies
from narthex.errors import ConfigError, Unauthorized
from narthex.flow.accept.asgi import AsgiBridge
from narthex.flow.accept.front import Front
from narthex.flow.accept.listener import Shared
from narthex.flow.accept.public import public_app
from narthex.flow.accept.sessions import Sessions
from narthex.flow.cache.cache import Report
from narthex.flow.codec.handles import Handles
from narthex.flow.codec.seal import KeyRing, MasterKey
from narthex.flow.held import Held
from narthex.flow.limit.alerts import Alert
from narthex.flow.limit.state import State
from narthex.flow.outbox import Outbox
from narthex.flow.policy.admin import AdminRules, admins_of
from narthex.flow.policy.approvals.approval import Approval, Step
from narthex.flow.policy.check import Check
from narthex.flow.upstream.fleet import Fleet
from narthex.keys import FILE_NAME as KEY_FILE
from narthex.keys import load_keys
from narthex.listening import Listening
from narthex.store.books import Books
from narthex.store.eras import EraFile
from narthex.telemetry.accounts import Accounts
from narthex.telemetry.acts import ActEntry
from narthex.telemetry.alerts import AlertEntry
from narthex.telemetry.approvals import ApprovalEntry
from narthex.telemetry.audit.custodian import look_after
from narthex.telemetry.audit.keeper import Keeping
from narthex.telemetry.behaviour import Behaviour
from narthex.telemetry.lag import Lag
from narthex.telemetry.log import Logs
from narthex.telemetry.otlp.outlet import Outlet
from narthex.telemetry.payloads.using import journal_of, use_payloads
from narthex.telemetry.sign_ins import SignIns
from narthex.types import Principal, Snapshot

if TYPE_CHECKING:
    from narthex.authority.identify import Identity
    from narthex.flow.policy.engines.engine import Engine
    from narthex.store.shared.counters import Counters
    from narthex.telemetry.journal import Journal
    from narthex.telemetry.record import Entry

_log = logging.getLogger("narthex")
NO_OVERRIDES = Overrides()
ENDING_S = 2.0
"""Calls that are still running when the drain is over are ended over this long, not all in one moment."""


class Gateway:
    """One running gateway. `start`, then `stop`; `apply` swaps the snapshot in between.

    Args:
        overrides: What the command line said instead of the file; a reload says it again.
        path: The file as the user named it; the snapshot's own source by default.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        overrides: Overrides = NO_OVERRIDES,
        *,
        path: Path | None = None,
        logs: Logs | None = None,
    ) -> None:
        self.snapshot = self._reported = snapshot
        self.accounts = Accounts()
        self.draining = False
        self.ready = False
        self.started_at = time.time()
        self.logs = logs
        self._reloader = Reloader(
            path or Path(snapshot.source), overrides, self.apply, current=snapshot, beside=self._take_keys,
            report=self._report,
        )  # fmt: skip
        self._tasks: list[asyncio.Task[None]] = []
        self._key_file = Path(snapshot.state_dir) / KEY_FILE
        self.fetcher = Fetcher(snapshot.egress)
        self.identity: Identity | None = None
        self.approvals = Approvals(
            master_keys=self._master_keys, now=time.time, random=os.urandom, new_id=new_id, say=self._tell
        )
        self._hook: Hook | None = None
        self._alerts = AlertHooks(
            lambda spec: Sender(spec, **self._hook_means()), time.time,
            lambda alert: self.front.metering.limiter.told_nobody(alert),
        )  # fmt: skip
        self.upkeep = Upkeep(
            env=os.environ, master_keys=self._master_keys, fetch=self._fetch, approvals=self.approvals, now=time.time,
            random=os.urandom,
        )  # fmt: skip
        self.policies = Policies(
            fetch=self._fetch, secrets=self.upkeep.secrets.get, changed=self._policy_changed,
            now=time.time, clock=time.monotonic, chance=random.random, new_id=new_id,
        )  # fmt: skip
        self.subjects = Subjects(now=time.time)
        self.credentials = Credentials(
            Means(self.upkeep.secrets, self._fetch, time.monotonic, time.time, random.random, new_id), self.subjects
        )
        self.outlet = Outlet(
            self.accounts, fetch=self._fetch, secrets=self.upkeep.secrets.get,
            servers=lambda: self.snapshot.servers, instance=new_id(),
        )  # fmt: skip
        self.journal: Journal | None = None
        self.books = Books()
        self.keeping = Keeping(self.upkeep.secrets.get)
        self._counters: Counters | None = None
        self._admins: tuple[Snapshot, Engine | None, AdminRules] | None = None

    async def start(self) -> None:
        """Listen and serve.

        Raises:
            OSError: An address is taken.
            ConfigError: Keys or certificates cannot be read.
            StoreError: The store is needed and cannot be used.
        """
        from narthex.admin.server import AdminServer  # Starlette and uvicorn: needed only here

        snapshot = self.snapshot
        os.makedirs(snapshot.state_dir, mode=0o700, exist_ok=True)
        self._keys, self._key_mark = load_keys(Path(snapshot.state_dir), os.environ), mark_of(str(self._key_file))
        await self.upkeep.apply(snapshot, api_keys=asks_keys(snapshot))
        ring = KeyRing(self._keys)
        self.sessions = Sessions(ring, now=time.time, random=os.urandom, ttl_s=snapshot.limits.session_ttl_s)
        held, outbox = Held(snapshot.limits.max_held), Outbox()
        self._eras = EraFile(Path(snapshot.state_dir) / "eras.json")
        self.fleet = Fleet(snapshot, held, clock=time.monotonic, chance=random.random, outbox=outbox,
            accounts=self.credentials, eras=self._eras,
        )  # fmt: skip
        self._bridge = AsgiBridge(
            public_app(lambda: self.snapshot, self.endpoint_urls), scheme="https" if snapshot.tls else "http"
        )
        engine = await self.policies.make(snapshot.policy)
        self.policies.use(snapshot.policy, engine)
        self.policies.log(snapshot.decision_log)
        self.front = Front(
            snapshot, self.fleet, self.sessions, self.accounts, self.logs, self._bridge,
            handles=Handles(ring, now=time.time, random=os.urandom), clock=time.monotonic, new_id=new_id,
            identity=self._identify(snapshot), engine=self.policies.engine,
        )  # fmt: skip
        self.shared = Shared(
            snapshot.limits, held, self.front.handle, clock=time.monotonic, now=time.time, new_id=new_id, outbox=outbox
        )
        self._record(snapshot)
        self._tell_to(snapshot)
        self.lag = Lag(asyncio.get_running_loop())
        self.front.tracer = self.outlet.apply(snapshot)
        self.front.approvals, self.front.metering.tell = self.approvals, self._tell_alert
        await self.books.prepare(snapshot, self.front.metering)
        if snapshot.shared is not None:
            from narthex.store.shared.counters import share  # its parser: only where it is needed

            self._counters = share(snapshot.shared, self.front.metering, self.books, self.upkeep.secrets.get)
            self._tasks.append(asyncio.ensure_future(self._counters.link.run()))
            await self._counters.link.first_try()
        self.books.restore(self.front.metering)
        await self.keeping.apply(snapshot)
        self.listening = Listening(self.shared)
        await self.listening.open(snapshot)
        self._admin = AdminServer(self)
        try:
            await self._admin.start()
        except BaseException:
            self.listening.close()
            self.policies.close()
            await self.fleet.close()
            await self.upkeep.close()
            raise
        self.fleet.start()
        register_readings(self)
        if self._counters is not None:
            self._counters.register(self.accounts.register)
        self.lag.start()
        own = (self._sweep(), self._sweep_limits(), self.upkeep.run())
        self._tasks += map(asyncio.ensure_future, (*own, look_after(lambda: self.snapshot, self._reloader.path)))
        self.ready = True
        settle_memory()

    def _record(self, snapshot: Snapshot) -> None:
        """Record calls where the configuration says so. Raises ConfigError."""
        loop = asyncio.get_running_loop()
        before, journal = self.journal, journal_of(self.journal, snapshot, self._keys, loop)
        if journal is before:
            return
        self.journal = journal
        self.front.records.flush()
        self.front.record = journal.add if journal is not None else None
        self.front.frames = journal.frames if journal is not None else None
        self.front.is_full = (lambda: journal.is_full) if journal is not None else bool
        self.front.metering.recounted = journal.add_step if journal is not None else None
        self.front.sign_ins = SignIns(journal.add_step, time.time) if journal is not None else None
        if journal is not None and not self.ready:
            journal.add_step(ActEntry("config", {"step": "started", "revision": snapshot.revision}))
        if before is not None:
            before.close()

    def _hook_means(self) -> dict[str, Any]:
        fill = lambda text: text.fill(self.upkeep.secrets.get)  # noqa: E731
        return {"fetch": self._fetch, "fill": fill, "now": time.time, "chance": random.random}

    def _tell_to(self, snapshot: Snapshot) -> None:
        """Tell of alerts and held calls whom the configuration names."""
        self._alerts.apply(snapshot.alert_hooks)
        spec = snapshot.approvals.webhook
        if self._hook is not None:
            if self._hook.spec == spec:
                return
            self._hook.close()
        self._hook = None
        self.approvals.listen(None)
        if spec is not None:
            self._hook = Hook(
                spec, parameters=self.approvals.parameters, done=self.approvals.was_told, **self._hook_means()
            )
            self.approvals.listen(self._hook)

    def _tell(self, approval: Approval, step: Step) -> None:
        """A step of a held call: for the log and the record."""
        _log.info("%s", words_of(approval, step))
        if self.journal is not None:
            self.journal.add_step(ApprovalEntry(approval, step))

    def _tell_alert(self, alert: Alert) -> None:
        """A share of a limit that is reached: for the record, and whoever is told."""
        if self.journal is not None:
            self.journal.add_step(AlertEntry(alert, self.snapshot.revision))
        self._alerts.tell(alert)

    @property
    def untold(self) -> int:
        """Steps of held calls that the webhook was not told."""
        return self._hook.lost if self._hook is not None else 0

    @property
    def untold_alerts(self) -> int:
        """Alerts of limits that a webhook was not told."""
        return self._alerts.lost

    @property
    def telemetry_problem(self) -> str:
        """Why traces and metrics cannot be sent at present; empty while they can, or are not to be."""
        return self.outlet.problem

    def _master_keys(self) -> Sequence[MasterKey]:
        return load_keys(Path(self.snapshot.state_dir), os.environ)

    async def _fetch(self, url: str, **how: Any) -> Fetched:
        """Ask an authority by the egress rules in force."""
        return await self.fetcher.fetch(url, **how)

    def silent_issuers(self) -> list[str]:
        """Issuers of tokens that could not be asked the last time, by name."""
        issuers = self.identity.issuers if self.identity is not None else {}
        return [name for name, one in issuers.items() if one.last_error]

    async def caller(self, authorization: str) -> Principal | None:
        """Whom this value of `Authorization` proves."""
        return await self.identity.proved(authorization) if self.identity is not None else None

    async def admit(self, principal: Principal, action: str, address: str) -> Check:
        """May they do this on the admin side? The check is decided."""
        snapshot, engine = self.snapshot, self.policies.engine
        if self._admins is None or self._admins[0] is not snapshot or self._admins[1] is not engine:
            self._admins = (snapshot, engine, admins_of(snapshot, time.time, engine))
        return await self._admins[2].check(principal, action, address)

    def record(self, entry: Entry) -> None:
        """Keep what was done on the admin side, where records are kept."""
        if self.journal is not None:
            self.journal.add(entry)

    def not_let_in(self, source: str) -> None:
        """Somebody has shown the admin side a credential that proves nothing."""
        if self.front.sign_ins is not None:
            self.front.sign_ins.refused(Unauthorized("this needs the admin token"), "", source, side="admin")

    @property
    def store_problem(self) -> str:
        """Why keys and secrets cannot be read, or costs not be written, at present; empty while all is well."""
        return self.upkeep.problem or self.books.problem

    @property
    def shared_problem(self) -> str:
        """Why counters that several gateways share cannot be asked; empty while all is well, or there are none."""
        return self._counters.problem if self._counters is not None else ""

    @property
    def journal_problem(self) -> str:
        """Why records of calls cannot be written at present; empty while all is well, or none are asked for."""
        return self.journal.problem or self.journal.silence if self.journal is not None else ""

    @property
    def policy_problem(self) -> str:
        """Why an engine does not decide at present; empty while all is well, or there is none."""
        return self.policies.problem or self.policies.log_problem

    @property
    def checkpoints_problem(self) -> str:
        """Why checkpoints do not reach their second place; empty while they do, or there is none."""
        return self.journal.second_problem if self.journal is not None else ""

    @property
    def missing_secrets(self) -> int:
        """How many secrets that the configuration refers to have no value."""
        return len(self.upkeep.secrets.problems)

    @property
    def admin_url(self) -> str:
        """Where the admin listener is."""
        return self._admin.url

    def endpoint_urls(self) -> dict[str, str]:
        """Each endpoint's URL as a client on this machine, or behind `public_url`, uses it."""
        return {
            name: endpoint_url(self.snapshot, name, listening=self.listening.address)
            for name in self.snapshot.endpoints
        }

    @property
    def last_reload(self) -> ReloadOutcome | None:
        """The last attempt to take up a configuration, None before the first."""
        return self._reloader.last

    async def reload(self, reason: str) -> ReloadOutcome:
        """Read the configuration again. Never raises for what the file says."""
        return await self._reloader.reload(reason)

    def _report(self, outcome: ReloadOutcome) -> None:
        """Say what became of a reload; of a new configuration its warnings too, as at the start."""
        before, self._reported = self._reported, self.snapshot
        if self.journal is not None and outcome.status != "unchanged":
            self.journal.add_step(ActEntry("config", act_of_reload(outcome, before, self.snapshot)))
        if outcome.status == "applied":
            _log.info("configuration %s applied (%s)", outcome.revision[:12], outcome.reason)
            for warning in self.snapshot.warnings:
                _log.warning("%s", warning)
        elif outcome.status == "refused":
            for problem in outcome.problems:
                _log.error("configuration refused, the old one goes on: %s", problem)

    def _take_keys(self) -> None:
        """Seal with the current key from now on, and open with those that are left. Raises ConfigError."""
        keys = load_keys(Path(self.snapshot.state_dir), os.environ)
        if keys != self._keys:
            self._keys, ring = keys, KeyRing(keys)
            self.sessions.take_keys(ring)
            self.front.handles.take_keys(ring)
            if self.journal is not None:
                use_payloads(self.journal, self.snapshot, self._keys)
            _log.info("the keys have changed: %d are known", len(keys))

    def servers(self) -> list[ServerStatus]:
        """All upstreams of the snapshot, in its order, for the admin API."""
        fleet, problems = self.fleet.servers, self.credentials.errors
        return [status_of(fleet[name], problems(name)) for name in self.snapshot.servers if name in fleet]

    @property
    def open_calls(self) -> int:
        """Calls under way."""
        return len(self.front.calls.active)

    @property
    def behaviour(self) -> Behaviour:
        """What agents do."""
        return self.front.behaviour

    def listed(self, server: str) -> set[str]:
        """The tools that a server lists, as far as it was asked."""
        return self.fleet.servers[server].names("tools") if server in self.fleet.servers else set()

    async def limit_states(self, subject: str) -> Iterable[State]:
        """What is used of each limit, by callers that were here lately. Raises LimitsUnavailable."""
        counters = self._counters
        return self.front.metering.limiter.states(subject) if counters is None else await counters.states(subject)

    def cached(self, tenant: str | None) -> Report | None:
        """What answers are kept."""
        cache = self.front.cache
        return cache.report(time.monotonic(), tenant) if cache is not None else None

    def clear_cache(self, pattern: str, tenant: str | None) -> int:
        """End kept answers by a glob on canonical names. How many were there?"""
        return self.front.cache.clear(pattern, tenant) if self.front.cache is not None else 0

    async def watch(self) -> None:
        """Reload when the file changes, until cancelled."""
        await self._reloader.watch()

    async def apply(self, snapshot: Snapshot) -> None:
        """Swap the snapshot: new calls see the new one, running calls and streams keep theirs."""
        self._check_bound(snapshot)
        if snapshot.shared != self.snapshot.shared:
            _log.warning("what is changed in `shared` takes effect at the next start")
        if (snapshot.listen, snapshot.admin_listen) != (self.snapshot.listen, self.snapshot.admin_listen):
            _log.warning("a changed listen address takes effect at the next start")
        await self.listening.apply(self.snapshot.tls, snapshot.tls)
        await self._admin.reload_tls(snapshot.admin_tls)
        fetcher = self.fetcher if snapshot.egress == self.snapshot.egress else Fetcher(snapshot.egress)
        try:  # these may refuse, and then nothing has changed
            await self.upkeep.apply(snapshot, api_keys=asks_keys(snapshot))
            engine = await self.policies.make(snapshot.policy)
            self._record(snapshot)
            await self.books.prepare(snapshot, self.front.metering)
            self.fleet.apply(snapshot)
        except BaseException:
            self.policies.drop()
            self._record(self.snapshot)
            await self.upkeep.apply(self.snapshot, api_keys=asks_keys(self.snapshot))
            raise
        if fetcher is not self.fetcher:
            self.fetcher.close()
            self.fetcher = fetcher
        self.snapshot = snapshot
        self._tell_to(snapshot)
        self.front.tracer = self.outlet.apply(snapshot)
        self.shared.apply(snapshot.limits)
        self.shared.held.limit = snapshot.limits.max_held
        self.fleet.start()
        self.policies.use(snapshot.policy, engine)
        self.policies.log(snapshot.decision_log)
        self.front.apply(snapshot, self._identify(snapshot), self.policies.engine)
        self.books.restore(self.front.metering)
        await self.keeping.apply(snapshot)
        settle_memory()

    def _policy_changed(self) -> None:
        """The same configuration by another bundle."""
        self.front.apply(self.snapshot, self.identity, self.policies.engine)

    def _check_bound(self, snapshot: Snapshot) -> None:
        """What listens for other machines goes on doing so until the next start: not without an identity.

        Raises:
            ConfigError: It would let everybody in.
        """
        if snapshot.identity is None and not (
            is_loopback(self.listening.address[0]) and is_loopback(self._admin.address[0])
        ):
            raise ConfigError(["identity: it cannot go while other machines can reach this gateway; restart it"])

    def _identify(self, snapshot: Snapshot) -> Identity | None:
        """Who may call by a snapshot; what was verified stays so where its issuer has not changed."""
        before = self.identity
        if snapshot.identity is None:
            if before is not None:
                before.close()
            self.identity = None
            return None
        from narthex.authority.identify import Identity  # signatures and their library: only where they are needed

        if before is not None and snapshot.public_url != self.snapshot.public_url:
            before.verified.forget(lambda known: bool(known.endpoint))  # for that URL they were meant
        self.identity = Identity(
            snapshot.identity, snapshot.endpoints, keys=self.upkeep.keys, fetch=self._fetch,
            secrets=self.upkeep.secrets, now=time.time, clock=time.monotonic, chance=random.random,
            subjects=self.subjects, before=before,
        )  # fmt: skip
        return self.identity

    async def _sweep(self) -> None:
        """Once a second: what has waited too long. One timer for all, because a timer a call is dear."""
        while True:
            await asyncio.sleep(1)
            try:
                self.shared.sweep()
                self.front.sweep()
                self.fleet.sweep()
                await self._eras.save(frozenset(self.snapshot.servers))
                self.fetcher.sweep()
                if self.journal is not None:
                    self.journal.look(self.snapshot.audit_wait_s)
                if self.identity is not None:
                    self.identity.sweep()
                self._look_at_keys()
            except Exception:
                _log.exception("the sweep failed")

    async def _sweep_limits(self) -> None:
        """Counters that have run out are forgotten in steps, so that a million of them hold up no call."""
        while True:
            try:
                pause = self.front.sweep_limits()
            except Exception:
                pause = 1.0
                _log.exception("the sweep of the limits failed")
            await asyncio.sleep(pause)

    def _look_at_keys(self) -> None:
        """A master key that was rotated is taken up at once: a leaked one must not open anything any longer."""
        mark = mark_of(str(self._key_file))
        if mark == self._key_mark:
            return
        self._key_mark = mark
        try:
            self._take_keys()
        except ConfigError as error:
            _log.error("the keys stay as they were: %s", "; ".join(error.problems))

    async def drain(self) -> None:
        """Go away politely: unready, still accepting for a while, then no new connections, then the running calls."""
        limits = self.snapshot.limits
        self.draining = self.shared.draining = True
        active = len(self.front.calls.active)
        _log.info("draining: %d calls under way; more are taken for %g s", active, limits.drain_accept_s)
        await asyncio.sleep(limits.drain_accept_s)
        self.listening.close()
        await self.front.hub.drain()
        loop = asyncio.get_running_loop()
        until = loop.time() + limits.drain_s
        while self.front.calls.active and loop.time() < until:
            await asyncio.sleep(0.05)
        left = list(self.front.calls.active)
        for one in left:
            one.end_stream()
            await asyncio.sleep(ENDING_S / len(left))

    async def stop(self) -> None:
        """Stop at once: every connection is closed, every upstream process ends."""
        self.ready = False
        self.shared.draining = True
        for task in self._tasks:
            task.cancel()
        self.listening.close()
        for one in list(self.front.calls.active):
            one.end_stream()
        self.front.hub.close()
        await asyncio.sleep(0)
        await self._bridge.close()
        await self.fleet.close()
        await self.policies.stop_logging()
        self.lag.stop()
        await self.outlet.close()
        self.credentials.close()
        if self.identity is not None:
            self.identity.close()
        if self._hook is not None:
            self._hook.close()
        self._alerts.close()
        self.front.metering.recounter.close()
        await self.upkeep.close()
        self.fetcher.close()
        self.policies.close()
        self.front.records.flush()
        if self.journal is not None:
            await asyncio.to_thread(self.journal.close)
        await self.books.close()
        await self.keeping.close()
        for connection in list(self.shared.connections):
            connection.abort()
        await self._admin.stop()


def asks_keys(snapshot: Snapshot) -> bool:
    """Are API keys accepted?"""
    return snapshot.identity is not None and snapshot.identity.api_keys


def new_id() -> str:
    """A decision id: a lower-case UUID."""
    return str(uuid.uuid4())


def settle_memory() -> None:
    """What lives as long as the snapshot need not be looked at by the collector again (design §3).

    Calls leave no cycles behind, so young objects are looked at less often than Python would.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 100)
