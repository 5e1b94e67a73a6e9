"""Secrets of a HashiCorp Vault, KV version 2: signed in, read, and read again before anybody misses a change.

In: which secrets, how to sign in. Out: values in a `SecretBook`, or why there is none. What was read once stays while
the Vault cannot be reached or refuses us, because calls need it; what it says it has no more is gone at once.
Tested with an emulator of ours, written from the public documentation (`tests/counterparts/vault.py`).
Cases: `tests/authority/test_hashicorp.py`. Source: HashiCorp Vault HTTP API: KV v2 "Read secret version", Kubernetes
auth "Login", token auth "Lookup a token (self)" and "Renew a token (self)", "HTTP status codes".
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Mapping
from random import random as draw
from typing import TypeVar
from urllib.parse import quote

import msgspec

from narthex.authority.fetch import Fetch, Fetched, Headers
from narthex.authority.files import FileProblem, read_secret
from narthex.authority.secrets import SecretBook
from narthex.errors import AuthorityUnavailable
from narthex.flow.codec.jsonrpc import BAD_JSON
from narthex.flow.upstream.secrets import HANDED_OUT
from narthex.types import SecretSource, VaultSpec

T = TypeVar("T")

_log = logging.getLogger("narthex.authority")
TIMEOUT_S = 10.0
FIRST_RETRY_S, LAST_RETRY_S = 1.0, 30.0
_AWAY = frozenset({412, 429, 472, 473, 500, 502, 503, 504})
"""Sealed, standing by, not yet as new as asked, or broken: it may answer later."""


class _Auth(msgspec.Struct):
    client_token: str = ""
    lease_duration: int = 0
    renewable: bool = False


class _SignedIn(msgspec.Struct):
    auth: _Auth


class _Self(msgspec.Struct):
    ttl: int = 0
    renewable: bool = False


class _LookedUp(msgspec.Struct):
    data: _Self


class _Version(msgspec.Struct):
    data: dict[str, msgspec.Raw] | None = None


class _Read(msgspec.Struct):
    data: _Version


class _Away(Exception):
    """The Vault gives nothing at present; what is known stays."""


class VaultReader:
    """Reads some secrets of one Vault, for as long as it is not closed.

    Args:
        wanted: Name to source; several may stand at one path, which is read once for all.
        book: Where values go.
        env: For a token in a variable. chance: 0 ≤ x < 1, so that many gateways do not ask in one moment.
    """

    def __init__(
        self,
        spec: VaultSpec,
        wanted: Mapping[str, SecretSource],
        book: SecretBook,
        *,
        env: Mapping[str, str],
        fetch: Fetch,
        chance: Callable[[], float] = draw,
    ) -> None:
        self.spec, self.wanted = spec, dict(wanted)
        self._book, self._env, self._fetch, self._chance = book, env, fetch, chance
        self._token = ""
        self._renewable = False
        self._renew_at = 0.0
        self._problem = ""
        self._task: asyncio.Task[None] | None = None
        self._seen: set[str] = set()

    async def start(self, patience_s: float) -> None:
        """Begin, and wait for the first round, but not longer than this."""
        first = asyncio.Event()
        self._task = asyncio.create_task(self._run(first))
        try:
            async with asyncio.timeout(patience_s):
                await first.wait()
        except TimeoutError:
            self._away("it has not answered yet")

    def close(self) -> None:
        """Ask no more."""
        if self._task is not None:
            self._task.cancel()

    async def look(self) -> bool:
        """One round: sign in or renew where that is due, read everything. Was the Vault there?"""
        try:
            await self._stay_signed_in()
            by_path = defaultdict(list)
            for name, source in self.wanted.items():
                by_path[source.where].append(name)
            for path, names in by_path.items():
                await self._read(path, names)
        except _Away as away:
            self._away(str(away))
            return False
        except AuthorityUnavailable as error:
            self._away(error.detail or error.public)
            return False
        if self._problem:
            _log.info("the vault at %s answers again", self.spec.address)
            self._problem = ""
        return True

    async def _run(self, first: asyncio.Event) -> None:
        retry_s = FIRST_RETRY_S
        while True:
            try:
                there = await self.look()
            except Exception:  # what nobody thought of must not end the looking: nobody would ever see a change again
                _log.exception("reading the vault at %s failed", self.spec.address)
                self._away("the gateway could not read its answer")
                there = False
            first.set()
            wait_s = self.spec.refresh_s if there else retry_s
            retry_s = FIRST_RETRY_S if there else min(2 * retry_s, LAST_RETRY_S)
            if there and self._renew_at:
                wait_s = min(wait_s, max(self._renew_at - asyncio.get_running_loop().time(), FIRST_RETRY_S))
            await asyncio.sleep(wait_s * (1 - 0.2 * self._chance()))

    def _away(self, problem: str) -> None:
        for name in self.wanted.keys() - self._seen:
            self._book.lack(name, f"the vault at {self.spec.address} does not give it: {problem}")
        if self._seen and problem != self._problem:
            _log.warning("the vault at %s: %s; secrets stay as they were last read", self.spec.address, problem)
        self._problem = problem

    # --- signing in

    async def _stay_signed_in(self) -> None:
        now = asyncio.get_running_loop().time()
        if self._token and (not self._renew_at or now < self._renew_at):
            return
        if self._token and self._renewable:
            done = await self._ask("POST", "auth/token/renew-self", b"{}")
            if done.status == 200:
                self._take(_decode(done.body, _SignedIn).auth)
                return
        await self._sign_in()

    async def _sign_in(self) -> None:
        self._token, self._renew_at = "", 0.0
        if not self.spec.role:
            self._token = await self._given_token()
            told = await self._ask("GET", "auth/token/lookup-self")
            if told.status == 200:  # a token may not be allowed to ask; then it is taken as it is
                found = _decode(told.body, _LookedUp).data
                self._take(_Auth(self._token, found.ttl, found.renewable))
            return
        try:
            jwt = await asyncio.to_thread(read_secret, self.spec.jwt_file)
        except FileProblem as problem:
            raise _Away(f"{problem}, which signs in by Kubernetes") from None
        body = msgspec.json.encode({"role": self.spec.role, "jwt": jwt})
        done = await self._ask("POST", f"auth/{self.spec.auth_mount}/login", body)
        if done.status != 200:
            raise _Away(f"it refuses to sign in the role '{self.spec.role}' (HTTP {done.status})")
        self._take(_decode(done.body, _SignedIn).auth)
        if not self._token:
            raise _Away("it signs in without giving a token")

    async def _given_token(self) -> str:
        source = self.spec.token
        if source is None:
            raise _Away("no way to sign in is configured")
        if source.kind == "env":
            if token := self._env.get(source.where, "").strip():
                return token
            raise _Away(f"the environment variable {source.where} is not set; it should hold a token for it")
        try:
            return (await asyncio.to_thread(read_secret, source.where)).strip()
        except FileProblem as problem:
            raise _Away(f"{problem}, which should hold a token for it") from None

    def _take(self, auth: _Auth) -> None:
        """A token and its life; two thirds of it may pass before it is renewed, or another one is got."""
        self._token = auth.client_token or self._token
        HANDED_OUT.add(self._token, passing=True)
        self._renewable = auth.renewable
        now = asyncio.get_running_loop().time()
        self._renew_at = now + auth.lease_duration * 2 / 3 if auth.lease_duration > 0 else 0.0

    # --- reading

    async def _read(self, path: str, names: list[str]) -> None:
        mount, _, rest = path.partition("/")
        where = f"{quote(mount)}/data/{quote(rest)}"
        done = await self._ask("GET", where)
        if done.status == 403:  # the token may have ended before its time
            await self._sign_in()
            done = await self._ask("GET", where)
        if done.status == 403:
            raise _Away(f"it refuses to show {path} (HTTP 403); give the token's policy `read` on {mount}/data/{rest}")
        if done.status not in (200, 404):
            raise _Away(f"an unexpected answer to {path} (HTTP {done.status})")
        fields = (_decode(done.body, _Read).data.data or {}) if done.status == 200 else {}
        for name in names:
            field = self.wanted[name].field
            value = _text(fields[field]) if field in fields else None
            if value:
                self._seen.add(name)
                self._book.put(name, value)
            else:
                self._seen.discard(name)
                what = "is no text" if field in fields else "is not there" if fields else "is not there, or was deleted"
                self._book.lack(name, f"{path}#{field} {what} in the vault at {self.spec.address}")

    async def _ask(self, method: str, path: str, body: bytes = b"") -> Fetched:
        headers: Headers = (("X-Vault-Request", "true"),)
        if self._token:
            headers += (("X-Vault-Token", self._token),)
        if self.spec.namespace:
            headers += (("X-Vault-Namespace", self.spec.namespace),)
        if body:
            headers += (("Content-Type", "application/json"),)
        url = f"{self.spec.address}/v1/{path}"
        done = await self._fetch(url, method=method, headers=headers, body=body, timeout_s=TIMEOUT_S, learnt=False)
        if done.status in _AWAY:
            raise _Away(f"it is sealed, standing by or broken (HTTP {done.status})")
        return done


def _decode(body: bytes, type_: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=type_)
    except BAD_JSON:
        raise _Away("an answer that no Vault gives; is this its address?") from None


def _text(raw: msgspec.Raw) -> str | None:
    """A field that is a text; numbers as they stand. None for anything else."""
    try:
        value = msgspec.json.decode(raw)
    except BAD_JSON:
        return None
    if isinstance(value, str):
        return value
    return bytes(raw).decode() if isinstance(value, int | float) and not isinstance(value, bool) else None
