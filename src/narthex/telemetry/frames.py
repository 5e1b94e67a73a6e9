"""Records that say, but for a few members, what others have said: the rest of their text is kept ready.

In: the `Entry` of a call, on the path of it. Out: a `Short`, which holds numbers and texts and nothing of the call, and
whose line is the one that `line_of` would give; or None: then the entry is kept and `line_of` does it, off the path.
What a caller's calls of one tool have in common is most of a record, and making it anew for each costs more than all
the rest of the journal.
Cases: `tests/telemetry/test_frames.py`, which compares both.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any, Final

import msgspec

from narthex.telemetry.record import LONGEST, NO_TRACE, Entry, line_of
from narthex.telemetry.stamps import stamp

MOST: Final = 4096
"""Frames that are kept, of a kilobyte or two each; when there are more, all begin anew, at most every so often."""
RENEW_S: Final = 10.0
FILLED: Final = frozenset(
    {
        *("request", "bytes_in", "bytes_out", "seconds", "server_seconds", "arguments_digest", "result_digest"),
        *("trace", "at", "seq"),
    }
)
"""Members of an entry that a frame leaves open. All others are part of what it is found by: a member that is new makes
records no less true, at most dearer."""
_REFERENCES: Final = frozenset({"principal", "check", "dialect"})
"""What it is found by as the object that it is: equal ones are not looked for."""
_NEVER: Final = frozenset({"call", "trial", "begun", "done", "keep", "notes", "reason", "decision_id"})
"""An entry with one of these is a record of its own."""
_common: Final = attrgetter(*(set(Entry.__struct_fields__) - FILLED - _REFERENCES - _NEVER))
_encode: Final = msgspec.json.Encoder().encode


class Frame:
    """The text around what differs, and the objects by which it was found: as long as it is kept, they are."""

    __slots__ = ("_of", "parts")

    def __init__(self, parts: tuple[bytes, ...], of: tuple[Any, ...]) -> None:
        self.parts: Final = parts
        self._of: Final = of


class Short:
    """What differs in one record, for which nobody waits. `at`: seconds since 1970."""

    __slots__ = (
        "_bytes_in", "_bytes_out", "_digest", "_frame", "_more", "_request", "_result", "_seconds", "_server", "at",
    )  # fmt: skip

    def __init__(self, frame: Frame, entry: Entry) -> None:
        self._frame = frame
        self._request = entry.request
        self._bytes_in = entry.bytes_in
        self._bytes_out = entry.bytes_out
        self._seconds = entry.seconds
        self._server = entry.server_seconds
        self._digest = entry.arguments_digest
        self._result = entry.result_digest
        self._more = entry.trace
        self.at = entry.at

    @property
    def done(self) -> None:
        """Nobody."""

    def line(self, id_: str) -> bytes:
        """The record, an object of JSON without line ends."""
        parts, request = self._frame.parts, self._request
        text = request if request.isdigit() else _encode(request.decode(errors="replace"))[1:-1]
        last = parts[9]
        if self._more is not NO_TRACE:
            said = [one for one in self._more if one]
            last += b"".join([one.encode() + part for one, part in zip(said, parts[10:], strict=True)])
        return b"".join(
            (
                parts[0], id_.encode(), parts[1], stamp(self.at).encode(), parts[2], b"%d" % self._bytes_in, parts[3],
                b"%d" % self._bytes_out, parts[4], _encode(round(self._seconds, 6)), parts[5],
                _encode(round(self._server, 6)) if self._server > 0 else b"", parts[6], text, parts[7],
                self._digest.encode(), parts[8], self._result.encode(), last,
            )
        )  # fmt: skip


class Frames:
    """Those of a journal. Belongs to the event loop.

    Args:
        random: So many bytes of chance: what marks the open places of a text stands nowhere else in it.
    """

    def __init__(self, random: Callable[[int], bytes]) -> None:
        self._random = random
        self._known: dict[tuple[Any, ...], Frame | None] = {}
        self._renewed = 0.0

    def short(self, entry: Entry) -> Short | None:
        """The entry, if it says what others have said: from the second time on. Never raises."""
        check = entry.check
        if entry.reason or entry.decision_id or entry.call is not None or entry.done is not None:
            return None
        if entry.begun is not None or entry.trial is not None or entry.keep is not None or entry.notes is not None:
            return None
        if not entry.arguments_digest or not entry.result_digest or not 0 < len(entry.request) <= LONGEST:
            return None
        decision = target = None
        kind = ""
        if check is not None:
            decision, target, kind = check.decision, check.target, check.kind
        place = (target.server, target.name) if target is not None else None
        shape = tuple(map(bool, entry.trace)) if entry.trace is not NO_TRACE else None
        key = (
            id(entry.principal), id(decision), id(entry.dialect), kind, place, shape, entry.server_seconds > 0,
            _common(entry),
        )  # fmt: skip
        known = self._known.get(key, self)
        if isinstance(known, Frame):
            return Short(known, entry)
        if known is None:
            frame = self._known[key] = self._made(entry, (entry.principal, decision, entry.dialect))
            return Short(frame, entry) if frame is not None else None
        if len(self._known) < MOST:
            self._known[key] = None  # most callers of a crowd come once
        elif not 0.0 <= entry.at - self._renewed < RENEW_S:
            self._known.clear()
            self._renewed = entry.at
        return None

    def _made(self, entry: Entry, of: tuple[Any, ...]) -> Frame | None:
        id_, request, arguments, result, trace, parent, span = (self._random(8).hex() for _ in range(7))
        place, above, told = (mark if one else "" for mark, one in zip((trace, parent, span), entry.trace, strict=True))
        numbers = [1 << 62 | int.from_bytes(self._random(7), "big") for _ in range(4)]
        sent = entry.server_seconds > 0
        blank = msgspec.structs.replace(
            entry, bytes_in=numbers[0], bytes_out=numbers[1], seconds=numbers[2], request=request.encode(),
            arguments_digest=arguments, result_digest=result, trace=(place, above, told),
            server_seconds=numbers[3] if sent else 0.0,
        )  # fmt: skip
        more = [one for one in (place, above, told) if one]
        server = str(numbers[3]) if sent else ""  # where there is none, nothing is filled in
        texts = (id_, stamp(entry.at), *map(str, numbers[:3]), server, request, arguments, result, *more)
        parts: list[bytes] = []
        try:
            rest = line_of(blank, id_)
        except Exception:  # text that is no Unicode, say: it is said where the entry itself is written
            return None
        for text in texts:
            before, found, rest = rest.partition(text.encode()) if text else (b"", b"-", rest)
            if not found:
                return None
            parts.append(before)
        return Frame((*parts, rest), of)
