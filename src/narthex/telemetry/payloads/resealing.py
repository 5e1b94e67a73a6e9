"""Sealed payloads are brought under another master key in their place: only the wrapped key in a line changes.

In: the folder of a journal, what seals. Out: the same lines, under the current key. Half of a wrapped key opens
nothing, so what is about to be written stands in a file of its own before any of it is: whoever has the folder next
writes it again. Cases: `tests/cli/test_audit_kept.py`, `tests/cli/test_audit_killed.py`.
"""

from __future__ import annotations

import os
from base64 import b64decode, b64encode
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from narthex.telemetry.audit.segments import sync_file, sync_folder
from narthex.telemetry.payloads.erasing import Concerned, change_lines, find, write_at
from narthex.telemetry.payloads.lines import PAYLOADS, name_of

SEALED = b'"sealed":"'
WRAPPED = 92
"""Characters of base64 for version, key id, nonce and wrapped key: what changes with the master key."""
UNDER_WAY = ".resealing"


class Reseals(Protocol):
    """Brings what is sealed under another key: `authority.envelope.Envelopes`."""

    def reseal(self, sealed: bytes, tenant: str, name: str) -> bytes | None: ...


class Change(msgspec.Struct, frozen=True):
    """What a line gets: the file, where the line begins, the first characters of what is sealed there."""

    file: str
    at: int
    wrapped: str


def reseal(folder: Path, seals: Reseals, sync: Callable[[int], None] = sync_file) -> tuple[int, list[str]]:
    """Bring every sealed payload under the current master key, in its place.

    Returns:
        How many were, and the records of those that do not open: they stay as they are.
    Raises:
        OSError: A file cannot be written; it may be done again.
    """
    failed: list[str] = []
    changes: list[Change] = []
    for one in find(folder, Concerned()):
        if one.line is None or not one.line.sealed:
            continue
        try:
            found = seals.reseal(b64decode(one.line.sealed), one.line.tenant, name_of(one.line))
        except Exception:  # a key that is not here, or bytes that were changed: the seal tells
            failed.append(one.record)
            continue
        if found is not None:
            changes.append(Change(one.path.name, one.at, b64encode(found)[:WRAPPED].decode()))
    if changes:
        _note(folder, changes)
        finish(folder, sync)
    return len(changes), failed


def finish(folder: Path, sync: Callable[[int], None] = sync_file) -> None:
    """Write what is under way, as often as it takes. Raises OSError."""
    path = folder / UNDER_WAY
    try:
        changes = msgspec.json.decode(path.read_bytes(), type=list[Change])
    except FileNotFoundError:
        return
    except (msgspec.MsgspecError, UnicodeDecodeError):
        changes = []  # none of ours: ours is there whole, or not at all
    wrapped: dict[str, dict[int, bytes]] = {}
    for one in changes:
        wrapped.setdefault(one.file, {})[one.at] = one.wrapped.encode()
    for file, at in wrapped.items():
        if file.startswith(PAYLOADS) and "/" not in file and (folder / file).exists():
            change_lines(folder / file, at.keys(), lambda line, place, at=at: _under(line, at[place]), sync)  # type: ignore[misc]
    path.unlink()
    sync_folder(folder)


def _under(line: bytes, wrapped: bytes) -> tuple[int, bytes]:
    """Where in a line what is to stand: nothing where it was erased meanwhile."""
    begin = line.find(SEALED) + len(SEALED)
    return (begin, wrapped) if begin >= len(SEALED) and len(wrapped) == WRAPPED else (0, b"")


def _note(folder: Path, changes: Sequence[Change]) -> None:
    ours = folder / f"{UNDER_WAY}.{os.getpid()}"
    with open(ours, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        write_at(file.fileno(), msgspec.json.encode(changes), 0)
        os.fsync(file.fileno())
    ours.replace(folder / UNDER_WAY)
    sync_folder(folder)
