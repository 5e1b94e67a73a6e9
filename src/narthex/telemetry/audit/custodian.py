"""A running gateway looks after the files of its journal: `narthex audit upkeep`, once an hour, in a child process.

In: the configuration's path. Out: what the command said, in the log. In a child, because unpacking and reading files
takes seconds of a processor, which would stand still for calls. Cases: `tests/e2e/test_upkeep.py`.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from narthex.kept import Retention
from narthex.telemetry.payloads.erasing import is_under_way
from narthex.types import Snapshot

EVERY_S = 3600.0
FIRST_S = 5.0
"""After the start: calls of the first seconds have enough to do."""
_PROGRAM = "import os, sys; os.nice(10); from narthex.cli.main import main; sys.exit(main())"
_log = logging.getLogger("narthex.journal")


def asks_upkeep(snapshot: Snapshot) -> bool:
    """Does anything grow old, or was somebody who erases interrupted?"""
    if not snapshot.audit_dir:
        return False
    return snapshot.retention != Retention() or is_under_way(Path(snapshot.audit_dir))


async def look_after(snapshot: Callable[[], Snapshot], path: Path, *, first_s: float = FIRST_S) -> None:
    """Until cancelled."""
    await asyncio.sleep(first_s)
    while True:
        if asks_upkeep(snapshot()):
            await _once(path)
        await asyncio.sleep(EVERY_S)


async def _once(path: Path) -> None:
    words = ("audit", "upkeep", "--config", str(path))
    try:
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _PROGRAM, *words, stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
    except OSError as error:
        _log.error("nobody looks after the files of the journal: %s", error)
        return
    try:
        output, _ = await child.communicate()
    except asyncio.CancelledError:
        with suppress(ProcessLookupError):
            child.terminate()
        raise
    said = output.decode(errors="replace").strip()[-1000:]
    if child.returncode:
        _log.error("the files of the journal cannot be looked after: %s", said)
    else:
        _log.info("files of the journal: %s", said)
