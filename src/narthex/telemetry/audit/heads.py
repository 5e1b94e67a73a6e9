"""The head of a chain beside the store: a checkpoint that is on the disk before any answer that it covers goes out.

Who may write to the journal's folder, and not here, cannot cut off the record of an answer that anybody has. A file has
two places of a page each, written in turns: one is whole whenever the machine fails. What stands there is a number that
grows, and a checkpoint (`checkpoints.py`). Whoever writes holds the file's lock; what is left by those who have ended
is named by the first line of the next chain, before it is written over.
In: checkpoints. Out: files `audit-FOLDER-NUMBER.heads`, and `audit-FOLDER-cli-NUMBER.heads` of what is done at the
terminal; what stands in them.
Cases: `tests/telemetry/audit/test_heads.py`. Decision: `docs/decisions/heads-beside-the-store.md`.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Final

import msgspec

from narthex.flow.codec.jsonrpc import BAD_JSON
from narthex.telemetry.audit.checkpoints import Head
from narthex.telemetry.audit.segments import sync_folder

PAGE: Final = 4096
"""Bytes of a place: never shares a block of the disk with the other one."""
_MOST: Final = 64
"""Files of one journal: gateways that write it at the same time."""
_SENSIBLE: Final = 10**15
"""A larger number none of us has written."""
Write = Callable[[int, bytes, int, bool], None]
"""Puts bytes at a place of a file; with True they are on the disk when it returns. Raises OSError."""


class _Said(msgspec.Struct):
    heads: tuple[Head, ...] = ()


_said = msgspec.json.Decoder(_Said).decode


def stem_of(folder: Path) -> str:
    """What the files for the journal in a folder begin with: another folder has others."""
    return f"audit-{sha256(os.fsencode(folder.resolve())).hexdigest()[:8]}"


def heads_in(state_dir: Path, folder: Path) -> list[Path]:
    """The files with the heads of the journal in `folder`, of all slots."""
    return sorted(state_dir.glob(f"{stem_of(folder)}-*.heads"))


def read_places(data: bytes) -> Iterator[tuple[int, bytes]]:
    """What stands in the places of a file that were ever written: the number, and the checkpoint with its line end.
    Number -1: it cannot be read."""
    for start in (0, PAGE):
        place = data[start : start + PAGE].rstrip(b"\0")
        if place:
            number, _, line = place.partition(b" ")
            readable = number.isdigit() and len(number) < 19 and line.endswith(b"\n")
            yield (int(number), line) if readable else (-1, place)


def write_place(file: int, data: bytes, at: int, through: bool) -> None:
    """`pwrite`, in one call with the sync where the system has that."""
    if through and hasattr(os, "RWF_DSYNC"):
        count = os.pwritev(file, [data], at, os.RWF_DSYNC)
    else:
        count = os.pwrite(file, data, at)
        if through:
            os.fsync(file)
    if count != len(data):
        raise OSError(errno.EIO, os.strerror(errno.EIO))


class Heads:
    """The writing end, for one journal. `found`: heads that were left here by those who have ended.

    Args:
        state_dir: It exists. folder: the journal's. slot: as `Segments` has it; each has files of its own.
    Raises:
        OSError: There can be no such file.
    """

    def __init__(self, state_dir: Path, folder: Path, *, slot: int | str = 0, write: Write = write_place) -> None:
        start = stem_of(folder) if slot == 0 else f"{stem_of(folder)}-{slot}"
        self._write = write
        self._files: list[tuple[Path, int]] = []  # the first is ours, the others are of those who have ended
        self._number = 0
        self.found: tuple[Head, ...] = ()
        try:
            for path in sorted(state_dir.glob(f"{start}-[0-9]*.heads")):
                self._take(path)
            for number in range(_MOST):
                if not self._files:
                    self._take(state_dir / f"{start}-{number}.heads")
            if not self._files:
                raise OSError(errno.EMFILE, f"{_MOST} gateways write to one journal")
            self._prepare(*self._files[0])
        except OSError:
            self.close()
            raise

    def put(self, line: bytes, *, through: bool) -> None:
        """Put a checkpoint in the place of the one before the last. Raises OSError.

        Args:
            through: It is on the disk when this returns.
        """
        self._number += 1
        data = b"%d %b" % (self._number, line)
        path, file = self._files[0]
        try:
            self._write(file, data.ljust(PAGE, b"\0"), self._number % 2 * PAGE, through)
        except OSError as error:
            raise OSError(error.errno, f"{error.strerror} ({path})") from None

    def forget(self) -> None:
        """What was found is on the disk in another place: only our own file stays."""
        while len(self._files) > 1:
            path, file = self._files.pop()
            path.unlink(missing_ok=True)
            os.close(file)

    def close(self) -> None:
        """Let go of the file: the next gateway goes on in it. Idempotent."""
        while self._files:
            os.close(self._files.pop()[1])

    def _take(self, path: Path) -> None:
        """Take over a file, unless another one writes to it."""
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            gone = not os.fstat(file).st_nlink  # another one has forgotten it meanwhile
        except BlockingIOError:
            gone = True
        if gone:
            os.close(file)
            return
        self._files.append((path, file))
        number, line = max(read_places(os.pread(file, 2 * PAGE, 0)), default=(0, b""))
        self._number = max(self._number, number if number < _SENSIBLE else 0)
        self.found += _heads_of(line)

    def _prepare(self, path: Path, file: int) -> None:
        """Both places are there before anything is put in one: what is put is never more than a page of the disk."""
        if os.fstat(file).st_size < 2 * PAGE:
            self._write(file, bytes(2 * PAGE), 0, False)
            os.fsync(file)
            sync_folder(path.parent)


def _heads_of(line: bytes) -> tuple[Head, ...]:
    """Unproved; none where it is no checkpoint: `verify` says what is wrong with it."""
    try:
        return _said(line).heads
    except BAD_JSON:
        return ()
