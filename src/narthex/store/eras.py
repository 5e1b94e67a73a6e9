"""What each server was found to speak, kept over a restart: a small file beside the store.

In: verdicts, as they are found. Out: the same after a start, where the server is still the same. It is a hint: whatever
the file says, a server that answers otherwise is asked (`flow/upstream/era.py`). So a file that cannot be read is none,
and one that cannot be written costs a probe a server at the next start; both are said once. Writes off the loop.
Cases: `tests/store/test_eras.py`.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import tempfile
from pathlib import Path

import msgspec

from narthex.flow.upstream.era import Verdict
from narthex.types import HttpTarget, ServerSpec

MOST_BYTES = 4 * 1024 * 1024
_log = logging.getLogger("narthex.store")


class _Kept(msgspec.Struct):
    """`target` is the SHA-256 of where the server is: another one of the same name has its own era."""

    target: str
    verdict: Verdict


class _File(msgspec.Struct):
    version: int = 1
    servers: dict[str, _Kept] = {}


_decode = msgspec.json.Decoder(_File).decode


class EraFile:
    """The verdicts of one gateway. `known` and `keep` are asked on the loop and touch memory alone."""

    def __init__(self, path: Path) -> None:
        """Read the file, if there is one."""
        self._path = path
        self._told = False
        self._kept = _read(path)
        self.changed = False

    def known(self, spec: ServerSpec) -> Verdict | None:
        """What this server spoke when it was last asked."""
        kept = self._kept.get(spec.name)
        return kept.verdict if kept is not None and kept.target == _target(spec) else None

    def keep(self, spec: ServerSpec, verdict: Verdict) -> None:
        """It is to be in the file."""
        self._kept[spec.name] = _Kept(_target(spec), verdict)
        self.changed = True

    async def save(self, configured: frozenset[str]) -> None:
        """Write what has changed, of servers that are configured still. Never raises for what the disk does."""
        if not self.changed:
            return
        self.changed = False
        self._kept = {name: one for name, one in self._kept.items() if name in configured}
        try:
            await asyncio.to_thread(_write, self._path, msgspec.json.encode(_File(servers=self._kept)))
        except OSError as error:
            if not self._told:
                self._told = True
                _log.warning("%s cannot be written (%s): servers are asked for their era at each start",
                             self._path, error.strerror or error)  # fmt: skip


def _target(spec: ServerSpec) -> str:
    target = spec.target
    where = (target.url,) if isinstance(target, HttpTarget) else (target.command, *target.args)
    return hashlib.sha256(msgspec.json.encode((spec.transport, *where))).hexdigest()


def _read(path: Path) -> dict[str, _Kept]:
    try:
        with path.open("rb") as file:
            raw = file.read(MOST_BYTES + 1)
        found = _decode(raw)
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        _log.warning("%s cannot be read (%s): servers are asked for their era again", path, error)
        return {}
    return found.servers if found.version == 1 and len(raw) <= MOST_BYTES else {}


def _write(path: Path, data: bytes) -> None:
    """All of it or nothing, for this user alone."""
    handle, name = tempfile.mkstemp(prefix=path.name, dir=path.parent)  # 0600
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
