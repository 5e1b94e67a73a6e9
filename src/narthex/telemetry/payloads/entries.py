"""What is kept of the call that a record is of, and what the record says of it.

In: an entry on the thread of the journal. Out: its payloads with `Payloads`, its `notes`.
Cases: `tests/telemetry/payloads/test_entries.py`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from narthex.kept import Keep
from narthex.telemetry.payloads.lines import Note, Part
from narthex.telemetry.payloads.rules import KeptParts
from narthex.telemetry.stamps import stamp

if TYPE_CHECKING:
    from narthex.telemetry.payloads.writing import Payloads
    from narthex.telemetry.record import Buffer, Entry

_log = logging.getLogger("narthex.journal")
NO_ROOM = Note("none", reason="no_room")
"""So much waited for the disk that this could not."""
FAILED = Note("none", reason="failed")


def keep_payloads(entry: Entry, keep: KeptParts, payloads: Payloads, now: float) -> None:
    """Keep what is asked for. Raises OSError: there is no file for it; it may be tried again."""
    result: Part = "error" if entry.is_error else "result"
    arguments = (entry.arguments,) if entry.arguments is not None else ()
    task = (entry.task,) if entry.task is not None else ()
    notes = dict(entry.notes or {})
    parts: tuple[tuple[Part, Sequence[Buffer], Keep], ...] = (
        ("task", task, keep.task), ("arguments", arguments, keep.arguments), (result, entry.answer, keep.result),
    )  # fmt: skip
    for part, pieces, kept in parts:
        if pieces and kept != "none" and part not in notes:
            notes[part] = _note(entry, part, b"".join(pieces), kept, keep.group, payloads, now)
            entry.notes = notes
    entry.task, entry.arguments, entry.answer = None, None, ()


def _note(
    entry: Entry, part: Part, raw: bytes, kept: Keep, group: str, payloads: Payloads, now: float
) -> Note:  # fmt: skip
    from narthex.telemetry.payloads.writing import Owner

    who = entry.principal
    owner = Owner(entry.id, stamp(entry.at), who.tenant, who.issuer, who.subject, who.client)
    try:
        return payloads.put(owner, part, raw, "full" if kept == "full" else "redacted", group, now)
    except OSError:
        raise
    except Exception:  # one payload must not cost the records that follow; nothing of it is said
        _log.error("a payload cannot be kept")
        return FAILED


def no_room(keep: KeptParts) -> dict[str, Note]:
    """What is said of a call that could not wait."""
    parts = (("arguments", keep.arguments), ("result", keep.result))
    return {part: NO_ROOM for part, kept in parts if kept != "none"}


def notes_of_begin(begun: Entry) -> dict[str, Note]:
    """What the record of an end says of the payloads that the record of the beginning has."""
    notes = begun.notes or {}
    return {
        part: msgspec.structs.replace(note, record=begun.id) if note.kept != "none" else note
        for part, note in notes.items()
    }
