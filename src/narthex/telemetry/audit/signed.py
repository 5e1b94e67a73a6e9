"""Lines of a segment that are proved: they follow one another, and a checkpoint that we have signed covers them.

Before anything is done because a record says so, that is looked at: anybody who may write to the folder can write a
record. In: a segment, the keys that count. Out: lines. Cases: `tests/telemetry/audit/test_signed.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from narthex.telemetry.audit.chain import LONGEST, START, Broken, follow
from narthex.telemetry.audit.checkpoints import BadCheckpoint, Head, read_checkpoint
from narthex.telemetry.audit.headers import read_header
from narthex.telemetry.audit.opening import UNREADABLE, opened
from narthex.telemetry.audit.segments import CHECKPOINTS, SEGMENT

Keys = Mapping[str, Ed25519PublicKey]


def signed_lines(path: Path, mark: bytes, keys: Keys) -> list[bytes]:
    """Those with the mark in them, in their order. What is no segment has none. Raises OSError."""
    lines = _lines(path)
    header = read_header(lines[0]) if lines else None
    if header is None:
        return []
    seq, head = 0, START
    if header.event == "segment" and header.previous is not None:
        seq, head = header.previous.seq, _bytes(header.previous.hash)
    signed, found, proved = _heads(path, keys), [], 0
    for line in lines:
        try:
            seq, head = seq + 1, follow(line, seq, head)
        except Broken:
            break
        if mark in line:
            found.append(line)
        if Head(header.chain, seq, head.hex()) in signed:
            proved = len(found)
    return found[:proved]


def _heads(path: Path, keys: Keys) -> set[Head]:
    bare = CHECKPOINTS + path.name.removesuffix(".gz").removeprefix(SEGMENT)
    found: set[Head] = set()
    for form in (path.with_name(bare), path.with_name(bare + ".gz")):
        for line in _lines(form) if form.exists() else ():
            try:
                found.update(read_checkpoint(line, dict(keys)))
            except BadCheckpoint:
                continue
    return found


def _lines(path: Path) -> list[bytes]:
    found: list[bytes] = []
    with opened(path) as file:
        try:
            while line := file.readline(LONGEST):
                found.append(line)
        except UNREADABLE:
            pass
    return found


def _bytes(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        return b""
