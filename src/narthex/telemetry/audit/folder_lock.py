"""One at a time changes what lies in the folder of a journal: who erases, removes what is old, compresses, seals anew.

Whoever has the lock finds what was left unfinished ended, or cleared away. Writing records and payloads needs no lock:
it only adds to the ends of files that nobody else touches.
Cases: `tests/cli/test_audit_kept.py`, `tests/cli/test_audit_killed.py`.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from narthex.telemetry.audit.leftovers import tidy

FILE = ".upkeep.lock"


@contextmanager
def alone(folder: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold the lock. Gives False, where it is another's and nobody is to wait for it. Raises OSError."""
    file = os.open(folder / FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            tidy(folder)
            yield True
    finally:
        os.close(file)
