"""What somebody who was interrupted has left in the folder of a journal: ended, or cleared away, before anything else.

In: the folder, of which one has the lock (`folder_lock.py`). Out: no file that nobody uses, no second form of one.
A copy that was being made of a file still has what was erased in the file since, so it must not lie there.
Cases: `tests/cli/test_audit_killed.py`.
"""

from __future__ import annotations

import re
from pathlib import Path

from narthex.telemetry.audit.segments import sync_folder
from narthex.telemetry.payloads.resealing import finish

_BEGUN = re.compile(r"\.(calls|checkpoints|payloads)-.+\.\d+(\.gz)?|\.holds\.json\.\d+|\.resealing\.\d+")
"""Names under which files are made before they take their place."""


def tidy(folder: Path) -> None:
    """Raises OSError."""
    gone = [path for path in folder.glob(".*") if _BEGUN.fullmatch(path.name)]
    # Of one that is there in both forms the original was to go: the other is made again.
    gone += [path for path in folder.glob("*.jsonl.gz") if path.with_suffix("").exists()]
    for path in gone:
        path.unlink(missing_ok=True)
    if gone:
        sync_folder(folder)
    finish(folder)
