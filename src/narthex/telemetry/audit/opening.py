"""Files of a journal, compressed or not, in their order. They may come from anywhere, and are trusted in nothing.

In: a folder. Out: paths, lines. Cases: `tests/cli/test_audit_kept.py`.
"""

from __future__ import annotations

import gzip
import zlib
from io import BufferedIOBase
from pathlib import Path

UNREADABLE = (OSError, EOFError, zlib.error)
"""What a damaged file raises."""


def files_of(folder: Path, start: str, slot: str = "*") -> list[Path]:
    """Those whose names begin so, of one slot or all, in the order of their names. Of one that is there compressed,
    too, the original: who compressed it was interrupted."""
    of = "*" if slot == "*" else f"*-{slot}"
    plain = {path.name: path for path in folder.glob(f"{start}{of}.jsonl")}
    packed = (path for path in folder.glob(f"{start}{of}.jsonl.gz") if path.name.removesuffix(".gz") not in plain)
    return sorted([*plain.values(), *packed])


def opened(path: Path) -> BufferedIOBase:
    """A file of the journal, compressed or not."""
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")
