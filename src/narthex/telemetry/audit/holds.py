"""Legal holds: what somebody must be able to produce is neither erased nor removed by its age.

In: `holds.json` beside the journal. Out: holds, and what they cover. That one was placed or released is a record, too;
the file is what is in force. Cases: `tests/cli/test_audit_kept.py`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from narthex.telemetry.audit.segments import sync_folder
from narthex.telemetry.payloads.erasing import Concerned, Found
from narthex.telemetry.payloads.lines import Line

FILE = "holds.json"


class Hold(msgspec.Struct, frozen=True):
    """One hold. `by` and `reason` are for people."""

    id: str
    time: str
    by: str
    reason: str
    concerned: Concerned


class BadHolds(ValueError):
    """The file cannot be read: nothing may be erased or removed before somebody has looked at it."""


def holds_in(folder: Path) -> list[Hold]:
    """Those in force. Raises BadHolds, OSError."""
    try:
        data = (folder / FILE).read_bytes()
    except FileNotFoundError:
        return []
    try:
        return msgspec.json.decode(data, type=list[Hold])
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise BadHolds(f"{folder / FILE} cannot be read: nothing is erased or removed before it is put right") from None


def keep_holds(folder: Path, holds: Sequence[Hold]) -> None:
    """These are in force from now on: all of them, or the ones before. Raises OSError."""
    ours = folder / f".{FILE}.{os.getpid()}"
    with open(ours, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(msgspec.json.format(msgspec.json.encode(holds), indent=1))
        file.flush()
        os.fsync(file.fileno())
    ours.replace(folder / FILE)
    sync_folder(folder)


def not_held(found: Iterable[Found], holds: Sequence[Hold]) -> list[Found]:
    """Without what is held. What is half erased is nobody's any more, and is not there to be held."""
    return [one for one in found if one.line is None or held_by(holds, one.line) is None]


def held_by(holds: Sequence[Hold], line: Line) -> Hold | None:
    """Which hold covers a payload, if any."""
    return next((one for one in holds if one.concerned.covers(line)), None)
