"""Keeps what calls ask of memory as it is outside: keys, secrets and approvals of the store, of files, of a Vault.

In: a snapshot. Out: `keys`, `secrets` and approvals, right within two seconds of a change. A store is opened only where
the configuration needs one. What goes wrong later is said once, `problem` tells it to `/readyz`, and what is known
stays known: nobody is locked out, and nobody let in, because a disk is slow. Cases: `tests/authority/test_upkeep.py`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from contextlib import suppress

from narthex.authority.api_keys import KeyTable
from narthex.authority.approvals import Approvals
from narthex.authority.envelope import Envelopes
from narthex.authority.fetch import Fetch
from narthex.authority.files import FileProblem, mark_of, read_secret
from narthex.authority.hashicorp import VaultReader
from narthex.authority.sealed import open_row
from narthex.authority.secrets import SecretBook
from narthex.errors import ConfigError, StoreError
from narthex.flow.codec.seal import MasterKey
from narthex.store.port import SealedSecret, Store
from narthex.types import ApprovalSpec, RunSpec, Snapshot, StorePlace

_log = logging.getLogger("narthex.authority")
TENANT = "default"
LOOK_S = 0.5
"""How often the store and the files are looked at."""
USED_S = 60.0
"""How often the last use of keys is written down."""
FILES_START_S = 5.0
"""How long a start or a reload waits for the file system that secrets are on."""
VAULT_START_S = 5.0
"""How long a start waits for the Vault; calls that need its secrets fail until it answers."""


class Upkeep:
    """One for the process. `apply` before the first call and with each reload, `run` as a task, `close` at the end.

    Args:
        env: The environment, for `env:` sources.
        master_keys: Reads the master keys anew.
        fetch: Asks the Vault.
        approvals: What people say of held calls; None where no calls are made.
        now: Seconds since 1970. random: so many bytes of chance.
    """

    def __init__(
        self,
        *,
        env: Mapping[str, str],
        master_keys: Callable[[], Sequence[MasterKey]],
        fetch: Fetch,
        approvals: Approvals | None = None,
        now: Callable[[], float],
        random: Callable[[int], bytes],
    ) -> None:
        self._approvals = approvals
        self.keys = KeyTable(now)
        self.secrets = SecretBook()
        self.problem = ""
        """Why the store is not usable at present; empty while all is well."""
        self._env, self._master_keys, self._fetch, self._now, self._random = env, master_keys, fetch, now, random
        self._snapshot: Snapshot | None = None
        self._api_keys = False
        self._store: Store | None = None
        self._version: Hashable = None
        self._files: dict[str, Hashable] = {}
        self._vault: VaultReader | None = None
        self._told: dict[str, str] = {}
        self._used_at = now()
        self._lock = asyncio.Lock()

    async def apply(self, snapshot: Snapshot, *, api_keys: bool) -> None:
        """Know what this configuration needs.

        Raises:
            StoreError, ConfigError: The store or the master keys cannot be used; what was known is as it was.
        """
        async with self._lock:
            embedded = [name for name in snapshot.secret_names if name not in snapshot.secrets]
            store, was = self._store, self._snapshot
            if not (api_keys or embedded or holds_calls(snapshot)):
                store = None
            elif store is None or was is None or was.store != snapshot.store:
                store = await _open(snapshot.store)
            before = (self._snapshot, self._store, self._api_keys)
            self._snapshot, self._store, self._api_keys = snapshot, store, api_keys
            try:
                await self._load()
            except (StoreError, ConfigError):
                self._snapshot, self._store, self._api_keys = before
                if store is not None and store is not self._store:
                    await store.close()
                raise
            if (old := before[1]) is not None and old is not store:
                await old.close()
        self.secrets.keep_only(snapshot.secret_names)
        self._read_env()
        try:
            async with asyncio.timeout(FILES_START_S):
                await self._read_files(anew=True)
        except TimeoutError:
            for name, path in self._named("file"):
                self._files.pop(name, None)
                self.secrets.lack(name, f"{path} cannot be read yet: its file system does not answer")
        await self._take_vault()
        self._tell()

    async def run(self) -> None:
        """Look for changes, until cancelled. A file system that stalls holds up no key that was revoked."""
        await asyncio.gather(self._every(self._look), self._every(self._read_files))

    async def _every(self, look: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                await look()
                self._tell()
            except Exception:
                _log.exception("looking for changed keys and secrets failed")

    async def close(self) -> None:
        """Write down what is left, and let go of the store."""
        async with self._lock:
            if self._vault is not None:
                self._vault.close()
            if self._store is not None:
                with suppress(StoreError):
                    await self._write_used()
                    if self._approvals is not None:
                        await self._approvals.close()
                await self._store.close()
                self._store = None

    # --- the store

    async def _look(self) -> None:
        async with self._lock:
            if self._store is None:
                self._set_problem("")
                return
            try:
                if await self._store.version() != self._version or self.problem:
                    await self._load()
                if self._approvals is not None:
                    await self._approvals.look()
                if self._now() - self._used_at >= USED_S:
                    await self._write_used()
                self._set_problem("")
            except (StoreError, ConfigError) as error:
                self._set_problem(error.problem if isinstance(error, StoreError) else "; ".join(error.problems))
            self.keys.sweep()

    async def _load(self) -> None:
        """Take over what the store has."""
        store, snapshot = self._store, self._snapshot
        if store is None or snapshot is None:
            self.keys.load([])
            if self._approvals is not None:
                await self._approvals.take(None, ApprovalSpec())
            return
        version = await store.version()
        keys = await store.keys() if self._api_keys else []
        embedded = {name for name in snapshot.secret_names if name not in snapshot.secrets}
        rows = {row.name: row for row in await store.secrets() if row.tenant == TENANT} if embedded else {}
        envelopes = Envelopes(self._master_keys(), self._random) if embedded else None
        if self._approvals is not None:
            await self._approvals.take(store if holds_calls(snapshot) else None, snapshot.approvals)
        self.keys.load(keys)
        for name in sorted(embedded):
            self._take(name, rows.get(name), envelopes)
        self._version = version

    def _take(self, name: str, row: SealedSecret | None, envelopes: Envelopes | None) -> None:
        if row is None or envelopes is None:
            self.secrets.lack(name, f"it is not in the store; narthex secrets set {name}")
            return
        opened = open_row(row, envelopes)
        if opened.value is not None:
            self.secrets.put(name, opened.value)
        else:
            self.secrets.lack(name, opened.problem)

    async def _write_used(self) -> None:
        self._used_at = self._now()
        used = self.keys.take_used()
        if used and self._store is not None:
            await self._store.used_keys(used)

    def _set_problem(self, problem: str) -> None:
        if problem and problem != self.problem:
            _log.error("the store cannot be used; keys and secrets stay as they were last seen: %s", problem)
        elif self.problem and not problem:
            _log.info("the store can be used again")
        self.problem = problem

    # --- other sources

    def _read_env(self) -> None:
        for name, where in self._named("env"):
            value = self._env.get(where)
            if value:
                self.secrets.put(name, value)
            else:
                self.secrets.lack(name, f"the environment variable {where} is not set; set it and start again")

    async def _read_files(self, *, anew: bool = False) -> None:
        named = self._named("file")
        if not named:
            return
        marks = {} if anew else self._files

        def read() -> dict[str, tuple[Hashable, str | FileProblem | None]]:
            found: dict[str, tuple[Hashable, str | FileProblem | None]] = {}
            for name, path in named:
                mark = mark_of(path)
                if name in marks and marks[name] == mark:
                    continue
                try:
                    found[name] = mark, read_secret(path)
                except FileProblem as problem:
                    found[name] = mark, problem
            return found

        found = await asyncio.to_thread(read)
        for name, _ in set(named) & set(self._named("file")):  # a reload may have been quicker
            if name not in found:
                continue
            self._files[name], text = found[name]
            if isinstance(text, str):
                self.secrets.put(name, text)
            else:
                self.secrets.lack(name, f"{text}; mount or write that file")

    async def _take_vault(self) -> None:
        assert self._snapshot is not None
        spec = self._snapshot.vault
        wanted = {name: self._snapshot.secrets[name] for name, _ in self._named("vault")}
        if self._vault is not None and (spec != self._vault.spec or wanted != self._vault.wanted):
            self._vault.close()
            self._vault = None
        if self._vault is None and spec is not None and wanted:
            self._vault = VaultReader(spec, wanted, self.secrets, env=self._env, fetch=self._fetch)
            await self._vault.start(VAULT_START_S)

    def _named(self, kind: str) -> list[tuple[str, str]]:
        """The secrets of one kind of source that the configuration refers to, and where they are."""
        assert self._snapshot is not None
        sources = self._snapshot.secrets
        return [
            (name, sources[name].where)
            for name in self._snapshot.secret_names
            if name in sources and sources[name].kind == kind
        ]

    def _tell(self) -> None:
        """Log what is missing, each once."""
        problems = self.secrets.problems
        for name, problem in problems.items():
            if self._told.get(name) != problem:
                _log.error("secret '%s' is missing: %s", name, problem)
        for name in self._told.keys() - problems.keys():
            _log.info("secret '%s' is there", name)
        self._told = problems


def holds_calls(snapshot: Snapshot) -> bool:
    """Could a call have to wait for a person?"""
    effects = {one.effect for one in snapshot.grants} | {one.effect for one in (snapshot.runs or RunSpec()).rules}
    return snapshot.policy is not None or "hold" in effects or any(one.when_spent.hold for one in snapshot.quotas)


async def _open(place: StorePlace) -> Store:
    from narthex.store.opening import open_store  # a database: needed only where something is kept

    return await open_store(place)
