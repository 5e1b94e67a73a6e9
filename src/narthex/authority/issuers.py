"""The keys of one issuer: found by its metadata, fetched, fetched again when it rotates them, kept when it is dead.

In: an `IssuerSpec`, a `Fetch`, clocks. Out: a key for a token, at once from memory, or after one fetch that all who
wait share. A key that nobody knows makes us ask again, a few times at once and then every ten seconds at most: a client
that invents key ids must not make us a burden to the issuer. Failures are tried again with a growing, random delay.
Does I/O, nothing of it before it is asked. Cases: `tests/authority/test_issuers.py`, with an issuer that dies, rotates,
lies and hangs.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Generator
from pathlib import Path

from narthex.authority.addresses import same_origin
from narthex.authority.fetch import Fetch
from narthex.authority.port import Secrets, getter
from narthex.errors import AuthorityUnavailable
from narthex.flow.identity.discovery import COMMON, MAX_DOCUMENT, Metadata, metadata_urls, read_metadata
from narthex.flow.identity.keys import Key, KeySet, reading
from narthex.flow.identity.presets import PRESETS
from narthex.flow.identity.tokens import TID
from narthex.flow.identity.verified import Vouch
from narthex.types import IssuerSpec

FRESH_S = 15 * 60.0
"""Keys older than this are asked for again, off the path."""
METADATA_FRESH_S = 60 * 60.0
BURST = 4
EVERY_S = 10.0
"""Unknown key ids may make us ask `BURST` times, and again every `EVERY_S` seconds."""
RETRY_S = (1.0, 300.0)
"""After a failure: the first delay, doubled each time, and the longest."""
TIMEOUT_S = 10.0
_log = logging.getLogger("narthex.identity")


class Issuer:
    """One issuer, for as long as its spec stays the same.

    Args:
        clock: Monotonic seconds. chance: 0 ≤ x < 1.
    """

    def __init__(
        self,
        spec: IssuerSpec,
        fetch: Fetch,
        *,
        clock: Callable[[], float],
        chance: Callable[[], float],
        secrets: Secrets | None = None,
    ) -> None:
        self.spec = spec
        self.preset = PRESETS[spec.preset]
        self.vouch = Vouch()
        self.keys: KeySet | None = None
        self.metadata: Metadata | None = None
        self.last_error = ""
        """Why the last fetch failed, for the operator; empty after one that did not."""
        self._fetch = fetch
        self._get = getter(secrets)
        self._clock = clock
        self._chance = chance
        self._asking: asyncio.Task[None] | None = None
        self._keys_at = self._metadata_at = 0.0
        self._failures = 0
        self._retry_at = 0.0
        self._tokens = float(BURST)
        self._tokens_at = clock()

    def find(self, kid: str | None, alg: str) -> Key | None:
        """The key of a token, from memory."""
        return self.keys.find(kid, alg) if self.keys is not None else None

    def may_ask(self, kid: str | None) -> bool:
        """Could asking the issuer bring this key, and is it our turn to ask? Takes one turn where the answer is yes."""
        if self._asking is not None:
            return True
        now = self._clock()
        if self.keys is None:
            return now >= self._retry_at
        if self.keys.knows(kid):
            return False
        self._tokens = min(float(BURST), self._tokens + (now - self._tokens_at) / EVERY_S)
        self._tokens_at = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True

    async def refresh(self) -> None:
        """Ask for the keys; all who call this meanwhile wait for the same answer.

        Raises:
            AuthorityUnavailable: The issuer does not answer, or not with keys. What was known stays.
        """
        if self._asking is None:
            self._asking = asyncio.get_running_loop().create_task(self._refresh())
            self._asking.add_done_callback(self._asked)
        await asyncio.shield(self._asking)

    async def seek(self, kid: str | None, alg: str) -> Key | None:
        """The key of a token that is not in memory. An asking that was under way may have been answered before the key
        was made: then once more, if it is our turn.

        Raises:
            AuthorityUnavailable: The issuer does not answer, or not with keys.
        """
        joined = self._asking is not None
        await self.refresh()
        if joined and self.find(kid, alg) is None and self.may_ask(kid):
            await self.refresh()
        return self.find(kid, alg)

    def _asked(self, task: asyncio.Task[None]) -> None:
        self._asking = None
        if not task.cancelled():
            task.exception()  # seen: whoever waited has it

    async def _refresh(self) -> None:
        spec = self.spec
        try:
            if spec.jwks_file:
                document = await asyncio.to_thread(Path(spec.jwks_file).read_bytes)
            else:
                url, learnt = await self._keys_url()
                document = await self.document(url, learnt=learnt)
            keys = await _in_slices(reading(document))
            if not keys.ids:
                raise ValueError("none of its keys is of use: they are too short, symmetric, or for encryption")
        except (AuthorityUnavailable, ValueError, OSError) as error:
            raise self._failed(error) from None
        self._take(keys)

    def _failed(self, error: Exception) -> AuthorityUnavailable:
        first, longest = RETRY_S
        delay = min(longest, first * 2.0**self._failures)
        self._failures = min(self._failures + 1, 30)
        self._retry_at = self._clock() + delay * (0.5 + self._chance() / 2)
        detail = error.detail if isinstance(error, AuthorityUnavailable) else str(error)
        if not self.last_error:
            _log.warning("issuer %s cannot be asked for its keys: %s", self.spec.name, detail)
        self.last_error = detail
        return AuthorityUnavailable("the issuer of the token cannot be asked", detail=f"{self.spec.name}: {detail}")

    def _take(self, keys: KeySet) -> None:
        if self.keys is not None and self.keys.ids - keys.ids:
            self.withdraw()  # a key has gone: what it had signed is to be checked again
        if self.last_error:
            _log.info("issuer %s answers again", self.spec.name)
        self.keys = keys
        self._keys_at = self._clock()
        self._failures, self.last_error = 0, ""

    def withdraw(self) -> None:
        """Nothing that was verified with the keys so far counts without being looked at again."""
        if self.vouch.valid:  # else it is closed
            self.vouch.valid = False
            self.vouch = Vouch()

    async def _keys_url(self) -> tuple[str, bool]:
        if self.spec.jwks_url:
            return self.spec.jwks_url, False
        url = (await self.ask_metadata()).jwks_uri
        if not url:
            raise ValueError("its metadata names no keys (jwks_uri)")
        return url, self.is_learnt(url)

    async def ask_metadata(self) -> Metadata:
        """The issuer's metadata, at most an hour old while it answers. Raises AuthorityUnavailable, ValueError."""
        if self.metadata is not None and self._clock() - self._metadata_at < METADATA_FRESH_S:
            return self.metadata
        spec = self.spec
        if spec.metadata_url:
            urls: tuple[str, ...] = (spec.metadata_url,)
        else:
            urls = metadata_urls(spec.issuer, self.preset.discovery)
        reason = ""
        for url in urls:
            try:
                self.metadata = read_metadata(await self.document(url, learnt=False), spec.issuer)
            except (AuthorityUnavailable, ValueError) as error:
                said = error.detail if isinstance(error, AuthorityUnavailable) else str(error)
                if not reason or reason.endswith("HTTP 404"):
                    reason = f"{url}: {said}"
                continue
            self._metadata_at = self._clock()
            return self.metadata
        if self.metadata is not None:
            return self.metadata
        raise ValueError(reason)

    def is_learnt(self, url: str) -> bool:
        """Did somebody else supply this address? Whoever names an issuer has named its server too."""
        return not same_origin(url, self.spec.metadata_url or self.spec.issuer.replace(TID, COMMON))

    async def document(self, url: str, *, learnt: bool) -> bytes:
        """A JSON document. Raises AuthorityUnavailable."""
        headers = [("Accept", "application/json")]
        if self.spec.token is not None and not learnt:  # an address that others supplied is shown no secret
            headers.append(("Authorization", f"Bearer {self.spec.token.fill(self._get)}"))
        answer = await self._fetch(
            url, headers=tuple(headers), max_bytes=MAX_DOCUMENT, timeout_s=TIMEOUT_S, learnt=learnt
        )
        if answer.status != 200:
            raise AuthorityUnavailable(detail=f"HTTP {answer.status}")
        return answer.body

    def is_due(self) -> bool:
        """Is it time to ask again, off the path? Once a second somebody looks."""
        if self._asking is not None:
            return False
        now = self._clock()
        if self.keys is None or self._failures:
            return now >= self._retry_at
        return now - self._keys_at >= FRESH_S

    def close(self) -> None:
        """Nobody asks any more; what it vouched for counts no more."""
        self.vouch.valid = False
        if self._asking is not None:
            self._asking.cancel()


async def _in_slices(steps: Generator[None, None, KeySet]) -> KeySet:
    """The keys, with a turn for everybody else after each."""
    while True:
        try:
            next(steps)
        except StopIteration as done:
            keys: KeySet = done.value
            return keys
        await asyncio.sleep(0)
