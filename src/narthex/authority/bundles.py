"""Where a policy bundle comes from: a folder, a tarball, or a bundle server over HTTP; kept as new as it is there.

In: where it is, who may have signed it, somebody who takes it (and may refuse it: an engine that cannot compile it).
Out: `bundle`, the last good one; `problem`, why there is no newer one. What is damaged, forged, expired or refused
changes nothing: the good one goes on, and after a restart too, because what came over HTTP is kept on disk and checked
again there. Speaks the bundle protocol of Open Policy Agent: ETag, long polling, whole bundles only. Does I/O.
Cases: `tests/authority/test_bundles.py`; with the real one: `tests/counterparts/test_opa_bundles.py`.
Source: Open Policy Agent, Bundles, "Bundle Service API".
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import stat
import tempfile
from collections.abc import Awaitable, Callable, Hashable, Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from narthex.authority.fetch import Fetch, Headers
from narthex.errors import AuthorityUnavailable, SecretMissing
from narthex.flow.policy.bundles.bundle import Bundle, BundleRefused, read_bundle, read_tarball
from narthex.flow.policy.bundles.signatures import MANIFEST, SIGNATURES, Trust
from narthex.flow.policy.bundles.tarball import MOST_BYTES, MOST_FILES
from narthex.types import PeerTls

_log = logging.getLogger("narthex.policy")
LOOK_S = 1.0
"""How often a folder or a file is looked at."""
TIMEOUT_S = 30.0
FIRST_RETRY_S = 1.0
QUICK_S = 1.0
"""Who answers a long poll sooner, and has nothing new, does not know long polling: then we ask at intervals."""
LONG_POLL = "application/vnd.openpolicyagent.bundles"
SUFFIXES = (".rego", ".json", ".yaml", ".yml", MANIFEST, ".wasm", ".pb")


class BundleSpec(msgspec.Struct, frozen=True):
    """Where a bundle is, and how it is looked after. Either `url` or `path` is set."""

    url: str = ""
    path: str = ""
    every_s: tuple[float, float] = (60.0, 120.0)
    """Shortest and longest time between two questions; the longest wait after failures too."""
    long_poll_s: float = 0.0
    """How long the server may hold a question until there is something new; 0: not at all."""
    kept_in: str = ""
    """The folder where the last good one that came over HTTP is kept; empty: nowhere."""
    max_bytes: int = MOST_BYTES
    tls: PeerTls | None = None


Take = Callable[[Bundle], Awaitable[None]]
"""Rules by a bundle from now on. Raises BundleRefused: it cannot, and what ruled goes on."""


class BundleKeeper:
    """One bundle, looked after for as long as it is not closed.

    Args:
        take: Called with each new bundle, one at a time.
        trust: Who may have signed it, by the keys as they are now; returns None where nobody need have.
        headers: What is sent along to a bundle server: whoever asks may have to say who they are.
        now: Unix seconds. clock: monotonic seconds. chance: 0 ≤ x < 1.
    """

    def __init__(
        self,
        spec: BundleSpec,
        take: Take,
        *,
        fetch: Fetch,
        now: Callable[[], float],
        clock: Callable[[], float],
        chance: Callable[[], float],
        trust: Callable[[], Trust | None] = lambda: None,
        headers: Callable[[], Headers] = lambda: (),
    ) -> None:
        self.spec = spec
        self.bundle: Bundle | None = None
        self.problem = "it has not been read yet"
        self.refused = 0
        """How many were not taken."""
        self._take, self._trust, self._headers = take, trust, headers
        self._fetch, self._now, self._clock, self._chance = fetch, now, clock, chance
        self._etag = ""
        self._mark: Hashable = None
        self._failures = 0
        self._again_at = 0.0
        self._task: asyncio.Task[None] | None = None

    async def start(self, patience_s: float) -> None:
        """Read what there is, wait no longer than this for a bundle server, and look after it from then on."""
        if self.spec.url:
            await self._take_kept()
        first = asyncio.Event()
        self._task = asyncio.create_task(self._run(first))
        with suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                await first.wait()

    def close(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()

    async def _run(self, first: asyncio.Event) -> None:
        while True:
            try:
                wait_s = await (self.ask() if self.spec.url else self.look())
            except Exception as error:
                _log.exception("looking after the policy bundle failed")
                wait_s = self._fail(type(error).__name__)
            first.set()
            await asyncio.sleep(wait_s)

    # --- a folder or a file

    async def look(self) -> float:
        """One look at a folder or a tarball. Returns the seconds until the next."""
        path = Path(self.spec.path)
        mark: Hashable = None
        try:
            mark = await asyncio.to_thread(mark_of, path)
            if mark != self._mark or (self.problem and self._clock() >= self._again_at):
                found = await asyncio.to_thread(self._read_path, path)
                if await asyncio.to_thread(mark_of, path) != mark:
                    return 0.1  # it is being written: half of it is nothing
                self._mark = mark
                await self._rule(found)
            return LOOK_S
        except OSError as error:
            self._mark = None
            self._fail(f"{error.filename or path}: {error.strerror or error}")
        except BundleRefused as refused:
            self._mark = mark  # read again when it changes; or later, because a key that is missing may come
            self._again_at = self._clock() + self._refuse(f"{path}: {refused}")
        return LOOK_S

    def _read_path(self, path: Path) -> Bundle:
        return read_path(path, self._trusted(), now=self._now(), most_bytes=self.spec.max_bytes)

    # --- a bundle server

    async def ask(self) -> float:
        """One question to the bundle server. Returns the seconds until the next."""
        spec, asked_at = self.spec, self._clock()
        long = spec.long_poll_s
        prefer = f"modes=snapshot;wait={long:.0f}" if long else "modes=snapshot"
        try:
            headers: Headers = (("Prefer", prefer), *self._headers())
            if self._etag and self.bundle is not None:
                headers = (*headers, ("If-None-Match", self._etag))
            answer = await self._fetch(
                spec.url, headers=headers, max_bytes=spec.max_bytes, timeout_s=TIMEOUT_S + long, learnt=False,
                tls=spec.tls,
            )  # fmt: skip
            if answer.status == 304 and self.bundle is not None:
                self._well()
            elif answer.status == 200:
                self._etag = ""  # of a bundle that is refused: it is fetched again, and may be mended by then
                found = await asyncio.to_thread(self._read, answer.body)
                if await self._rule(found):
                    await asyncio.to_thread(self._keep, answer.body)
                self._etag = answer.headers.get("etag", "")
                if answer.headers.get("content-type", "").partition(";")[0].strip().lower() != LONG_POLL:
                    long = 0.0
            else:
                raise AuthorityUnavailable(detail=f"HTTP {answer.status}")
        except (AuthorityUnavailable, SecretMissing) as error:
            return self._fail(f"{spec.url}: {error.detail or error.public}")
        except BundleRefused as refused:
            return self._refuse(f"{spec.url}: {refused}")
        if long and self._clock() - asked_at >= QUICK_S:
            return 0.0
        if long and answer.status == 200:
            return QUICK_S
        shortest, longest = spec.every_s
        return shortest + (longest - shortest) * self._chance()

    async def _take_kept(self) -> None:
        """Rule by what was kept on disk, until the server answers."""
        if (path := self._kept) is None:
            return
        try:
            await self._rule(await asyncio.to_thread(self._read_path, path))
        except FileNotFoundError:
            return
        except (OSError, BundleRefused) as error:
            _log.warning("the policy bundle kept in %s is not used: %s", path, error)

    @property
    def _kept(self) -> Path | None:
        """Where the bundle of this address is kept: that of another one is none of ours."""
        if not self.spec.kept_in:
            return None
        return Path(self.spec.kept_in) / f"{hashlib.sha256(self.spec.url.encode()).hexdigest()[:16]}.tar.gz"

    def _keep(self, data: bytes) -> None:
        """Write it down, all or nothing, for this user alone. A disk that is full costs only the next start."""
        if (path := self._kept) is None:
            return
        try:
            os.makedirs(path.parent, mode=0o700, exist_ok=True)
            handle, name = tempfile.mkstemp(prefix=path.name, dir=path.parent)  # 0600
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(name, path)
            except BaseException:
                os.unlink(name)
                raise
        except OSError as error:
            _log.warning("the policy bundle cannot be kept in %s: %s", path, error.strerror or error)

    # --- both

    def _trusted(self) -> Trust | None:
        try:
            return self._trust()
        except SecretMissing as missing:
            raise BundleRefused(f"its key is missing: {missing.detail or missing.public}") from None
        except ValueError as error:
            raise BundleRefused(f"its key cannot be used: {error}") from None

    def _read(self, data: bytes) -> Bundle:
        return _read_data(data, self._trusted(), self._now(), self.spec.max_bytes)

    async def _rule(self, found: Bundle) -> bool:
        """Hand it over, where it is another one. Was it?"""
        before = self.bundle
        if before is not None and before.digest == found.digest:
            self._well()
            return False
        await self._take(found)
        self.bundle = found
        self._well()
        by = f", signed with key {found.signed_by!r}" if found.signed_by else ""
        _log.info("the policy is revision %s of %s%s", found.revision, self.spec.url or self.spec.path, by)
        return True

    def _well(self) -> None:
        self._failures, self.problem = 0, ""

    def _refuse(self, problem: str) -> float:
        self.refused += 1
        return self._fail(problem)

    def _fail(self, problem: str) -> float:
        """Note it, say it once, and tell how long to wait."""
        if problem != self.problem:
            goes_on = f"revision {self.bundle.revision} goes on" if self.bundle is not None else "every call is denied"
            _log.error("the policy bundle is not taken: %s; %s", problem, goes_on)
        self.problem = problem
        delay = min(self.spec.every_s[1], FIRST_RETRY_S * 2.0**self._failures)
        self._failures = min(self._failures + 1, 30)
        return delay * (0.5 + self._chance() / 2)


def read_path(path: Path, trust: Trust | None, *, now: float, most_bytes: int = MOST_BYTES) -> Bundle:
    """The bundle in a folder or a tarball. Raises OSError, BundleRefused."""
    if path.is_dir():
        return read_bundle(read_folder(path, most_bytes), trust, now=now)
    with path.open("rb") as file:
        data = file.read(most_bytes + 1)
    return _read_data(data, trust, now, most_bytes)


def _read_data(data: bytes, trust: Trust | None, now: float, most_bytes: int) -> Bundle:
    if len(data) > most_bytes:
        raise BundleRefused(f"larger than {most_bytes} bytes")
    return read_tarball(data, trust, now=now, most_bytes=most_bytes)


def files_of(folder: Path) -> Iterator[tuple[str, Path]]:
    """What may belong to a bundle, by its path from there; hidden folders do not.

    A link to a file is that file, as Kubernetes mounts them; one to a folder is not followed, so there is no circle.
    Raises OSError, BundleRefused.
    """
    count = 0
    signed = (folder / SIGNATURES).exists()  # then for every file
    for where, folders, names in os.walk(folder, onerror=_raise):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if signed or name.endswith(SUFFIXES):
                count += 1
                if count > MOST_FILES:
                    raise BundleRefused(f"more than {MOST_FILES} files")
                yield (Path(where) / name).relative_to(folder).as_posix(), Path(where) / name


def _raise(error: OSError) -> None:
    raise error


def read_folder(folder: Path, most_bytes: int) -> dict[str, bytes]:
    """The files of a bundle that stands unpacked. Raises OSError, BundleRefused."""
    files: dict[str, bytes] = {}
    left = most_bytes
    for name, path in files_of(folder):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a FIFO there must not hang us
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise BundleRefused(f"{name} is not a file")
            files[name] = file.read(left + 1)
        left -= len(files[name])
        if left < 0:
            raise BundleRefused(f"larger than {most_bytes} bytes")
    return files


def mark_of(path: Path) -> Hashable:
    """Differs when something of a bundle was written anew. Raises OSError, BundleRefused."""
    found = [path.stat()]
    if stat.S_ISDIR(found[0].st_mode):
        found = [file.stat() for _, file in files_of(path)]
    return tuple((one.st_dev, one.st_ino, one.st_mtime_ns, one.st_size) for one in found)
